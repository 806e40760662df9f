"""Hashes passwords one at a time in each process, behind everything else that the machine has to do.

One takes a third of a second of a processor, and whoever reaches the login page can ask for it, with names that nobody
has, from many networks. So guesses wait for each other, and for workers, instead of workers for them.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher

#: By how much the thread lets others go first: beside one that is busy, it gets a tenth of a processor.
NICENESS = 10


def _give_way() -> None:
    if sys.platform == "linux":  # where it concerns one thread; elsewhere the whole process would give way
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


_turn = ThreadPoolExecutor(1, thread_name_prefix="hashing", initializer=_give_way)


class PatientHasher(PBKDF2PasswordHasher):
    """Django's own hasher and format; where it is done is all that differs."""

    def encode(self, *arguments: Any, **options: Any) -> str:
        """The hash, when its turn has come; checking a password comes here, too."""
        return _turn.submit(super().encode, *arguments, **options).result()
