"""Registers the app."""

from django.apps import AppConfig


class EnvironmentsConfig(AppConfig):
    """The app environments."""

    name = "environments"

    def ready(self) -> None:
        """Registers the system checks."""
        from environments.sealing import checks  # noqa: F401, PLC0415  # models must be loaded before
