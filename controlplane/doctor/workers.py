"""Checks of the fleet: workers that somebody made and nobody ever started."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Q

from controlplane.doctor.findings import Finding, Level, many
from workers.models import Liveness, Worker
from workers.models.paths import PATH

#: Time enough to bring a new worker up.
NEVER_STARTED_AFTER = timedelta(days=7)


def examine_workers(now: datetime) -> Iterator[Finding]:
    """Those that never started within a week, but for whom a person holds back."""
    held_back = {f"{level}is_{state}": False for level in ("", "queue__") for state in ("disabled", "draining")}
    missing = Worker.objects.with_liveness(now).filter(
        Q(liveness=Liveness.NEVER_STARTED), created_at__lt=now - NEVER_STARTED_AFTER, **held_back
    )
    paths = missing.order_by(*PATH).values_list(*PATH).iterator()
    what = f"Workers that never started in {NEVER_STARTED_AFTER.days} days"
    advice = "Start them; their pages say why a first boot fails. Disable or delete those that are not needed."
    yield from many(Level.PROBLEM, "workers", what=what, names=("/".join(path) for path in paths), advice=advice)
