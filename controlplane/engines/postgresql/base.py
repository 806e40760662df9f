"""PostgreSQL, of which a silent server is taken for one that is away.

Its own limits (`statement_timeout`) help as long as it runs; one that stands still, or a network that swallows what is
sent, would hold a thread for ever.
"""

import select
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg._preparing import Prepare, PrepareManager
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult

from controlplane.engines.circuit import circuit
from controlplane.engines.postgresql import poolers
from controlplane.engines.troubles import ErrorWrapper, Trouble, trouble_in_sqlstate
from controlplane.engines.turns import turns

LOCK_NOT_AVAILABLE = "55P03"


class Prepared(PrepareManager):
    """The prepared statements of a connection, which outlive a transaction that is taken back, as PostgreSQL's do.

    The driver would forget them all, in case the transaction has made what they are about. Then what one caller is
    refused would cost the thread's next starts ten milliseconds of planning each.
    """

    def _should_discard(self, prep: Prepare, results: Sequence[PGresult]) -> bool:  # type: ignore[override]  # its third is a constant
        return super()._should_discard(prep, [result for result in results if result.command_status != b"ROLLBACK"])


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is given up when a statement is not answered in time."""

    #: None: a statement may take as long as the server lets it.
    longest_answer: float | None = None
    #: Why it was given up, if it was: that is said of whatever is asked of it afterwards, too.
    trouble: Trouble | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepared = Prepared()

    def wait[RV](self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Waits for the server; OperationalError, with the connection closed, after `longest_answer` seconds.

        A server that answers others is not away: it is the statement that takes too long. Meanwhile others compute.
        """
        try:
            with turns.left():
                return super().wait(gen, interval, timeout or self.longest_answer)
        except psycopg.errors._WaitTimeout:
            if timeout is None:
                self.pgconn.finish()
                self.trouble = Trouble.BUSY if circuit.answers() else Trouble.AWAY
                if self.trouble is Trouble.AWAY:
                    circuit.found_away(is_silent=True)
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's engine with bounded waiting: OPTIONS has `longest_answer`, in seconds."""

    validation_class = poolers.LimitsOfRole

    _longest_answer: float | None = None
    #: Whether it is known what is between us and the server, which is asked once for each thread.
    _is_examined = False

    @cached_property
    def wrap_database_errors(self) -> ErrorWrapper:
        return ErrorWrapper(self)

    def trouble_in(self, error: psycopg.Error) -> Trouble:
        """What an error says that was just raised here."""
        if error.sqlstate == LOCK_NOT_AVAILABLE:
            circuit.suspect()
        if error.sqlstate:
            return trouble_in_sqlstate(error.sqlstate)
        if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
            return Trouble.INVALID if isinstance(error, psycopg.DataError) else Trouble.OURS
        if self.connection is None or self.connection.closed:
            return getattr(self.connection, "trouble", None) or Trouble.AWAY
        # The driver itself refused: what follows an error in a pipeline, or a statement with too many parameters.
        return Trouble.BUSY if isinstance(error, psycopg.errors.PipelineAborted) else Trouble.INVALID

    def get_connection_params(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super().get_connection_params()
        self._longest_answer = parameters.pop("longest_answer", None)
        self._is_examined = self._is_examined or self.settings_dict["DISABLE_SERVER_SIDE_CURSORS"]
        return parameters

    def get_new_connection(self, conn_params: dict[str, Any]) -> BoundedConnection:
        """Not while the server is silent: Django connects anew to end a failed transaction, and would wait twice.

        Neither a pool nor another isolation level is among our settings.
        """
        if not circuit.may_connect():
            message = "the server was silent a moment ago"
            raise psycopg.OperationalError(message)
        self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection = self._connect(conn_params)
        if not self._is_examined:
            try:
                poolers.examine(connection, lambda: self._connect(conn_params))
            except psycopg.Error:
                connection.close()
                raise
            self._is_examined = True
        return connection

    def _connect(self, conn_params: dict[str, Any]) -> BoundedConnection:
        try:
            connection = BoundedConnection.connect(**conn_params)
        except psycopg.OperationalError as error:
            if not self._is_examined:
                poolers.explain(error)
            raise
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
