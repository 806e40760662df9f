"""Passwords are hashed in one thread that gives way, so that guesses take no processor from workers' calls."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher

from controlplane import settings
from controlplane.accounts.hashing import NICENESS, PatientHasher

ITERATIONS = 1_000


class Watched(str):
    """A password that notes which thread hashes it, and how willingly that gives way."""

    __slots__ = ("hashed_by",)
    hashed_by: set[tuple[int, int]]

    def __str__(self) -> str:
        return self

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        self.hashed_by.add((threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)))
        return super().encode(encoding, errors)


def watched() -> Watched:
    password = Watched("a password")
    password.hashed_by = set()
    return password


def test_all_guesses_are_hashed_by_one_thread_which_is_nobody_s_own() -> None:
    password, hasher = watched(), PatientHasher()
    with ThreadPoolExecutor(4) as callers:
        hashes = set(callers.map(lambda _: hasher.encode(password, "salt", ITERATIONS), range(20)))
    assert len(hashes) == len(password.hashed_by) == 1
    assert threading.get_native_id() not in {thread for thread, _ in password.hashed_by}


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own there")
def test_the_thread_that_hashes_gives_way_and_no_other_does() -> None:
    password, before = watched(), os.getpriority(os.PRIO_PROCESS, 0)
    PatientHasher().encode(password, "salt", ITERATIONS)
    assert {niceness for _, niceness in password.hashed_by} == {min(19, NICENESS)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_hashes_are_django_s_own_both_ways() -> None:
    ours, django = PatientHasher(), PBKDF2PasswordHasher()
    for made, checking in ((ours, django), (django, ours)):
        encoded = made.encode("a password", "salt", ITERATIONS)
        assert checking.verify("a password", encoded)
        assert not checking.verify("another", encoded)


def test_the_service_hashes_so() -> None:
    """As its processes load the settings: the tests' own are quicker."""
    assert [f"{PatientHasher.__module__}.{PatientHasher.__qualname__}"] == settings.PASSWORD_HASHERS
