"""The releases of this code, each with the last migrations that it brought, and at which of them a database is.

A release is one tag. Its migrations leave the release before able to run, so an upgrade goes release by release.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest

type Migration = tuple[str, str]

OUR_APPS = ("environments", "workers", "controlplane")
#: This code's own release, and the one place that tells it. Its last migrations are those that lie here.
CURRENT = "0.1.0"


@dataclass(frozen=True)
class Release:
    """A release that is out, the git revision that it is, and the last migration of each of our apps in it."""

    number: str
    revision: str
    last_migrations: Mapping[str, str]


#: Every release that is out, the oldest first. Whoever tags a release adds it here with the first change after it.
EARLIER: tuple[Release, ...] = ()


@dataclass(frozen=True)
class Upgrade:
    """What `migrate` would do to the database: the release it is at, the releases on the way, what is to be applied."""

    #: None for a database without any of our tables.
    at: str | None
    #: Every release from the one after the database's to this code's; more than one means that a step is skipped.
    steps: tuple[str, ...]
    pending: tuple[Migration, ...]
    #: Migrations that the database has and this code does not know: those of a newer release.
    unknown: tuple[Migration, ...]

    @property
    def problem(self) -> str:
        """Why this is no upgrade to make, in words for an operator; empty when it is one, or nothing is to be done."""
        if self.unknown:
            return (
                f"The database is newer than this code ({CURRENT}): it has {named(self.unknown)}. Only the release "
                "just before the database's can run on it; migrations are never taken back."
            )
        if self.at is not None and len(self.steps) > 1:
            return (
                f"The database is at {self.at}, so this code ({CURRENT}) would skip {', '.join(self.steps[:-1])}: "
                f"upgrade to {self.steps[0]} first, all processes included."
            )
        return ""


def planned_upgrade() -> Upgrade:
    """Reads which migrations the database has; changes nothing."""
    loader = MigrationLoader(connection)
    applied = set(loader.applied_migrations)
    plan = [key for leaf in sorted(loader.graph.leaf_nodes()) for key in loader.graph.forwards_plan(leaf)]
    return upgrade_of(
        {key for key in applied if key[0] in OUR_APPS},
        pending=tuple(key for key in dict.fromkeys(plan) if key not in applied),
        unknown=tuple(sorted(key for key in applied - set(loader.disk_migrations) if key[0] in OUR_APPS)),
    )


def upgrade_of(applied: set[Migration], *, pending: tuple[Migration, ...], unknown: tuple[Migration, ...]) -> Upgrade:
    """The upgrade of a database that has these migrations of ours, to this code."""
    if not applied:
        return Upgrade(None, (CURRENT,), pending, unknown)
    if not any(app in OUR_APPS for app, _ in pending):
        return Upgrade(CURRENT, (), pending, unknown)
    numbers = [*(release.number for release in EARLIER), CURRENT]
    reached = sum(set(release.last_migrations.items()) <= applied for release in EARLIER)
    at = numbers[reached - 1] if reached else f"a state before {numbers[0]}"
    return Upgrade(at, tuple(numbers[reached:]), pending, unknown)


def for_templates(request: HttpRequest) -> dict[str, str]:  # noqa: ARG001  # a context processor
    """Lets the console tell at its foot which release serves it."""
    return {"release": CURRENT}


def named(migrations: Iterable[Migration]) -> str:
    """As `migrate` names them."""
    return ", ".join(f"{app}.{name}" for app, name in migrations)
