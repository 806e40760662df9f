import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from controlplane.server import _make_directory_of_counts


def test_what_servers_that_ended_have_counted_goes_and_what_others_count_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    running = tmp_path / f"controlplane-counts-{os.getppid()}-abc"
    for path in (running, tmp_path / f"controlplane-counts-{ended.stdout.strip()}-abc", tmp_path / "another"):
        path.mkdir()
    first, second = (Path(_make_directory_of_counts()) for _ in range(2))
    assert set(tmp_path.iterdir()) == {running, tmp_path / "another", second}
    assert second.stat().st_mode & 0o777 == 0o700
    assert first != second
