"""Cells of a table that one test walks: what each does is undone, and what a process remembers of it is forgotten."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.cache import cache
from django.db import transaction

from environments.limits import counts


@contextmanager
def undone() -> Iterator[None]:
    """Takes back what is done within, so that the next cell finds what this one found."""
    savepoint = transaction.savepoint_create()
    try:
        yield
    finally:
        transaction.savepoint_rollback(savepoint)
        cache.clear()
        counts.forget()
