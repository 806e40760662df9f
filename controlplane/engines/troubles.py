"""What an error of the database says: that it is away for everybody, or something about one caller's statement.

Only the first closes this service to others. Which error says which stands here and nowhere else; the engines ask when
an error passes them, and keep the answer with the error for whoever makes an answer of it.
"""

import sqlite3
from enum import Enum
from types import TracebackType
from typing import Any

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, NotSupportedError, OperationalError
from django.db.utils import DatabaseErrorWrapper

from controlplane.engines.circuit import circuit

DATABASE_AWAY = "The database is not available."
#: Of this caller's statement; the database serves others.
ROWS_LOCKED = "Somebody else holds the rows that this call needs: try again."
TOOK_TOO_LONG = "The database took too long for this call: try again."


class Trouble(Enum):
    """Whose trouble an error of the database is, and whether it helps to come again."""

    AWAY = "Nobody is served: unreachable, silent, shutting down, full, read-only or damaged."
    LOCKED = "Somebody else holds a row that this caller's statement waited for; the next time it may be free."
    BUSY = "This caller's statement found no room: it took too long or too much, and may pass the next time."
    INVALID = "The database never takes what this caller asks."
    GONE = "What the caller's row refers to has been deleted meanwhile."
    CONFLICT = "Another row stands against the caller's."
    OURS = "The statement itself is wrong, or the tables are not those that it is for."


#: By SQLSTATE or its beginning, of which the longest counts.
SQLSTATES = {
    "08": Trouble.AWAY,  # the connection failed
    "0A": Trouble.INVALID,  # not supported
    "21": Trouble.INVALID,  # more rows than one
    "22": Trouble.INVALID,  # values
    "23": Trouble.CONFLICT,
    "23503": Trouble.GONE,
    "25": Trouble.BUSY,  # such as a transaction that was idle for too long
    "25006": Trouble.AWAY,  # read-only: a standby
    "25P02": Trouble.OURS,  # asked on after an error
    "26": Trouble.BUSY,  # a prepared statement that a pooler has lost
    "28": Trouble.AWAY,  # our account is refused
    "3D": Trouble.AWAY,  # there is no such database
    "40": Trouble.LOCKED,  # deadlock, serialization
    "42": Trouble.OURS,  # syntax, names, rights
    "53": Trouble.AWAY,  # disk full, memory, connections
    "53400": Trouble.BUSY,  # a limit that is set for each session, such as that of temporary files
    "54": Trouble.INVALID,  # too complex, too many columns or arguments
    "55": Trouble.BUSY,  # in use
    "55P03": Trouble.LOCKED,
    "57": Trouble.BUSY,  # cancelled, as after the statement timeout
    "57P01": Trouble.AWAY,  # shut down
    "57P02": Trouble.AWAY,  # crashed
    "57P03": Trouble.AWAY,  # starting
    "57P04": Trouble.AWAY,  # the database was dropped
    "58": Trouble.AWAY,  # input and output
    "P0": Trouble.OURS,  # raised by a trigger
}
#: By SQLite's primary result code. Locks are waited for in the engine, which knows whether anybody gets them.
CODES = {
    sqlite3.SQLITE_BUSY: Trouble.LOCKED,
    sqlite3.SQLITE_CANTOPEN: Trouble.AWAY,
    sqlite3.SQLITE_CONSTRAINT: Trouble.CONFLICT,
    sqlite3.SQLITE_CORRUPT: Trouble.AWAY,
    sqlite3.SQLITE_ERROR: Trouble.INVALID,  # too many variables, too deep, too many joins
    sqlite3.SQLITE_FULL: Trouble.AWAY,
    sqlite3.SQLITE_INTERNAL: Trouble.OURS,
    sqlite3.SQLITE_INTERRUPT: Trouble.BUSY,
    sqlite3.SQLITE_IOERR: Trouble.AWAY,
    sqlite3.SQLITE_LOCKED: Trouble.LOCKED,
    sqlite3.SQLITE_MISMATCH: Trouble.INVALID,
    sqlite3.SQLITE_MISUSE: Trouble.OURS,
    sqlite3.SQLITE_NOMEM: Trouble.BUSY,
    sqlite3.SQLITE_NOTADB: Trouble.AWAY,
    sqlite3.SQLITE_PERM: Trouble.AWAY,
    sqlite3.SQLITE_PROTOCOL: Trouble.BUSY,
    sqlite3.SQLITE_RANGE: Trouble.OURS,
    sqlite3.SQLITE_READONLY: Trouble.AWAY,
    sqlite3.SQLITE_SCHEMA: Trouble.BUSY,
    sqlite3.SQLITE_TOOBIG: Trouble.INVALID,
}
#: What SQLite gives the same code as a statement that is too large, though no other input would help.
OURS_IN_SQLITE = ("no such ", "near ", "cannot ", "unrecognized ", "incomplete input")
#: Of errors without either, by their class.
CLASSES: dict[type[Exception], Trouble] = {
    DataError: Trouble.INVALID,
    NotSupportedError: Trouble.INVALID,
    IntegrityError: Trouble.CONFLICT,
    OperationalError: Trouble.BUSY,
    InterfaceError: Trouble.BUSY,
}


def trouble_of(error: BaseException) -> Trouble | None:
    """What an error of Django's says; None for one that is not the database's."""
    if not isinstance(error, (DatabaseError, InterfaceError)):
        return None
    known: Trouble | None = getattr(error.__cause__, "trouble", None)
    return known or next((trouble for kind, trouble in CLASSES.items() if isinstance(error, kind)), Trouble.OURS)


def trouble_in_sqlstate(sqlstate: str) -> Trouble:
    """What a SQLSTATE says; internal errors and unknown ones concern one statement."""
    beginnings = (sqlstate[:length] for length in range(len(sqlstate), 1, -1))
    return next((SQLSTATES[each] for each in beginnings if each in SQLSTATES), Trouble.BUSY)


def trouble_in_code(code: int, message: str) -> Trouble:
    """What a result code of SQLite says, which may be an extended one."""
    if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return Trouble.GONE
    if code == sqlite3.SQLITE_ERROR and message.startswith(OURS_IN_SQLITE):
        return Trouble.OURS
    return CODES.get(code & 0xFF, Trouble.BUSY)


class ErrorWrapper(DatabaseErrorWrapper):
    """Django's translation of the driver's errors, which all of them pass: here the circuit hears of them."""

    wrapper: Any

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:  # nearly always
            return
        if isinstance(error, self.wrapper.Database.Error):
            trouble = self.wrapper.trouble_in(error)
            error.trouble = trouble
            if trouble is Trouble.AWAY:
                circuit.found_away()
        super().__exit__(kind, error, traceback)
