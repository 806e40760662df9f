"""Writes the organizations as a document that `apply` reads, without their secrets."""

import json
import re
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from environments.management.command import ControlPlaneCommand
from environments.models.fields import SLUG
from workers.fleet.export import as_yaml, export_document


class Command(ControlPlaneCommand):
    """Prints YAML; add an api_key line to each connection before applying it to another database."""

    format_help = "text is YAML"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--organization", metavar="ID", help="only this organization")

    def handle(self, **options: Any) -> None:
        wanted = options["organization"]
        # The database is asked for slugs only: it refuses some other texts with an error of its own.
        is_possible = wanted is None or re.search(SLUG, wanted)
        document = export_document(wanted) if is_possible else {"organizations": []}
        if wanted is not None and not document["organizations"]:
            msg = f"There is no organization {wanted!r}."
            raise CommandError(msg)
        if options["format"] == "json":
            # Not in ASCII: JSON's escapes of characters beyond 16 bits are not YAML's, and apply reads this too.
            self.stdout.write(json.dumps(document, ensure_ascii=False, default=str))
        else:
            self.stdout.write(as_yaml(document), ending="")
