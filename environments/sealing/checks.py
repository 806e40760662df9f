"""System checks: the key ring opens what the database holds."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

from environments.encryption import CannotOpenError
from environments.models import DataKey
from environments.sealing.data_keys import verify_known_answer


def key_ring_problems() -> list[str]:
    """One sentence for each key-encryption key that the database needs and the ring cannot serve.

    Opens the known answer of one data key for each of them.
    """
    problems = []
    for key_id in DataKey.objects.values_list("wrapped_by", flat=True).order_by("wrapped_by").distinct():
        row = DataKey.objects.filter(wrapped_by=key_id).first()
        try:
            if row is not None:
                verify_known_answer(row)
        except CannotOpenError as error:
            problems.append(f"Encryption key {key_id} does not open what it sealed: {error}.")
    return problems


@register(Tags.database)
def check_key_ring(databases: Sequence[str] | None, **_options: Any) -> list[CheckMessage]:
    """environments.E001: runs with `check --database default`, and before `migrate`."""
    if not databases or DataKey._meta.db_table not in connections["default"].introspection.table_names():
        return []
    hint = "Put the key back into ENCRYPTION_KEYS; without it these secrets cannot be read."
    return [Error(problem, hint=hint, id="environments.E001") for problem in key_ring_problems()]
