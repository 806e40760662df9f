"""A machine with stand-ins."""

from pathlib import Path

import pytest

from tests.support import factories
from tests.support.factories import Fleet
from tests.support.installing import PYTHON, RECORDER, write_program
from workers.installation.queue import PROGRAM


@pytest.fixture
def fleet(db: None) -> Fleet:
    return factories.create_fleet()


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with recorders named `docker`, `uvx` and, once it is installed, as the worker, and a stand-in for Python."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("docker", "recorder", "uvx", "worker"):
        write_program(folder / name, RECORDER)
    paths = {"recorder": folder / "recorder", "worker": folder / "worker"}
    write_program(folder / "python-stand-in", PYTHON.format(program=PROGRAM, **paths))
    return folder
