"""Statements over several tables at once, which the ORM does not write: one that reads them, one that writes them.

Like those in `environments.database.statements` they are made once for each thread and run with new parameters each
time.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models.base import ModelState

from environments.database.statements import Insert, Slot, Statement, Update

type AnyField = models.Field[Any, Any]
type Row = Mapping[str, Any]
#: A step of a `Together`, or several that take the same row.
type Part = Update | Insert | tuple[Update | Insert, ...]

PARAMETER = re.compile(r"%\((\w+)\)s")
#: What the guard of `Together` compares, under the name by which it is given.
VERSION = "version"


class Table(NamedTuple):
    """A table of a `Joined`, and the columns of it that are read."""

    model: type[models.Model]
    columns: tuple[str, ...]


class Source(NamedTuple):
    """What a `Joined` reads from, in SQL; `%(name)s` in it is a parameter."""

    #: Begins with FROM. A change of these rows between reading and writing matters to whoever has read them.
    guarded: str
    #: Further joins, of which a change does not.
    others: str
    where: str


class Joined(Statement):
    """A query whose row becomes one instance of each table's model, with the columns that are read.

    `guarded` and `others` have the tables under the names that the source gives them; `parameters` has of which kind
    each is.
    """

    def __init__(
        self,
        source: Source,
        guarded: Mapping[str, Table],
        others: Mapping[str, Table],
        parameters: Mapping[str, AnyField],
    ) -> None:
        super().__init__()
        self._source = source
        self._guarded = guarded
        self._tables = {**guarded, **others}
        self._asked = parameters

    def first(self, **given: Any) -> dict[str, Any] | None:
        """An instance for each table, None where there is no row of it, and the `version` of them all."""
        rows = self._execute(given).fetchall()  # all, as SQLite's lock is held for what is left
        if not rows:
            return None
        (row,) = rows
        if self._converters:
            row = list(row)
            for index, expression, convert in self._converters:
                row[index] = convert(row[index], expression, connection)
        found = {name: part(row) for name, part in self._parts.items()}
        return {**found, VERSION: row[-1]}

    def guard(self) -> tuple[str, list[Slot]]:
        """A query that finds something if the guarded rows are still as they were at a `version` that is given.

        It holds the row of the first table, so that it is neither deleted nor moved meanwhile.
        """
        source = self._source
        text = (
            f"SELECT 1 {source.guarded} {source.where} AND {self._version()} = %({VERSION})s "
            f"FOR KEY SHARE OF {next(iter(self._guarded))} SKIP LOCKED"
        )
        return _positional(text, {**self._asked, VERSION: models.TextField()})

    def _version(self) -> str:
        """An expression that differs whenever a guarded row does; "" where writers take turns."""
        if connection.vendor != "postgresql":
            return "''"
        return f"concat_ws(' ', {', '.join(f'{name}.xmin' for name in self._guarded)})"

    def _compile(self) -> tuple[str, Sequence[Any]]:
        columns: list[str] = []
        self._parts: dict[str, _Columns] = {}
        self._converters: list[tuple[int, Any, Any]] = []
        for name, table in self._tables.items():
            fields = [table.model._meta.get_field(column) for column in table.columns]
            self._parts[name] = _Columns(table.model, fields, slice(len(columns), len(columns) + len(fields)))
            for field in fields:
                expression = field.get_col(table.model._meta.db_table)  # type: ignore[union-attr]  # a column
                converters = connection.ops.get_db_converters(expression) + expression.get_db_converters(connection)
                self._converters += [(len(columns), expression, convert) for convert in converters]
                columns.append(f"{name}.{field.column}")  # type: ignore[union-attr]  # as above
        return _positional(f"SELECT {', '.join(columns)}, {self._version()} {' '.join(self._source)}", self._asked)


class _Columns:
    """The columns of a row that make an instance of one model."""

    def __init__(self, model: type[models.Model], fields: Sequence[Any], columns: slice) -> None:
        self._model = model
        self._names = [field.attname for field in fields]
        self._columns = columns
        self._key = columns.start + self._names.index(model._meta.pk.attname)

    def __call__(self, row: Sequence[Any]) -> Any:
        """Without signals, and without setting each field by itself."""
        if row[self._key] is None:
            return None
        found = self._model.__new__(self._model)
        found.__dict__.update(zip(self._names, row[self._columns], strict=True))
        found._state = ModelState()
        found._state.adding, found._state.db = False, DEFAULT_DB_ALIAS
        return found


class Together(Statement):
    """Writes several tables if what a `Joined` has read is still so, else nothing.

    On PostgreSQL it is one statement with one snapshot: the guard reads again, compares versions and holds one row
    against being deleted or moved; it does not wait for whoever has that row, but finds nothing. An update that has to
    find its row finds none when somebody changed it in the meantime, and then what follows is not done either.

    On SQLite the caller has begun a transaction, whose writers take turns, so there is nothing to guard against.
    """

    def __init__(self, guard: Joined, *parts: Part) -> None:
        super().__init__()
        self._guard = guard
        self._parts = [part if isinstance(part, tuple) else (part,) for part in parts]

    def __call__(self, guard: Row, *rows: Row) -> bool:
        """Whether it was done; given are the guard's parameters with its `version`, and those of each part."""
        if connections[DEFAULT_DB_ALIAS].vendor != "postgresql":
            steps = ((step, row) for part, row in zip(self._parts, rows, strict=True) for step in part)
            return all(step(**row) or not step.has_to_find for step, row in steps)
        cursor = self._execute(guard, *rows)
        return bool(cursor.rowcount)

    def _compile(self) -> tuple[str, Sequence[Any]]:
        text, asked = self._guard.guard()
        steps, parameters, gate = [f"guard AS ({text})"], [*asked], "guard"
        for source, part in enumerate(self._parts, start=1):
            for step in part:
                text, slots = step.behind(gate)
                parameters += [each._replace(source=source) if isinstance(each, Slot) else each for each in slots]
                name = f"s{len(steps)}"
                steps.append(f"{name} AS ({text} RETURNING 1)")
                if step.has_to_find:
                    gate = name
        return f"WITH {', '.join(steps)} SELECT 1 FROM {gate}", parameters  # noqa: S608  # made of our own texts


def _positional(text: str, fields: Mapping[str, AnyField]) -> tuple[str, list[Slot]]:
    """The text with `%s` for each `%(name)s`, and what goes there."""
    return PARAMETER.sub("%s", text), [Slot(name, fields[name]) for name in PARAMETER.findall(text)]
