"""Django's PostgreSQL engine, but that the check of an idle connection before each request costs no round trip."""

import select
from typing import Any

from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus


class DatabaseWrapper(base.DatabaseWrapper):
    """As Django's."""

    def is_usable(self) -> bool:
        """Whether the server still holds the connection.

        One that is idle hears nothing from its server but that it is closed, so its socket says as much as a query
        would. A server that vanished without a word is noticed by neither before the connection's own time-outs.
        """
        connection: Any = self.connection
        if connection is None or connection.closed:
            return False
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            return bool(super().is_usable())
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)
