"""`manage.py loaddata`: Django's, which refuses a connection or a target that cannot work, as every other door does."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.core.management.commands import loaddata


class Command(loaddata.Command):
    """Django itself calls no validator here; what is loaded meets the database's constraints only."""

    def save_obj(self, obj: Any) -> bool:
        """Stores one object of the file; CommandError, and nothing of the file is stored, if it cannot work."""
        row = obj.object
        if getattr(row, "IS_CHECKED_WHEN_LOADED", False):
            try:
                row.clean_fields(exclude={"organization"})  # it may come later in the file
            except ValidationError as error:
                problems = " ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items())
                msg = f"{row._meta.label} {row.pk} cannot work, so nothing was loaded. {problems}"
                raise CommandError(msg) from None
        return bool(super().save_obj(obj))
