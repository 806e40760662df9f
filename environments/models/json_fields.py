"""Fields that hold JSON which clients get back exactly as they gave it: tags in their order, and free objects."""

import hashlib
import json
import math
import re
from contextlib import suppress
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.forms.fields import InvalidJSONInput

MOST_TAGS = 100
LONGEST_TAG = 255
#: Of one object, as JSON in UTF-8.
MOST_BYTES = 32 * 1024
DEEPEST = 16
#: What no database stores, or only some do.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
#: A tag of which people see all in a list of words that are parted by commas.
PLAIN_TAG = re.compile(r"[^\s,\[\x00-\x1f\x7f]([^,\x00-\x1f\x7f]*[^\s,\x00-\x1f\x7f])?")

TAGS_HELP = "Words parted by commas, or a list in JSON."
NO_TAGS = f"Use at most {MOST_TAGS} words of at most {LONGEST_TAG} characters each."
#: What reading JSON raises, for Django's fields know only the first: not JSON, a number of many digits, and nesting.
UNREADABLE = (ValueError, RecursionError)
NO_OBJECT = "Use an object in JSON."
TOO_LARGE = f"Use at most {MOST_BYTES:,} bytes of JSON, nested at most {DEEPEST} deep."
UNKEPT = "It has a character or a number that cannot be stored."


def check_tags(value: Any) -> None:
    """ValidationError for anything but a list of texts within the limits."""
    if not isinstance(value, list) or len(value) > MOST_TAGS:
        raise ValidationError(NO_TAGS)
    for tag in value:
        if not isinstance(tag, str) or len(tag) > LONGEST_TAG:
            raise ValidationError(NO_TAGS)
        if UNSTORABLE.search(tag):
            raise ValidationError(UNKEPT)


def check_object(value: Any) -> None:
    """ValidationError for anything but an object that can be stored, and within the limits."""
    if not isinstance(value, dict):
        raise ValidationError(NO_OBJECT)
    if not _is_shallow(value):
        raise ValidationError(TOO_LARGE)
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (ValueError, TypeError):
        raise ValidationError(UNKEPT) from None
    if "\\u0000" in text and _holds_nul(value):
        raise ValidationError(UNKEPT)
    if size > MOST_BYTES:
        raise ValidationError(TOO_LARGE)


def exact_number(digits: str) -> float:
    """The number, which no database changes; ValueError for one that would be stored as another, such as 1e-9999.

    PostgreSQL has no -0.0.
    """
    number = float(digits)
    is_kept = number or math.copysign(1, number) > 0
    with suppress(ArithmeticError):
        if is_kept and Decimal(digits) == Decimal(repr(number)):
            return number
    raise ValueError(UNKEPT)


def digest_of(*values: Any) -> str:
    """12 hexadecimal digits that change when one of the values does; "" while all of them are empty.

    PostgreSQL may give a whole number back where a decimal one was stored: both have the same digest.
    """
    if not any(values):
        return ""
    text = json.dumps([_canonical(value) for value in values], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def words_of(text: str) -> list[str]:
    """The words of a text that are parted by commas."""
    return [word for part in text.split(",") if (word := part.strip())]


class ExactDecoder(json.JSONDecoder):
    """Reads JSON of which every number is kept as it is; ValueError for another."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "parse_float": exact_number})


class TagsFormField(forms.CharField):
    """Words parted by commas; tags of which such a text would not tell all are shown, and can be given, in JSON."""

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        is_plain = all(PLAIN_TAG.fullmatch(tag) for tag in value)
        return ", ".join(value) if is_plain else json.dumps(value, ensure_ascii=False)

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        if not text.startswith("["):
            return words_of(text)
        try:
            return json.loads(text)
        except UNREADABLE:
            raise ValidationError(TAGS_HELP) from None

    def validate(self, value: Any) -> None:
        """The model's own validator does."""

    def run_validators(self, value: Any) -> None:
        """As above: those of a text do not apply."""

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != (initial or []))
        except ValidationError:
            return True


class ObjectFormField(forms.JSONField):
    """An object; a blank one is empty."""

    empty_values = [None, ""]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "decoder": ExactDecoder})

    def to_python(self, value: Any) -> Any:
        try:
            found = super().to_python(value)
        except UNREADABLE as error:
            raise ValidationError(UNKEPT if str(error) == UNKEPT else NO_OBJECT) from None
        return {} if found is None else found

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What was typed, as it was typed where it is no JSON."""
        try:
            return super().bound_data(data, initial)
        except UNREADABLE:
            return InvalidJSONInput(data)


class TagsField(models.JSONField):
    """Words for people and programs to find things by, in their order, one as often as it was given."""

    #: None is exempt from the validators.
    empty_values = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fixed = {"blank": True, "default": list, "validators": [check_tags], "help_text": TAGS_HELP}
        super().__init__(*args, **{**fixed, **kwargs})

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        return _without_rules(*super().deconstruct())

    def formfield(self, **kwargs: Any) -> Any:
        return models.Field.formfield(self, **{"form_class": TagsFormField, "show_hidden_initial": False, **kwargs})


@TagsField.register_lookup
class HasTag(models.Lookup):
    """Whether a text is among the tags."""

    lookup_name = "has_tag"
    prepare_rhs = False

    def get_db_prep_lookup(self, value: Any, connection: Any) -> Any:  # noqa: ARG002  # Django's signature
        return "%s", [value]

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        column, parameters = self.process_lhs(compiler, connection)
        return f"jsonb_exists({column}, %s)", [*parameters, self.rhs]

    def as_sqlite(self, compiler: Any, connection: Any) -> Any:
        column, parameters = self.process_lhs(compiler, connection)
        return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value = %s)", [*parameters, self.rhs]  # noqa: S608


class ObjectField(models.JSONField):
    """A JSON object that is free but for its size."""

    #: None is exempt from the validators.
    empty_values = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        rules = [check_object, *kwargs.pop("validators", ())]
        super().__init__(*args, **{"blank": True, "default": dict, **kwargs, "validators": rules})

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        return _without_rules(*super().deconstruct())

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"form_class": ObjectFormField, "show_hidden_initial": False, **kwargs})


def _without_rules(name: str, path: str, args: Any, kwargs: Any) -> tuple[str, str, Any, Any]:
    """What migrations need not know."""
    return name, path, args, {key: value for key, value in kwargs.items() if key not in {"validators", "help_text"}}


def _is_shallow(value: Any) -> bool:
    """Whether nothing is nested beyond DEEPEST; found without recursion, as deep as it may be."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for found in level
            for inner in (found.values() if isinstance(found, dict) else found)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return True
    return False


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(part) for item in value.items() for part in item)
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    return int(Decimal(repr(value))) if isinstance(value, float) and value.is_integer() else value
