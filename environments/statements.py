"""Statements that the ORM compiles once and that are run with new parameters each time.

Compiling a query costs ten times what the database takes to answer it, and a start or heartbeat always asks the same.
What is kept is the ORM's own SQL for the models as they are, once for each thread, as a connection is a thread's own.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models import sql
from django.db.models.constants import OnConflict
from django.db.models.query import get_related_populators

#: The fields of which PostgreSQL's driver takes Python's own values as they are.
NATIVE = frozenset({"UUIDField", "CharField", "BooleanField", "DateTimeField"})


class Parameter(models.Value):
    """Stands in a query for a value that each run gives under this name."""

    def __init__(self, name: str, output_field: Any) -> None:
        super().__init__(None, output_field)
        self.name = name

    def as_sql(self, _compiler: Any, _connection: Any) -> tuple[str, tuple[Any]]:
        return "%s", (_Slot(self.name, self.output_field),)


class _Slot(NamedTuple):
    """Where among a statement's parameters a given value goes."""

    name: str
    field: Any
    is_saved: bool = False


class _Statement(threading.local):
    """Compiles itself at its first run in a thread."""

    def __init__(self) -> None:
        self._sql: str | None = None
        self._parameters: list[tuple[str | None, Any, Any]] = []

    def _compile(self) -> tuple[str, Sequence[Any]]:
        raise NotImplementedError

    def _execute(self, given: dict[str, Any]) -> Any:
        """The cursor of a run, which the caller closes."""
        if self._sql is None:
            self._sql, parameters = self._compile()
            self._parameters = [_prepared(part) for part in parameters]
        database = connections[DEFAULT_DB_ALIAS]
        parameters = [
            part if name is None else given[name] if prepare is None else prepare(given[name], database)
            for name, prepare, part in self._parameters
        ]
        cursor = database.cursor()
        cursor.execute(self._sql, parameters)
        return cursor


class Select[Row: models.Model](_Statement):
    """A query for model instances."""

    def __init__(self, build: Callable[[], models.QuerySet[Row]]) -> None:
        super().__init__()
        self._build = build

    def __call__(self, **given: Any) -> "Pending[Row]":
        """Asks; the rows are there to be taken, in a pipeline no earlier than somebody does."""
        pending = Pending(self, self._execute(given))
        if not _is_in_pipeline():
            pending.fetch()
        return pending

    def _compile(self) -> tuple[str, Sequence[Any]]:
        queryset = self._build()
        compiler = queryset.query.get_compiler(connection=connection)
        text, parameters = compiler.as_sql()
        fields = compiler.klass_info["select_fields"]
        self._own = slice(fields[0], fields[-1] + 1)
        self._names = [column.target.attname for column, _, _ in compiler.select[self._own]]
        self._annotations = list(compiler.annotation_col_map.items())
        self._fetch_mode = queryset._fetch_mode  # type: ignore[attr-defined]
        self._populators = get_related_populators(
            compiler.klass_info, compiler.select, DEFAULT_DB_ALIAS, self._fetch_mode
        )
        self._converters = compiler.get_converters([column for column, _, _ in compiler.select])
        self._compiler = compiler
        self._model = queryset.model
        return text, parameters

    def instances(self, rows: Any) -> Iterator[Row]:
        """What `QuerySet` makes of the rows of its query."""
        for row in self._compiler.apply_converters(rows, self._converters) if self._converters else rows:
            found = self._model.from_db(DEFAULT_DB_ALIAS, self._names, row[self._own], fetch_mode=self._fetch_mode)
            for populator in self._populators:
                populator.populate(row, found)
            for name, column in self._annotations:
                setattr(found, name, row[column])
            yield found


class Pending[Row: models.Model]:
    """The answer to a query."""

    def __init__(self, statement: Select[Row], cursor: Any) -> None:
        self._statement = statement
        self._cursor = cursor
        self._rows: Any = None

    def fetch(self) -> None:
        """Waits for the rows."""
        if self._rows is None:
            with self._cursor as cursor:
                self._rows = cursor.fetchall()

    def first(self) -> Row | None:
        """The first row, if there is one."""
        self.fetch()
        return next(self._statement.instances(self._rows), None)


class Update(_Statement):
    """An update of the rows of a query; plain values are fixed, each `Parameter` is given."""

    def __init__(self, build: Callable[[], models.QuerySet[Any]], **values: Any) -> None:
        super().__init__()
        self._build = build
        self._values = values

    def __call__(self, **given: Any) -> int:
        """How many rows were updated; -1 in a pipeline, where that is not known yet."""
        with self._execute(given) as cursor:
            return int(cursor.rowcount)

    def _compile(self) -> tuple[str, Sequence[Any]]:
        query: sql.UpdateQuery = self._build().query.chain(sql.UpdateQuery)  # type: ignore[assignment]  # as it says
        query.add_update_values(self._values)
        text, parameters = query.get_compiler(connection=connection).as_sql()
        return text, parameters


class Insert(_Statement):
    """Inserts a row, all its columns, without signals; what is not given has the model's default.

    With `replaces` it takes the place of a row with the same id, of which those columns are written.
    """

    def __init__(self, model: type[models.Model], *, replaces: Sequence[str] = ()) -> None:
        super().__init__()
        self._model = model
        self._replaces = replaces
        self._defaults = [(field.attname, field.get_default) for field in model._meta.concrete_fields]

    def __call__(self, **given: Any) -> None:
        """Each value under the name of its column, so a foreign key's ends with `_id`."""
        row = {name: given[name] if name in given else default() for name, default in self._defaults}
        self._execute(row).close()

    def _compile(self) -> tuple[str, Sequence[Any]]:
        conflict: dict[str, Any] = {}
        if self._replaces:
            fields = [self._model._meta.get_field(name) for name in self._replaces]
            key = [self._model._meta.pk]
            conflict = {"on_conflict": OnConflict.UPDATE, "update_fields": fields, "unique_fields": key}
        query = sql.InsertQuery(self._model, **conflict)
        query.insert_values(self._model._meta.concrete_fields, [self._model()])
        ((text, _),) = query.get_compiler(connection=connection).as_sql()
        return text, [_Slot(field.attname, field, is_saved=True) for field in self._model._meta.concrete_fields]


def _prepared(part: Any) -> tuple[str | None, Any, Any]:
    """A parameter's name with what prepares its value for the database, if anything has to; else the value itself."""
    if type(part) is not _Slot:
        return None, None, part
    field = part.field.target_field if isinstance(part.field, models.ForeignKey) else part.field
    if connection.vendor == "postgresql" and field.get_internal_type() in NATIVE:
        return part.name, None, None
    return part.name, field.get_db_prep_save if part.is_saved else field.get_db_prep_value, None


@contextmanager
def pipeline() -> Iterator[None]:
    """Sends statements on PostgreSQL without waiting for each one's answer, but for rows that somebody takes.

    Errors of those that nobody waited for are raised at the end. SQLite is called, not sent anything.
    """
    if connection.vendor != "postgresql":
        yield
        return
    connection.ensure_connection()
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield


def _is_in_pipeline() -> bool:
    return connection.vendor == "postgresql" and connection.connection.pgconn.pipeline_status != 0
