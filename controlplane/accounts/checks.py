"""System checks: the key ring opens the second factors that the database holds."""

from collections.abc import Sequence
from typing import Any

from allauth.mfa.models import Authenticator
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

from controlplane.accounts.sealing import SecondFactors
from environments.encryption import CannotOpenError


@register(Tags.database)
def check_second_factors(databases: Sequence[str] | None, **_options: Any) -> list[CheckMessage]:
    """controlplane.E001: runs with `check --database default`, and before `migrate`."""
    if not databases or Authenticator._meta.db_table not in connections["default"].introspection.table_names():
        return []
    hint = "Put the key back into ENCRYPTION_KEYS, or take the factor away: manage.py reset_second_factor <username>."
    factors, problems = SecondFactors(), {}
    for row in factors.rows():
        try:
            factors.verify(row)
        except CannotOpenError as error:
            problems[row.user_id] = f"A second factor does not open: {error}."
    return [Error(problem, hint=hint, id="controlplane.E001") for problem in problems.values()]
