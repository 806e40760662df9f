"""PostgreSQL, of which a silent server is taken for one that is away.

Its own limits (`statement_timeout`) help as long as it runs; one that stands still, or a network that swallows what is
sent, would hold a thread for ever.
"""

import math
import select
import time
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

#: Seconds for which a thread takes a silent server for away.
PAUSE = 1.0


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is given up when a statement is not answered in time."""

    #: None: a statement may take as long as the server lets it.
    longest_answer: float | None = None
    is_silent = False

    def wait[RV](self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Waits for the server; OperationalError, with the connection closed, after `longest_answer` seconds."""
        try:
            return super().wait(gen, interval, timeout or self.longest_answer)
        except psycopg.errors._WaitTimeout:
            if timeout is None:
                self.is_silent = True
                self.pgconn.finish()
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's engine with bounded waiting: OPTIONS has `longest_answer`, in seconds."""

    _longest_answer: float | None = None
    _silent_at = -math.inf

    def get_connection_params(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super().get_connection_params()
        self._longest_answer = parameters.pop("longest_answer", None)
        return parameters

    def get_new_connection(self, conn_params: dict[str, Any]) -> BoundedConnection:
        """Not just after the server was silent: Django connects anew to end a failed transaction, and would wait twice.

        Neither a pool nor another isolation level is among our settings.
        """
        if time.monotonic() < self._silent_at + PAUSE:
            message = "the server was silent a moment ago"
            raise psycopg.OperationalError(message)
        self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection = BoundedConnection.connect(**conn_params)
        connection.longest_answer = self._longest_answer
        return connection

    def is_usable(self) -> bool:
        """Whether the server still holds the connection; of an idle one that costs no round trip.

        Such a connection hears nothing from its server but that it is closed, so its socket says as much as a query
        would. A server that vanished without a word is noticed when the next statement is not answered in time.
        """
        connection: BoundedConnection | None = self.connection
        if connection is None or connection.closed:
            return False
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            return super().is_usable()
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def _close(self) -> None:
        if self.connection is not None and self.connection.is_silent:
            self._silent_at = time.monotonic()
        super()._close()  # type: ignore[misc]  # the stubs lack it
