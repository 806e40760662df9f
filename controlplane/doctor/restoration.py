"""Checks that the database is the one that was served, and not an older state of it."""

from collections.abc import Iterator

from controlplane.doctor.findings import Finding, note, problem
from controlplane.serving.restoration import Memory, changed_timeline

RESTORED = "restored database"


def examine_mark() -> Iterator[Finding]:
    """A database that was restored or copied is a problem; a server that took over may have been recovered."""
    if text := Memory().problem():
        yield problem(RESTORED, text, "Follow docs/operate/operations.md, Backup: python manage.py accept_restore.")
    elif timelines := changed_timeline():
        before, after = timelines
        text = f"PostgreSQL's timeline was {before} and is {after}: a standby took over, or it was recovered to a time."
        advice = "Recovered: python manage.py accept_restore. Failed over without loss: the same with --keep-keys."
        yield note(RESTORED, text, advice)
