"""Settings of one test alone."""

from pathlib import Path

import pytest

from tests.support.boots import Boot


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    return Boot(tmp_path / ".env", monkeypatch)
