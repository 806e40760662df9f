"""Prints a new secret: a SECRET_KEY, or an entry for the ring ENCRYPTION_KEYS or API_KEY_SIGNING_KEYS."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.startup.secrets_file import KINDS


class Command(BaseCommand):
    """Needs no settings, so that it can make the ones that are missing."""

    help = __doc__ or ""
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=sorted(KINDS), help="which secret (see docs/operate/settings.md)")

    def handle(self, *, kind: str, **_options: Any) -> None:
        _, make = KINDS[kind]
        self.stdout.write(make())
