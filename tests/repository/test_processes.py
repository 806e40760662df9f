"""The processes that tests start: they end with whatever they have started, and nobody else does."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.processes import ServerProcess, is_alive


def test_a_number_that_may_be_anothers_by_now_is_sent_no_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = ServerProcess(["true"], log=tmp_path / "log")
    process._process.wait(10)
    sent: list[int] = []
    for name in ("kill", "killpg"):
        monkeypatch.setattr(os, name, lambda number, _signal: sent.append(number))
    process.stop()
    process.kill()
    assert sent == []


def test_what_a_process_has_started_ends_with_it_also_when_it_ended_first(tmp_path: Path) -> None:
    process = ServerProcess(["bash", "-c", "sleep 300 & echo $!"], log=tmp_path / "log")
    while process.is_running():
        pass
    child = int(process.log_text())
    assert Path(f"/proc/{child}").exists()
    process.stop()
    assert process._process.returncode == 0
    deadline = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < deadline


def test_one_that_runs_is_ended(tmp_path: Path) -> None:
    process = ServerProcess(["sleep", "300"], log=tmp_path / "log")
    process.stop()
    process.stop()
    assert process._process.returncode == -signal.SIGTERM
    assert not process.is_running()
