"""An environment without settings, and no file of them that another test has loaded."""

from pathlib import Path

import pytest

from controlplane.startup import env
from tests.support.env_values import NAME


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (NAME, f"{NAME}_FILE", "CONTROL_PLANE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONTROL_PLANE_ENV_FILE", str(tmp_path / ".env"))
    monkeypatch.setattr(env, "_lines", {})
