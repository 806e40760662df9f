"""Members that are kept exactly as a client sends them, or refused: what people set up."""

import re
from datetime import date, datetime
from typing import Any, ClassVar
from uuid import UUID

from django.db import models
from rest_framework import serializers

from environments.models.connections import CONNECTION_POINTERS
from workers.api.serializers.workers import KeptObject
from workers.api_keys.tokens import UUID_TEXT
from workers.models.states import check_one_line

#: Control characters but for tabs and the ends of lines, and those that turn the direction of a text.
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")
UNSET = "Empty or null: none."
POINTED = "Null: what the levels above point to. It takes a key for the organization."


class ExactText(serializers.CharField):
    """A text as it is; a number or a truth value is none."""

    default_error_messages = {"not_text": "Not a text."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"trim_whitespace": False, "required": False, **kwargs})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("not_text")
        return data


class Name(ExactText):
    """What people call something: one line of which something shows."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        check_one_line(text)
        return text if text.strip() else self.fail("blank")


class Unsettable(ExactText):
    """A text that null takes away, as "" does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_blank": True, "allow_null": True, "help_text": UNSET, **kwargs})


class Description(Unsettable):
    """A text of any number of lines, without characters that change how others look or that nobody sees."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        return self.fail("not_text") if CONTROLS.search(text) else text


class WholeNumber(serializers.IntegerField):
    """A whole number, and nothing that looks like one."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            self.fail("invalid")
        return super().to_internal_value(data)


class Tags(serializers.ListField):
    """Texts in their order."""

    def __init__(self, **kwargs: Any) -> None:
        child = ExactText(allow_blank=True)
        super().__init__(**{"child": child, "required": False, "allow_null": True, **kwargs})


class FreeJSON(KeptObject):
    """An object of which the model says how large it may be."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"required": False, "allow_null": True, **kwargs})


class Truth(serializers.BooleanField):
    """True or false, and nothing that looks like one."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Number(serializers.FloatField):
    """A number, and nothing that looks like one."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            self.fail("invalid")
        return super().to_internal_value(data)


class Day(serializers.DateField):
    """A day as YYYY-MM-DD."""

    def to_internal_value(self, value: Any) -> date:
        if not isinstance(value, str):
            self.fail("invalid", format="YYYY-MM-DD")
        return super().to_internal_value(value)


class Moment(serializers.DateTimeField):
    """A moment as RFC 3339 has it: with a time, and an offset, without which nobody knows when it is."""

    def to_internal_value(self, value: Any) -> datetime:
        if not isinstance(value, str) or not RFC_3339.fullmatch(value):
            self.fail("invalid", format="RFC 3339")
        return super().to_internal_value(value)


class Id(serializers.UUIDField):
    """An id in RFC 9562's spelling, in any case."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str) or not UUID_TEXT.fullmatch(data):
            self.fail("invalid", value="")
        return UUID(data)


class PointingSerializer(serializers.Serializer[dict[str, Any]]):
    """What a level may point to."""

    def get_fields(self) -> dict[str, Any]:
        pointers = {
            f"{name}_id": Id(required=False, allow_null=True, help_text=POINTED) for name in CONNECTION_POINTERS
        }
        return {**super().get_fields(), **pointers}


class ExactFields(serializers.Serializer[dict[str, Any]]):
    """Members for fields of a model; those without a default are required where a row is new."""

    model: ClassVar[type[models.Model]]
    names: ClassVar[tuple[str, ...]]
    is_new: ClassVar[bool] = False

    def get_fields(self) -> dict[str, Any]:
        of_model = {name: exact_field(self.model._meta.get_field(name), is_new=self.is_new) for name in self.names}
        return {**of_model, **super().get_fields()}


def exact_field(field: Any, *, is_new: bool = False) -> serializers.Field[Any, Any, Any, Any]:
    """The member that a field of a model is sent in; what it may be, the model says."""
    told: dict[str, Any] = {"required": is_new and not (field.has_default() or field.blank)}
    told |= {"allow_null": True} if field.null else {}
    told |= {"help_text": field.help_text} if field.help_text else {}
    if field.choices:
        return serializers.ChoiceField([value for value, _ in field.choices], **told)
    for kind, member in ((models.BooleanField, Truth), (models.FloatField, Number), (models.DateField, Day)):
        if isinstance(field, kind):
            return member(**told)
    return ExactText(allow_blank=field.blank, **told)
