"""Statements that the ORM compiles once and that are run with new parameters each time.

Compiling a query costs ten times what the database takes to answer it, and a start or heartbeat always asks the same,
as the dashboard does.
What is kept is the ORM's own SQL for the models as they are, once for each thread, as a connection is a thread's own.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connection, connections, models, transaction
from django.db.models import sql
from django.db.models.base import ModelState
from django.db.models.constants import OnConflict

#: How many statements of one kind are kept, which differ by who may see what.
KEPT = 64
#: The fields of which PostgreSQL's driver takes Python's own values as they are.
NATIVE = frozenset({"UUIDField", "CharField", "BooleanField", "DateTimeField", "GenericIPAddressField"})


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
        self._sql = ""
        self._parameters: list[tuple[str | None, Any, Any]] = []

    def _compile(self) -> tuple[str, Sequence[Any]]:
        raise NotImplementedError

    def prepare(self) -> None:
        """Compiles it, if it is not yet: for whoever is about to take a lock that others wait for."""
        if not self._sql:
            self._sql, parameters = self._compile()
            self._parameters = [_prepared(part) for part in parameters]

    def _execute(self, given: dict[str, Any]) -> Any:
        """The cursor of a run, which the caller closes."""
        self.prepare()
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
        compiler = self._build().query.get_compiler(connection=connection)
        text, parameters = compiler.as_sql()
        self._part = _Part(compiler.klass_info, compiler.select)
        self._annotations = list(compiler.annotation_col_map.items())
        self._converters = compiler.get_converters([column for column, _, _ in compiler.select])
        self._compiler = compiler
        return text, parameters

    def instances(self, rows: Any) -> Iterator[Row]:
        """What `QuerySet` makes of the rows of its query; what several rows point to is one object here."""
        known: dict[Any, Any] = {}
        for row in self._compiler.apply_converters(rows, self._converters) if self._converters else rows:
            found = self._part.instance(row, known)
            for name, column in self._annotations:
                setattr(found, name, row[column])
            yield found


class Rows(_Statement):
    """A query for values, as `values_list` makes it."""

    def __init__(self, build: Callable[[], models.QuerySet[Any, Any]]) -> None:
        super().__init__()
        self._build = build

    def __call__(self, **given: Any) -> list[tuple[Any, ...]]:
        """All rows; none, without asking, of a query that can have none."""
        try:
            with self._execute(given) as cursor:
                found = cursor.fetchall()
        except EmptyResultSet:
            return []
        return list(self._compiler.results_iter(results=[found], tuple_expected=True))

    def _compile(self) -> tuple[str, Sequence[Any]]:
        self._compiler = self._build().query.get_compiler(connection=connection)
        text, parameters = self._compiler.as_sql()
        return text, parameters


def kept[**P](build: Callable[P, models.QuerySet[Any, Any]]) -> Callable[P, Rows]:
    """Makes of a function that builds a query one that gives its statement: the same one for the same arguments.

    Those that were not asked for lately are forgotten.
    """

    @lru_cache(maxsize=KEPT)
    def statement(*args: P.args, **kwargs: P.kwargs) -> Rows:
        return Rows(partial(build, *args, **kwargs))

    return statement  # type: ignore[return-value]  # it takes what `build` takes


class _Part:
    """The columns of a row that make an instance of one model, and the parts that make those it points to."""

    def __init__(self, info: dict[str, Any], select: Sequence[Any]) -> None:
        fields = info["select_fields"]
        self._model = info["model"]
        self._columns = slice(fields[0], fields[-1] + 1)
        self._names = [column.target.attname for column, _, _ in select[self._columns]]
        self._key = fields[self._names.index(self._model._meta.pk.attname)]
        self._related = [
            (_Part(related, select), related["local_setter"], related["remote_setter"])
            for related in info.get("related_klass_infos", ())
        ]

    def instance(self, row: Sequence[Any], known: dict[Any, Any]) -> Any:
        """Without signals, and without setting each field by itself."""
        found = self._model.__new__(self._model)
        found.__dict__.update(zip(self._names, row[self._columns], strict=True))
        found._state = ModelState()
        found._state.adding, found._state.db = False, DEFAULT_DB_ALIAS
        for part, set_here, set_there in self._related:
            related = part.shared_instance(row, known)
            set_here(found, related)
            if related is not None:
                set_there(related, found)
        return found

    def shared_instance(self, row: Sequence[Any], known: dict[Any, Any]) -> Any:
        """The one that an earlier row has led to, if one has; None where there is no such row."""
        key = row[self._key]
        if key is not None and (self, key) not in known:
            known[self, key] = self.instance(row, known)
        return known.get((self, key))


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

    def all(self) -> list[Row]:
        """All rows."""
        self.fetch()
        return list(self._statement.instances(self._rows))


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
def pipelined_transaction() -> Iterator[None]:
    """A durable transaction; on PostgreSQL no statement waits for the answer to the one before.

    Only rows that somebody takes are waited for, and the end: the commit goes out with the last statements, and all
    errors are raised. SQLite is called, not sent anything.
    """
    database = connections[DEFAULT_DB_ALIAS]
    is_outermost = not database.in_atomic_block  # but for a test's own transaction it always is
    with transaction.atomic(durable=True):
        if database.vendor != "postgresql":
            yield
            return
        database.ensure_connection()
        driver = database.connection
        with database.wrap_database_errors:
            if is_outermost:
                driver.autocommit = True  # a transaction that the driver begins by itself costs a round trip
            with driver.pipeline():
                if is_outermost:
                    driver.execute("BEGIN")
                yield
                if is_outermost:
                    driver.execute("COMMIT")  # then there is nothing left for Django to commit


def _is_in_pipeline() -> bool:
    database = connections[DEFAULT_DB_ALIAS]
    return database.vendor == "postgresql" and database.connection.pgconn.pipeline_status != 0
