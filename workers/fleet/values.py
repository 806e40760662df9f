"""Single values of a fleet's document: what a node of YAML is, as the field of a model that it is for."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import yaml
from django.db import models
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_aware

from environments.models.json_fields import ObjectField, TagsField, exact_number, words_of

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

type Value = str | bool | int | float | date | UUID | list[Any] | dict[str, Any] | None


class UnreadableError(Exception):
    """A node is not what is expected in its place."""


def is_storable(text: str) -> bool:
    """Whether every database takes the text: no NUL and no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def is_text(node: yaml.Node) -> bool:
    """Whether it is a text by itself, and nothing that only looks like one."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str"


def is_null(node: yaml.Node) -> bool:
    """Whether nothing stands there."""
    return node.tag == "tag:yaml.org,2002:null"


def _plain(node: yaml.Node) -> str:
    """What stands there without quotes; "" for anything else."""
    return node.value if isinstance(node, yaml.ScalarNode) and not node.style else ""


def value_of(node: yaml.Node, of: "models.Field[Any, Any]") -> Value:
    """The value for the field; UnreadableError when it is none, without repeating it."""
    if is_null(node):
        if of.null:
            return None
        msg = "is empty; leave the field out to keep its value"
        raise UnreadableError(msg)
    for field_type, read in READERS:
        if isinstance(of, field_type):
            return read(node)
    raise NotImplementedError(of)


def text_of(node: yaml.Node) -> str:
    """A text that can be stored; UnreadableError for anything else."""
    if not is_text(node):
        msg = "expected a text; put a number, a date, yes or no in quotes"
        raise UnreadableError(msg)
    text: str = node.value
    if not is_storable(text):
        msg = "has a character that cannot be stored"
        raise UnreadableError(msg)
    return text


def _boolean(node: yaml.Node) -> bool:
    plain = _plain(node).lower()
    if plain not in BOOLEANS:
        msg = "expected true or false"
        raise UnreadableError(msg)
    return BOOLEANS[plain]


def _integer(node: yaml.Node) -> int:
    if not INTEGER.fullmatch(_plain(node)):
        msg = "expected a whole number"
        raise UnreadableError(msg)
    return int(_plain(node))


def _number(node: yaml.Node) -> float:
    if not NUMBER.fullmatch(_plain(node)):
        msg = "expected a number"
        raise UnreadableError(msg)
    try:
        return exact_number(_plain(node))
    except ValueError:
        msg = "expected a number that can be stored as it is"
        raise UnreadableError(msg) from None


def uuid_of(node: yaml.Node) -> UUID:
    """A UUID; UnreadableError for anything else."""
    try:
        return UUID(text_of(node))
    except ValueError:
        msg = "expected a UUID such as 6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
        raise UnreadableError(msg) from None


def _date(node: yaml.Node) -> date:
    try:
        return date.fromisoformat(_plain(node) or text_of(node))
    except ValueError:
        msg = "expected a date such as 2027-01-31"
        raise UnreadableError(msg) from None


def _moment(node: yaml.Node) -> datetime:
    try:
        found = parse_datetime(_plain(node) or text_of(node))
        if found is not None:
            return (found if is_aware(found) else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    msg = "expected a time such as 2027-01-31T18:00:00Z"
    raise UnreadableError(msg)


def _tags(node: yaml.Node) -> list[str]:
    """Words parted by commas, or a list of texts, which are kept as they are."""
    return [text_of(item) for item in node.value] if isinstance(node, yaml.SequenceNode) else words_of(text_of(node))


def _object(node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        msg = "expected fields, each as name: value"
        raise UnreadableError(msg)
    found = {text_of(key): _json(value) for key, value in node.value}
    if len(found) != len(node.value):
        msg = "has a field twice"
        raise UnreadableError(msg)
    return found


def _json(node: yaml.Node) -> Any:
    """What the node is in JSON."""
    if isinstance(node, yaml.MappingNode):
        return _object(node)
    if isinstance(node, yaml.SequenceNode):
        return [_json(item) for item in node.value]
    scalars = {"null": lambda _: None, "bool": _boolean, "int": _integer, "float": _number}
    return scalars.get(node.tag.rpartition(":")[2], text_of)(node)


READERS: tuple[tuple[type[Any], Callable[[yaml.Node], Value]], ...] = (
    (TagsField, _tags),
    (ObjectField, _object),
    (models.BooleanField, _boolean),
    (models.IntegerField, _integer),
    (models.FloatField, _number),
    (models.DateTimeField, _moment),
    (models.DateField, _date),
    (models.CharField, text_of),
    (models.TextField, text_of),
)
