"""Fields that several models have: slugs and labels."""

from typing import Any

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

#: One part of a Temporal task queue name `{organization}.{environment}.{queue}`: a DNS label, so without the dot.
SLUG = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
is_slug = RegexValidator(SLUG, "Use 1 to 63 lower-case letters, digits and '-', no '-' at either end.")
is_labels = RegexValidator(r"^[^\x00-\x1f\x7f]*\Z", "Use words parted by commas.")


class SlugField(models.CharField):  # type: ignore[type-arg]  # Django's fields are not generic when run
    """A name in lower case: those of levels and workers become parts of Temporal task queue names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"max_length": 63, "validators": [is_slug], **kwargs})

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("validators", None)
        return name, path, args, kwargs


class LabelsField(models.CharField):  # type: ignore[type-arg]  # as above
    """Words parted by commas, for people and programs to find things by."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fixed = {"max_length": 500, "blank": True, "default": "", "validators": [is_labels]}
        super().__init__(*args, **{"help_text": "Words parted by commas.", **fixed, **kwargs})

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, path, args, kwargs = super().deconstruct()
        for fixed in ("validators", "help_text"):
            kwargs.pop(fixed, None)
        return name, path, args, kwargs


def slug_check(field: str) -> models.CheckConstraint:
    """The database's own refusal of a name that is no slug."""
    return models.CheckConstraint(
        condition=Q(**{f"{field}__regex": SLUG}), name=f"%(app_label)s_%(class)s_{field}_is_slug"
    )
