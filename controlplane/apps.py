"""Registers the app."""

from typing import TYPE_CHECKING, Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate
from django.utils import timezone

if TYPE_CHECKING:
    from environments.sealing.rotation import RingSealed


class ControlplaneConfig(AppConfig):
    """The app controlplane."""

    name = "controlplane"
    default_auto_field = "django.db.models.BigAutoField"
    ring_sealed: "list[RingSealed]"

    def ready(self) -> None:
        """Registers the OpenAPI security scheme, and completes the login; models must be loaded before."""
        from django.contrib import admin  # noqa: PLC0415

        from controlplane.accounts import checks, memory, sealing, throttling  # noqa: F401, PLC0415
        from controlplane.api import openapi  # noqa: F401, PLC0415

        post_migrate.connect(_mark_new_database, sender=self)
        memory.install()
        throttling.install()
        self.ring_sealed = [sealing.SecondFactors()]
        # allauth's own pages would show what only the login itself may know.
        for model in apps.get_models():
            if model.__module__.startswith("allauth.") and admin.site.is_registered(model):
                admin.site.unregister(model)


def _mark_new_database(**_options: Any) -> None:
    """Says of a database whose tables were just made that it is the one to serve."""
    from controlplane.serving.restoration import mark_new_database  # noqa: PLC0415  # it has models

    mark_new_database(timezone.now())
