"""All rows of a database, so that a test can tell that nothing else was changed."""

from typing import Any

from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection, models


def stored(*but: type[models.Model]) -> dict[str, list[Any]]:
    """The rows of all tables as the database has them, but for some tables and for what migrating makes.

    No model is asked, since hundreds of tests compare all there is: to build the same statements takes longer than they do.
    """
    kinds = [
        model for model in apps.get_models(include_auto_created=True) if model not in {*but, Permission, ContentType}
    ]
    with connection.cursor() as cursor:
        return {model._meta.label: _rows_of(model, cursor) for model in kinds}


def _rows_of(model: type[models.Model], cursor: Any) -> list[Any]:
    quote, key = connection.ops.quote_name, model._meta.pk.column or ""
    cursor.execute(f"SELECT * FROM {quote(model._meta.db_table)} ORDER BY {quote(key)}")  # noqa: S608  # names of ours
    return cursor.fetchall()  # type: ignore[no-any-return]  # a driver's, which has no types
