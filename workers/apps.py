"""Registers the app."""

from django.apps import AppConfig


class WorkersConfig(AppConfig):
    """The app workers."""

    name = "workers"
