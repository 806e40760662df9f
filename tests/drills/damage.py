"""Sealed texts in the database are damaged, cut and moved, one at a time: a start that needs them is answered 503."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection

import psycopg

from tests.drills.load import send
from tests.drills.service import Service
from tests.drills.tenants import Tenants

SEALED = {
    "environments_temporalconnection": ("sealed_api_key",),
    "environments_litellmconnection": ("sealed_api_key",),
    "environments_datakey": ("wrapped_key", "known_answer", "fingerprint_key"),
}


def count_damages_that_open(service: Service, tenants: Tenants, database_url: str, *, step: int) -> tuple[int, int]:
    """How many damages were tried on one worker's secret and its data key, and how many of them were not refused.

    A `step` of 8 tries every eighth byte and length only.
    """
    call = next(tenants.start_calls())
    temporal = tenants.credentials[call.mark]["temporal"]
    caller = HTTPConnection("127.0.0.1", service.port, timeout=30)
    tried = opened = 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table, column, key, value in (
            ("environments_temporalconnection", "sealed_api_key", "id", temporal.connection_id),
            ("environments_datakey", "wrapped_key", "active_for_id", temporal.organization_id),
        ):
            update = f"UPDATE {table} SET {column} = %s WHERE {key} = %s"  # noqa: S608  # our own names
            sealed = _texts(connection, table, column, f"WHERE {key} = '{value}'")[0]
            for damaged in damages(sealed, everything_else(connection, sealed), step):
                tried += 1
                try:
                    connection.execute(update, (damaged, value))
                except psycopg.errors.CheckViolation:
                    continue
                answer = send(caller, call)
                opened += answer.status != 503 or temporal.current().encode() in answer.body
            connection.execute(update, (sealed, value))
            # Else whatever was tried would prove nothing.
            told = json.loads(send(caller, call).body)
            assert told.get("temporal_api_key") == temporal.current(), "What was put back does not open."
    return tried, opened


def damages(sealed: str, others: list[str], step: int) -> Iterator[str]:
    """The text with each character replaced by its neighbour, cut at each length, and each text of other places."""
    for position in range(0, len(sealed), step):
        other = "B" if sealed[position] == "A" else "A"
        yield sealed[:position] + other + sealed[position + 1 :]
        yield sealed[:position]
    yield from others


def everything_else(connection: psycopg.Connection, sealed: str) -> list[str]:
    """A few texts of each sealed column, of the same and of other organizations."""
    places = [(table, column) for table, columns in SEALED.items() for column in columns]
    return [text for place in places for text in _texts(connection, *place, "LIMIT 10") if text != sealed]


def _texts(connection: psycopg.Connection, table: str, column: str, which: str) -> list[str]:
    return [text for (text,) in connection.execute(f"SELECT {column} FROM {table} {which}")]  # noqa: S608
