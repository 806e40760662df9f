"""A circuit whose look at the database a test decides, and waiting for what threads do."""

import time
from collections.abc import Callable, Iterator

import pytest
from django.db import OperationalError

from controlplane.engines.circuit import Circuit, ask, circuit


class Probe:
    """Stands in for the question whether the database serves; a test says whether it does."""

    def __init__(self) -> None:
        self.is_there = True
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if not self.is_there:
            raise OperationalError


@pytest.fixture
def used() -> Iterator[Circuit]:
    """The process's circuit, as in one that serves requests."""
    was_used, circuit.is_used = circuit.is_used, True
    yield circuit
    circuit.is_used, circuit.probe = was_used, ask
    circuit.close()
    wait_until(lambda: not circuit.is_looking())


@pytest.fixture
def probe(used: Circuit) -> Probe:
    """What the process's circuit asks, instead of the database."""
    used.probe = Probe()
    return used.probe


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    """Returns as soon as it is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)
