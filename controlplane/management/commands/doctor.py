"""Looks for what is wrong before it is felt, and says what to do; fails when there is a problem."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from controlplane.doctor import Finding, Level, examine
from environments.management.printing import printable
from environments.management.progress import ProgressDisplay

SECONDS_BETWEEN_LINES = 10


class Command(BaseCommand):
    """Opens every sealed secret, and changes nothing. Exit code 1 with any problem; notes alone are fine."""

    help = __doc__ or ""
    requires_system_checks = ()  # it runs them itself

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--format", choices=["text", "json"], default="text")

    def handle(self, **options: Any) -> None:
        is_text = options["format"] == "text"
        findings = []
        progress = ProgressDisplay(self.stderr, seconds_between_lines=SECONDS_BETWEEN_LINES)
        try:
            for finding in examine(timezone.now(), progress):
                findings.append(finding)
                if is_text:
                    self.stdout.write(_line(finding))
        except DatabaseError as error:
            reason = str(error).partition("\n")[0]
            msg = f"Stopped, what is printed is right but not all: the database refused ({reason})."
            raise CommandError(msg) from None
        problems = sum(finding.level == Level.PROBLEM for finding in findings)
        counts = {"problems": problems, "notes": len(findings) - problems}
        if is_text:
            self.stdout.write(f"problems: {counts['problems']}, notes: {counts['notes']}")
        else:
            self.stdout.write(json.dumps({**counts, "findings": [asdict(finding) for finding in findings]}))
        if problems:
            msg = f"Problems found: {problems}."
            raise CommandError(msg)


def _line(finding: Finding) -> str:
    return printable(f"{finding.level}: {finding.check}: {finding.text} -> {finding.advice}")
