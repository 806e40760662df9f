"""The column type of sealed secrets, by which commands find every one of them."""

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
