"""What the tests of a file have in common is made once, in a transaction around theirs, and copied for each.

A test takes back what it does, and what it has of it in memory is its own. So a file whose tests commit cannot share.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.db import transaction
from pytest_django import DjangoDbBlocker

from environments.limits import counts


def made_once[Made](make: Callable[[], Made]) -> Any:
    """The fixture that makes it; to be a fixture of the file in which tests share."""

    @pytest.fixture(scope="module")
    def made(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Made]:
        around: Any = transaction.atomic()
        around._from_testcase = True  # as Django's own around tests, within which what is durable may be
        cache.clear()
        with django_db_blocker.unblock(), around:
            yield make()
            transaction.set_rollback(True)

    return made


def own_copy[Made](made: Made) -> Made:
    """What one test may change; no request is counted by any throttle yet."""
    cache.clear()
    counts.forget()
    return copy.deepcopy(made)
