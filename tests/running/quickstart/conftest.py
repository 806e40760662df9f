"""Copies of the project that take long to make, for all modules here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clones import Clone, Prepared, Served


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("quickstart"))
    yield served
    served.process.stop()


@pytest.fixture(scope="package")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)
