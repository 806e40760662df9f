import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane.serving.server import _make_directory_of_counts
from tests.support.processes import ROOT

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def ended() -> int:
    """The id of a process that has ended."""
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603


def test_what_servers_that_ended_have_counted_goes_and_what_others_count_stays(folder: Path, ended: int) -> None:
    running = folder / f"controlplane-counts-{os.getppid()}-abc"
    for path in (running, folder / f"controlplane-counts-{ended}-abc", folder / "another"):
        path.mkdir()
    first, second = (Path(_make_directory_of_counts()) for _ in range(2))
    assert set(folder.iterdir()) == {running, folder / "another", second}
    assert second.stat().st_mode & 0o777 == 0o700
    assert first != second


def make_link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


#: What any account may leave in the folder, under names that look like ours.
STRANGE = {
    "a dangling link": make_link("/nonexistent"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a folder": make_link(os.fspath(Path(__file__).parent)),
    "a file": Path.touch,
    "a pipe": os.mkfifo,
}
NAMES = ("controlplane-counts-1-x", "controlplane-counts-{ended}-x")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_whatever_has_such_a_name_is_left_alone(
    folder: Path, ended: int, name: str, make: Callable[[Path], None]
) -> None:
    path = folder / name.format(ended=ended)
    make(path)
    made = Path(_make_directory_of_counts())
    assert set(folder.iterdir()) == {path, made}
    assert Path(__file__).exists()


@pytest.mark.parametrize(
    "name", ["x-x", "-x", "-1-x", "0-x", "1", "٣-x", "1e3-x", "99999999999999999999-x", " 1-x", "1\n-x", "\udcff-x"]
)
def test_a_name_without_a_process_id_is_not_ours(folder: Path, name: str) -> None:
    path = folder / f"controlplane-counts-{name}"
    path.mkdir()
    made = Path(_make_directory_of_counts())
    assert set(folder.iterdir()) == {path, made}


def test_an_own_directory_whose_process_id_is_another_accounts_by_now_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_over = folder / "controlplane-counts-1-x"
    left_over.mkdir()
    monkeypatch.setattr(os, "kill", raise_permission_error)  # as the kernel tells all but root of process 1
    made = Path(_make_directory_of_counts())
    assert set(folder.iterdir()) == {made}


def raise_permission_error(*_: int) -> None:
    raise PermissionError


def test_another_accounts_directory_is_left_alone(folder: Path, ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = folder / f"controlplane-counts-{ended}-x"
    theirs.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
    _make_directory_of_counts()
    assert theirs.exists()


def test_a_folder_that_cannot_be_listed_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "scandir", raise_permission_error)
    assert Path(_make_directory_of_counts()).is_dir()


def test_without_any_folder_it_is_said_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "nonexistent"))
    with pytest.raises(ImproperlyConfigured, match=r"METRICS_TOKEN.*TMPDIR"):
        _make_directory_of_counts()


def test_threads_that_compute_hold_one_that_waits_no_longer_than_a_start_takes() -> None:
    """A start leaves its turn at each call of the system; Python's own five milliseconds each are a whole start's."""
    asked = "import sys, controlplane.wsgi; print(sys.getswitchinterval())"
    command = [sys.executable, "-c", asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603  # our own
    assert float(done.stdout) <= 0.002
