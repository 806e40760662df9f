"""Statements that are made once and run with new parameters each time.

Compiling a query costs ten times what the database takes to answer it, and a start or heartbeat always asks the same,
as the dashboard does. What is kept is made for the models as they are, once for each thread, as a connection is a
thread's own. Nearly all of it is the ORM's own SQL; `Joined` and `Together` say what the ORM cannot.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from string import ascii_letters
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models import sql
from django.db.models.base import ModelState
from django.db.models.constants import OnConflict
from django.db.models.lookups import Exact

#: How many statements of one kind are kept, which differ by who may see what.
KEPT = 64
#: The fields of which PostgreSQL's driver takes Python's own values as they are.
NATIVE = frozenset({"UUIDField", "CharField", "BooleanField", "DateTimeField", "GenericIPAddressField", "TextField"})
#: The fields whose values it would send as the smallest type that holds them.
NUMBERS = frozenset({"IntegerField", "PositiveIntegerField", "BigIntegerField", "PositiveSmallIntegerField"})
PLACEHOLDER = re.compile("%[%s]")


class Parameter(models.Value):
    """Stands in a query for a value that each run gives under this name."""

    def __init__(self, name: str, output_field: Any) -> None:
        super().__init__(None, output_field)
        self.name = name

    def as_sql(self, _compiler: Any, _connection: Any) -> tuple[str, tuple[Any]]:
        return "%s", (Slot(self.name, self.output_field),)


def found_alone(rows: models.QuerySet[Any]) -> Exact:
    """The condition that there is such a row, of which there is at most one; it is looked for by itself.

    PostgreSQL may join what `Exists` asks in any order, by what it knows of the tables' sizes: of a new installation
    nothing. A plan that it had kept from then read all queues at each heartbeat.
    """
    return Exact(models.Subquery(rows.order_by().values_list(models.Value(value=True))), rhs=True)


class Slot(NamedTuple):
    """Where in a statement a given value goes."""

    name: str
    field: Any
    is_saved: bool = False
    #: Whether the statement itself says of which type it is, so that it may go there as text.
    is_cast: bool = False
    #: Which of the rows that a run is given has it.
    source: int = 0

    def at(self) -> tuple[int, str, Any]:
        """The row, the name there, and what prepares the value for the database, if anything has to."""
        field = self.field.target_field if isinstance(self.field, models.ForeignKey) else self.field
        prepare = field.get_db_prep_save if self.is_saved else field.get_db_prep_value
        if connection.vendor == "postgresql" and field.get_internal_type() in NATIVE:
            prepare = _as_text if self.is_cast else None
        elif self.is_cast and field.get_internal_type() in NUMBERS:
            prepare = _as_text
        return self.source, self.name, prepare


class _Places:
    """What stands for each parameter in a statement's text; what is there more than once is one parameter."""

    def __init__(self) -> None:
        self.fixed: dict[str, Any] = {}
        #: Name, row, name in the row, and what prepares the value.
        self.given: list[tuple[str, int, str, Any]] = []
        self._names: dict[Any, str] = {}

    def of(self, parameter: Any) -> str:
        """A short name, as the length of a statement counts; nothing and "" stand there themselves."""
        if parameter is None or parameter == "":
            return "NULL" if parameter is None else "''"
        is_given = type(parameter) is Slot
        is_list = type(parameter) is list  # which has no hash
        what = parameter.at() if is_given else (type(parameter), id(parameter) if is_list else parameter)
        if what not in self._names:
            turn, letter = divmod(len(self._names), len(ascii_letters))
            name = self._names[what] = f"{ascii_letters[letter]}{turn or ''}"
            if is_given:
                self.given.append((name, *what))
            else:
                self.fixed[name] = parameter
        return f"%({self._names[what]})s"


class Statement(threading.local):
    """Compiles itself at its first run in a thread.

    Beyond 4,096 characters or 50 parameters psycopg parses its text at each run, which costs as much as all the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sql = ""
        self._fixed: dict[str, Any] = {}
        self._given: list[tuple[str, int, str, Any]] = []
        self._cursor: Any = None

    def _compile(self) -> tuple[str, Sequence[Any]]:
        """The text with `%s` for each parameter, and those, of which a `Slot` is given at each run."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Compiles it, if it is not yet: for whoever is about to take a lock that others wait for."""
        if self._sql:
            return
        text, parameters = self._compile()
        places = _Places()
        todo = iter(parameters)
        self._sql = PLACEHOLDER.sub(lambda found: "%%" if found[0] == "%%" else places.of(next(todo)), text)
        self._fixed, self._given = places.fixed, places.given

    def _execute(self, *given: Mapping[str, Any]) -> Any:
        """The cursor of a run, of which the next run makes use again."""
        self.prepare()
        database = connections[DEFAULT_DB_ALIAS]
        parameters = self._fixed.copy()
        for name, source, known_as, prepare in self._given:
            value = given[source][known_as]
            parameters[name] = value if prepare is None else prepare(value, database)
        cursor = self._cursor_on(database)
        cursor.execute(self._sql, parameters)
        return cursor

    def _cursor_on(self, database: Any) -> Any:
        """The cursor of the run before, unless the connection is another one or somebody records what is run."""
        if database.queries_logged:
            return database.cursor()
        database.close_if_health_check_failed()
        if self._cursor is None or self._cursor.cursor.connection is not database.connection:
            self._cursor = database.cursor()
        return self._cursor


class Select[Row: models.Model](Statement):
    """A query for model instances."""

    def __init__(self, build: Callable[[], models.QuerySet[Row]]) -> None:
        super().__init__()
        self._build = build

    def __call__(self, **given: Any) -> list[Row]:
        """All rows."""
        cursor = self._execute(given)
        return list(self._instances(cursor.fetchall()))

    def first(self, **given: Any) -> Row | None:
        """The first row, if there is one."""
        return next(iter(self(**given)), None)

    def _compile(self) -> tuple[str, Sequence[Any]]:
        compiler = self._build().query.get_compiler(connection=connection)
        text, parameters = compiler.as_sql()
        converters = compiler.get_converters([column for column, _, _ in compiler.select])
        self._part = _Part(compiler.klass_info, compiler.select, converters)
        self._annotations = [
            (name, column, converters.get(column)) for name, column in compiler.annotation_col_map.items()
        ]
        return text, parameters

    def _instances(self, rows: Any) -> Iterator[Row]:
        """What `QuerySet` makes of the rows of its query; what several rows point to is one object here."""
        known: dict[Any, Any] = {}
        for row in rows:
            found = self._part.instance(row, known)
            for name, column, converter in self._annotations:
                setattr(found, name, row[column] if converter is None else _converted(row[column], converter))
            yield found


def fetched[Row: models.Model](rows: models.QuerySet[Row]) -> list[Row]:
    """The rows of a query, as `Select` makes them: of a thousand rows Django's own way takes twice as long."""
    try:
        return Select(lambda: rows)()
    except EmptyResultSet:
        return []


class Rows(Statement):
    """A query for values, as `values_list` makes it."""

    def __init__(self, build: Callable[[], models.QuerySet[Any, Any]]) -> None:
        super().__init__()
        self._build = build

    def __call__(self, **given: Any) -> list[tuple[Any, ...]]:
        """All rows; none, without asking, of a query that can have none."""
        try:
            found = self._execute(given).fetchall()
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

    def __init__(self, info: dict[str, Any], select: Sequence[Any], converters: Mapping[int, Any]) -> None:
        fields = info["select_fields"]
        self._model = info["model"]
        self._columns = slice(fields[0], fields[-1] + 1)
        self._names = [column.target.attname for column, _, _ in select[self._columns]]
        self._converters = [
            (name, column, converters[column])
            for name, column in zip(self._names, range(fields[0], fields[-1] + 1), strict=True)
            if column in converters
        ]
        self._key = fields[self._names.index(self._model._meta.pk.attname)]
        self._related = [
            (_Part(related, select, converters), related["local_setter"], related["remote_setter"])
            for related in info.get("related_klass_infos", ())
        ]

    def instance(self, row: Sequence[Any], known: dict[Any, Any]) -> Any:
        """Without signals, and without setting each field by itself."""
        found = self._model.__new__(self._model)
        found.__dict__.update(zip(self._names, row[self._columns], strict=True))
        for name, column, converter in self._converters:
            found.__dict__[name] = _converted(row[column], converter)
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


def _converted(value: Any, converter: tuple[Iterable[Any], Any]) -> Any:
    """What Django makes of a column's value; here only of what becomes part of an instance."""
    functions, expression = converter
    for function in functions:
        value = function(value, expression, connection)
    return value


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
        cursor = self._execute(given)
        return int(cursor.rowcount)

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
    these columns are ever given, and the others' defaults, which are constants, are part of the statement.
    """

    has_to_find = True

    def __init__(self, model: type[models.Model], *, given: Sequence[str] = (), replaces: Sequence[str] = ()) -> None:
        super().__init__()
        self._model = model
        self._columns = frozenset(given)
        self._replaces = replaces
        self._fields = [field for field in model._meta.concrete_fields if not field.generated]
        self._defaults = [
            (field.attname, None if field.attname in self._columns else field.get_default) for field in self._fields
        ]

    def __call__(self, **given: Any) -> int:
        """Each value under the name of its column, so a foreign key's ends with `_id`; always one row."""
        is_open = not self._columns
        row = {
            name: given[name] if default is None or (is_open and name in given) else default()
            for name, default in self._defaults
        }
        cursor = self._execute(row)
        return int(cursor.rowcount)

    def behind(self, gate: str) -> tuple[str, Sequence[Any]]:
        """The statement for when the part of a larger one that is called `gate` has found something."""
        values: dict[str, str] = {}
        slots = []
        for field in self._fields:
            column = connection.ops.quote_name(str(field.column))
            if field.attname in self._columns:
                slots.append(Slot(field.attname, field, is_saved=True, is_cast=True))
                values[column] = f"%s::{_type_of(field)}"
            elif (default := field.get_default()) is not None:
                values[column] = _literal(default)
        table = connection.ops.quote_name(self._model._meta.db_table)
        text = f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(values.values())}"
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
    """A constant of a model in PostgreSQL's SQL."""
    if isinstance(value, (bool, int)):
        return str(value)
    return "'{}'".format(str(value).replace("'", "''"))


def _type_of(field: Any) -> str:
    """The type to cast to; text for what has a longest length, since a cast would cut where the column refuses."""
    kind = str(field.db_type(connection))
    return "text" if kind.startswith("varchar") else kind.replace("timestamp with time zone", "timestamptz")


def _as_text(value: Any, _database: Any) -> str | None:
    """As text, whatever it is: a statement whose parameters are of other types is another one to prepare."""
    return None if value is None else str(value)
