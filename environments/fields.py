"""Column types of our own: sealed secrets, by which commands find every one of them, and what the database computes."""

from typing import Any

from django.db import models


class SealedField(models.TextField):  # type: ignore[type-arg]  # Django's fields are not generic when run
    """Holds a sealed text (`environments.encryption`); loading it decrypts nothing and no form edits it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["editable"] = False
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("editable", None)
        return name, path, args, kwargs


class ComputedField(models.GeneratedField):
    """A stored column that the database computes.

    Both of our databases can, so no check has to ask one for its version: the settings alone are looked at in places
    where there is none.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "db_persist": True})

    def _check_supported(self, databases: Any) -> list[Any]:  # noqa: ARG002  # Django's signature
        return []

    def _check_persistence(self, databases: Any) -> list[Any]:  # noqa: ARG002  # as above
        return []
