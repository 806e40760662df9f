"""Serves with the production server until it is stopped."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.serving.server import serve
from controlplane.startup import env
from workers.management.arguments import whole_number

MOST_PROCESSES = 128


class Command(BaseCommand):
    """Serves on PORT (8000) behind the reverse proxy; migrates nothing."""

    help = __doc__ or ""
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        processes = whole_number(1, MOST_PROCESSES)
        parser.add_argument("--processes", type=processes, default=2, metavar="N", help="2 unless told: one per core")
        parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 127.0.0.1 unless told")

    def handle(self, **options: Any) -> None:
        serve(port=env.port(), processes=options["processes"], host=options["host"])
