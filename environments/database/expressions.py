"""Expressions that are compiled once and stand in any query, and lists that are one parameter.

A rule that many queries share, such as liveness, has dozens of parts. Django resolves and compiles each of them anew
for every query, which takes ten times as long as the database does.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Expression, Lookup, Value, sql

#: What Django calls the tables of subqueries. The query in which a rule stands may call its own so, too.
ALIASES = re.compile(r"\b([U-Z]\d+)\b")
PLACEHOLDER = re.compile("(?<!%)%s")


def moment(now: datetime | Value) -> Value:
    """A time of which queries know that it is one."""
    return now if isinstance(now, Value) else Value(now, output_field=models.DateTimeField())


class Rule:
    """Makes an expression of operands that have names.

    `build` is given expressions in their place, and may read tables that they do not come from. `answer` is the type of
    what it makes, `operands` are theirs.
    """

    def __init__(self, build: Callable[..., Any], answer: Any, **operands: Any) -> None:
        self.answer = answer
        self.names = tuple(operands)
        self._build = build
        self._operands = {name: _Operand(name, field) for name, field in operands.items()}
        self._known: dict[str, tuple[str, list[tuple[Any, str]]]] = {}

    def __call__(self, operands: Mapping[str, Any]) -> "Ruled":
        """The rule of these: lookups, or expressions."""
        return Ruled(self, *(operands[name] for name in self.names))

    def text(self, connection: Any) -> tuple[str, list[tuple[Any, str]]]:
        """The SQL up to its first parameter, and each parameter, which may be an operand, with what follows it."""
        if connection.vendor not in self._known:
            self._known[connection.vendor] = self._compile(connection)
        return self._known[connection.vendor]

    def _compile(self, connection: Any) -> tuple[str, list[tuple[Any, str]]]:
        query = sql.Query(None)  # of no table, as Django's own of a condition
        built = self._build(**self._operands).resolve_expression(query, allow_joins=False)
        text, parameters = query.get_compiler(connection=connection).compile(built)
        first, *others = PLACEHOLDER.split(ALIASES.sub(r"of_\1", text))
        return first, list(zip(parameters, others, strict=True))


class Ruled(Expression):
    """What a rule says of its operands."""

    def __init__(self, rule: Rule, *operands: Any) -> None:
        super().__init__(output_field=rule.answer)
        self._rule = rule
        self._operands: list[Any] = [models.F(each) if isinstance(each, str) else each for each in operands]

    def get_source_expressions(self) -> list[Any]:
        return self._operands

    def set_source_expressions(self, exprs: Any) -> None:
        self._operands = exprs

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """The rule's text with the operands in it."""
        operands = dict(zip(self._rule.names, map(compiler.compile, self._operands), strict=True))
        text, others = self._rule.text(connection)
        texts, parameters = [text], list[Any]()
        for parameter, following in others:
            is_operand = isinstance(parameter, _Operand)
            operand, given = operands[parameter.name] if is_operand else ("%s", (parameter,))
            texts += (operand, following)
            parameters += given
        return "".join(texts), tuple(parameters)


class _Operand(Expression):
    """Stands in a rule's text for what the rule is asked about."""

    def __init__(self, name: str, field: Any) -> None:
        super().__init__(output_field=field)
        self.name = name

    def as_sql(self, _compiler: Any, _connection: Any) -> tuple[str, tuple[Any]]:
        return "%s", (self,)


class ListOf(models.Field):  # type: ignore[type-arg]  # Django's fields are not generic when run
    """The type of a parameter that is a list of values of another type."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self._kind = kind

    def get_db_prep_value(self, value: Collection[Any], connection: Any, prepared: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002  # Django's signature
        """PostgreSQL's arrays are lists; elsewhere it is JSON."""
        if connection.vendor == "postgresql":
            return list(value)
        return json.dumps([self._kind.get_db_prep_value(each, connection) for each in value])


class Among(Lookup):
    """Whether a value is in a list that is one parameter: so a statement is the same however long the list is."""

    lookup_name = "among"

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Each database finds the values by an index, as it does with `IN`."""
        lhs, lhs_parameters = self.process_lhs(compiler, connection)
        rhs, rhs_parameters = self.process_rhs(compiler, connection)
        among = "= ANY" if connection.vendor == "postgresql" else "IN (SELECT value FROM json_each"
        return f"{lhs} {among}({rhs}){')' * among.count('(')}", [*lhs_parameters, *rhs_parameters]
