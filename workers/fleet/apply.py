"""Applies a fleet's document: creates and updates what it names, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.db import DatabaseError, OperationalError, ProgrammingError

from environments.audit import Actor
from workers.configuration.impact import CannotStart, CutOff, Ending, QueueImpact
from workers.fleet.changes import Change
from workers.fleet.document import Document, read_document
from workers.fleet.errors import FleetError, Problem
from workers.fleet.plan import Plan, make_plan
from workers.fleet.state import StaleError, read_rows
from workers.fleet.writing import write

#: How often a run starts over because somebody else changed the same organizations meanwhile.
ATTEMPTS = 5


@dataclass(frozen=True)
class Applied:
    """What a document changed, who is given another configuration or none, and what happens to who runs."""

    changes: list[Change]
    impact: list[QueueImpact]
    cannot_start: list[CannotStart]
    cut_off: list[CutOff]
    ending: list[Ending]


def apply_document(  # noqa: PLR0913  # who, when, what from where and how; each is named at the call
    text: str,
    *,
    source: str,
    directory: Path,
    actor: Actor,
    now: datetime,
    environ: Mapping[str, str],
    is_dry_run: bool = False,
    prune: bool = False,
) -> Applied:
    """Reads a document and applies it; `source` is its name in messages, `directory` where its files' paths start.

    FleetError when it cannot be applied; then, and on a dry run, the database is as it was.
    """
    document = read_document(text, source=source, directory=directory, environ=environ)
    return apply(document, actor=actor, now=now, is_dry_run=is_dry_run, prune=prune)


def apply(document: Document, *, actor: Actor, now: datetime, is_dry_run: bool = False, prune: bool = False) -> Applied:
    """What changed, in the document's order, then what was pruned; nothing when all is as the document says.

    All of it is found out and checked before anything is locked. A dry run ends there.
    """
    organizations = sorted(entry.key for entry in document.organizations)
    try:
        for _ in range(ATTEMPTS):
            try:
                plan = make_plan(document, read_rows(organizations), actor=actor, now=now, prune=prune)
                if not is_dry_run:
                    write(plan, organizations)
            except StaleError:
                continue
            return _applied(plan)
    except (OperationalError, ProgrammingError) as error:
        reason = str(error).partition("\n")[0]
        failed = f"the database is busy, away or not migrated, run it again when it is ready: {reason}"
        raise FleetError(document.source, [Problem(failed)]) from None
    except DatabaseError:
        refused = "the database refuses this; if somebody else changed it meanwhile, run it again"
        raise FleetError(document.source, [Problem(refused)]) from None
    conflict = "somebody else changes the same objects again and again: run it again"
    raise FleetError(document.source, [Problem(conflict)])


def _applied(plan: Plan) -> Applied:
    return Applied(plan.journal.changes, plan.impact, plan.cannot_start, plan.cut_off, plan.ending)
