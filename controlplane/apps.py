"""Registers the app."""

from django.apps import AppConfig


class ControlplaneConfig(AppConfig):
    """The app controlplane."""

    name = "controlplane"

    def ready(self) -> None:
        """Registers the OpenAPI security scheme."""
        from controlplane import openapi  # noqa: F401, PLC0415  # models must be loaded before
