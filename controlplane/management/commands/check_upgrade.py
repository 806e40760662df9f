"""Says whether this code may upgrade the database: by one release, never past one; and which migrations are pending."""

import json
from typing import Any

from django.core.management.base import CommandError

from controlplane.releases import CURRENT, Upgrade, named, planned_upgrade
from environments.management.command import ControlPlaneCommand


class Command(ControlPlaneCommand):
    """To be run by the new code before its `migrate`; changes nothing. Exits with 1 when a release would be skipped."""

    def handle(self, **options: Any) -> None:
        upgrade = planned_upgrade()
        self.stdout.write(json.dumps(_as_json(upgrade)) if options["format"] == "json" else _as_text(upgrade))
        if upgrade.problem:
            raise CommandError(upgrade.problem)


def _as_json(upgrade: Upgrade) -> dict[str, Any]:
    return {
        "code": CURRENT,
        "database": upgrade.at,
        "is_allowed": not upgrade.problem,
        "problem": upgrade.problem or None,
        "pending": [f"{app}.{name}" for app, name in upgrade.pending],
        "unknown": [f"{app}.{name}" for app, name in upgrade.unknown],
    }


def _as_text(upgrade: Upgrade) -> str:
    pending = f"pending: {named(upgrade.pending)}" if upgrade.pending else "no migrations pending"
    return f"code {CURRENT}, database {upgrade.at or 'empty'}, {pending}"
