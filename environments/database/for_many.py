"""Statements for many rows that are ready before a transaction begins, so that others wait for the sending alone."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, models


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
