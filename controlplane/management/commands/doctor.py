"""Looks for what is wrong before it is felt, and says what to do; fails when there is a problem."""

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from controlplane.doctor import Finding, Level, examine
from environments.management.command import PRINTED_PARTLY, ControlPlaneCommand
from environments.management.printing import printable

SECONDS_BETWEEN_LINES = 10


class Command(ControlPlaneCommand):
    """Opens every sealed secret, and changes nothing. Exit code 1 with any problem; notes alone are fine."""

    when_refused = PRINTED_PARTLY
    requires_system_checks = ()  # it runs them itself

    def handle(self, **options: Any) -> None:
        is_text = options["format"] == "text"
        findings = []
        for finding in examine(timezone.now(), self.progress(seconds_between_lines=SECONDS_BETWEEN_LINES)):
            findings.append(finding)
            if is_text:
                self.stdout.write(_line(finding))
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
