"""Statements that are made once and run with new parameters each time.

Compiling a query costs ten times what the database takes to answer it, and a start or heartbeat always asks the same,
as the dashboard does. What is kept is made for the models as they are, once for each thread, as a connection is a
thread's own. Nearly all of it is the ORM's own SQL; `Joined` and `Together` say what the ORM cannot.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models import sql
from django.db.models.base import ModelState
from django.db.models.constants import OnConflict

#: How many statements of one kind are kept, which differ by who may see what.
KEPT = 64
#: The fields of which PostgreSQL's driver takes Python's own values as they are.
NATIVE = frozenset({"UUIDField", "CharField", "BooleanField", "DateTimeField", "GenericIPAddressField", "TextField"})
#: The fields whose values it would send as the smallest type that holds them.
NUMBERS = frozenset({"IntegerField", "PositiveIntegerField", "BigIntegerField", "PositiveSmallIntegerField"})


class Parameter(models.Value):
    """Stands in a query for a value that each run gives under this name."""

    def __init__(self, name: str, output_field: Any) -> None:
        super().__init__(None, output_field)
        self.name = name

    def as_sql(self, _compiler: Any, _connection: Any) -> tuple[str, tuple[Any]]:
        return "%s", (Slot(self.name, self.output_field),)


class Slot(NamedTuple):
    """Where among a statement's parameters a given value goes."""

    name: str
    field: Any
    is_saved: bool = False
    #: Whether the statement itself says of which type it is, so that it may go there as text.
    is_cast: bool = False


class Statement(threading.local):
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
            self._parameters = [prepared(part) for part in parameters]

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


class Select[Row: models.Model](Statement):
    """A query for model instances."""

    def __init__(self, build: Callable[[], models.QuerySet[Row]]) -> None:
        super().__init__()
        self._build = build

    def __call__(self, **given: Any) -> list[Row]:
        """All rows."""
        with self._execute(given) as cursor:
            return list(self._instances(cursor.fetchall()))

    def first(self, **given: Any) -> Row | None:
        """The first row, if there is one."""
        return next(iter(self(**given)), None)

    def _compile(self) -> tuple[str, Sequence[Any]]:
        compiler = self._build().query.get_compiler(connection=connection)
        text, parameters = compiler.as_sql()
        self._part = _Part(compiler.klass_info, compiler.select)
        self._annotations = list(compiler.annotation_col_map.items())
        self._converters = compiler.get_converters([column for column, _, _ in compiler.select])
        self._compiler = compiler
        return text, parameters

    def _instances(self, rows: Any) -> Iterator[Row]:
        """What `QuerySet` makes of the rows of its query; what several rows point to is one object here."""
        known: dict[Any, Any] = {}
        for row in self._compiler.apply_converters(rows, self._converters) if self._converters else rows:
            found = self._part.instance(row, known)
            for name, column in self._annotations:
                setattr(found, name, row[column])
            yield found


class Rows(Statement):
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


class Update(Statement):
    """An update of the rows of a query; plain values are fixed, each `Parameter` is given."""

    def __init__(
        self, build: Callable[[], models.QuerySet[Any]], values: dict[str, Any], *, has_to_find: bool = False
    ) -> None:
        super().__init__()
        self._build = build
        self._values = values
        #: Whether what comes after it in a `Together` is done only if it found a row.
        self.has_to_find = has_to_find

    def __call__(self, **given: Any) -> int:
        """How many rows were updated."""
        with self._execute(given) as cursor:
            return int(cursor.rowcount)

    def complete(self, given: dict[str, Any]) -> dict[str, Any]:
        """All parameters of a run."""
        return given

    def behind(self, gate: str) -> tuple[str, Sequence[Any]]:
        """The statement for when the part of a larger one that is called `gate` has found something."""
        text, parameters = self._compile()
        return f"{text} AND EXISTS (SELECT 1 FROM {gate})", parameters  # noqa: S608  # made of our own texts

    def _compile(self) -> tuple[str, Sequence[Any]]:
        query: sql.UpdateQuery = self._build().query.chain(sql.UpdateQuery)  # type: ignore[assignment]  # as it says
        query.add_update_values(self._values)
        text, parameters = query.get_compiler(connection=connection).as_sql()
        return text, parameters


class Insert(Statement):
    """Inserts a row without signals; what is not given has the model's default.

    With `replaces` it takes the place of a row with the same id, of which those columns are written. With `given` only
    these columns are ever given, and the others' defaults, which are constants, are part of the statement: psycopg
    makes anew, each time, what has more than 50 parameters.
    """

    has_to_find = True

    def __init__(self, model: type[models.Model], *, given: Sequence[str] = (), replaces: Sequence[str] = ()) -> None:
        super().__init__()
        self._model = model
        self._given = frozenset(given)
        self._replaces = replaces
        self._fields = [field for field in model._meta.concrete_fields if not field.generated]
        self._defaults = [(field.attname, field.get_default) for field in self._fields]

    def __call__(self, **given: Any) -> int:
        """Each value under the name of its column, so a foreign key's ends with `_id`; always one row."""
        row = {name: given[name] if name in given else default() for name, default in self._defaults}
        with self._execute(row) as cursor:
            return int(cursor.rowcount)

    def complete(self, given: dict[str, Any]) -> dict[str, Any]:
        """All parameters of a run as a part of a larger statement."""
        if strangers := given.keys() ^ self._given:
            msg = f"{self._model.__name__}: {', '.join(sorted(strangers))} is given or expected, not both"
            raise TypeError(msg)
        return given

    def behind(self, gate: str) -> tuple[str, Sequence[Any]]:
        """The statement for when the part of a larger one that is called `gate` has found something."""
        columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in self._fields)
        values = ", ".join(
            f"CAST({'%s' if field.attname in self._given else _literal(field.get_default())} AS {_type_of(field)})"
            for field in self._fields
        )
        text = f"INSERT INTO {connection.ops.quote_name(self._model._meta.db_table)} ({columns}) SELECT {values}"
        slots = [Slot(f.attname, f, is_saved=True, is_cast=True) for f in self._fields if f.attname in self._given]
        return f"{text} FROM {gate}", slots

    def _compile(self) -> tuple[str, Sequence[Any]]:
        conflict: dict[str, Any] = {}
        if self._replaces:
            fields = [self._model._meta.get_field(name) for name in self._replaces]
            key = [self._model._meta.pk]
            conflict = {"on_conflict": OnConflict.UPDATE, "update_fields": fields, "unique_fields": key}
        query = sql.InsertQuery(self._model, **conflict)
        query.insert_values(self._fields, [self._model()])
        ((text, _),) = query.get_compiler(connection=connection).as_sql()
        return text, [Slot(field.attname, field, is_saved=True) for field in self._fields]


def _literal(value: object) -> str:
    """A constant of a model in SQL."""
    if value is None:
        return "NULL"
    return "'{}'".format(str(value).replace("'", "''"))


def _type_of(field: Any) -> str:
    """The type to cast to; text for what has a longest length, since a cast would cut where the column refuses."""
    kind = str(field.db_type(connection))
    return "text" if kind.startswith("varchar") else kind


def prepared(part: Any) -> tuple[str | None, Any, Any]:
    """A parameter's name with what prepares its value for the database, if anything has to; else the value itself."""
    if type(part) is not Slot:
        return None, None, part
    field = part.field.target_field if isinstance(part.field, models.ForeignKey) else part.field
    if connection.vendor == "postgresql" and field.get_internal_type() in NATIVE:
        return part.name, _as_text if part.is_cast else None, None
    if part.is_cast and field.get_internal_type() in NUMBERS:
        return part.name, _as_text, None
    return part.name, field.get_db_prep_save if part.is_saved else field.get_db_prep_value, None


def _as_text(value: Any, _database: Any) -> str | None:
    """As text, whatever it is: a statement whose parameters are of other types is another one to prepare."""
    return None if value is None else str(value)
