"""Statements for many rows that are ready before a transaction begins, so that others wait for the sending alone."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, connection, models

#: So many new rows PostgreSQL looks at by itself, within a minute.
MANY_ROWS = 50


class ForMany:
    """One statement for each of many rows, all of the same form, so that they are sent at once."""

    def __init__(self, text: str, rows: Iterable[Sequence[tuple[Any, Any]]]) -> None:
        self.text = text
        self.values = [[field.get_db_prep_save(value, connection) for field, value in row] for row in rows]

    def run(self) -> None:
        """Executes it, if there are rows."""
        with connection.cursor() as cursor:
            if len(self.values) == 1:
                cursor.execute(self.text, self.values[0])
            elif self.values:
                cursor.executemany(self.text, self.values)


def insert_of(model: type[models.Model], rows: Iterable[models.Model]) -> ForMany:
    """Stores new rows as they are; like Django's `bulk_create`, it calls no `save`."""
    quote, meta = connection.ops.quote_name, model._meta
    fields: Any = meta.concrete_fields
    columns = ", ".join(quote(field.column) for field in fields)
    text = f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({', '.join(['%s'] * len(fields))})"  # noqa: S608  # quoted
    return ForMany(text, ([(field, getattr(row, field.attname)) for field in fields] for row in rows))


def analyze(*filled: type[models.Model]) -> None:
    """Has PostgreSQL look at tables that many rows were put into, which it does by itself only a minute later.

    Until then it takes them for nearly empty, and each connection keeps what it has planned so: a foreign key was
    checked by a look through all of the organization's workers. Whatever is in the way, nothing depends on this.
    """
    if connection.vendor == "postgresql":
        tables = ", ".join(connection.ops.quote_name(model._meta.db_table) for model in filled)
        with suppress(DatabaseError), connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {tables}")
