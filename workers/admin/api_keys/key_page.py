"""What a key's page tells: what it is, who would be cut off without it, and what it has been used for."""

from datetime import datetime
from typing import Any

from workers.admin.api_keys.listing import state_of, target_of
from workers.admin.states import badge, liveness_badge
from workers.api_keys.usage import LATEST_STARTS, events_of, history_of, last_changes, reach_of, refusal_of
from workers.models import ApiKey


def uses_of(key: ApiKey, now: datetime) -> dict[str, Any]:
    """The key's state and target, and the workers that run with it now."""
    reach = reach_of(key, now)
    for process in reach.processes:
        process.badge = liveness_badge(process.liveness)  # type: ignore[attr-defined]  # for the template
    return {
        "state": badge(*state_of(key, now)),
        "target": target_of(key),
        "reach": reach,
        "is_usable": key.is_usable(now),
        "may_rotate": key.is_usable(now) and key.replaced_by_id is None,
        "replaces": getattr(key, "replaces", None),
        "latest_starts": LATEST_STARTS,
    }


def context_of(key: ApiKey, now: datetime) -> dict[str, Any]:
    """All that the key's page shows."""
    uses, history = uses_of(key, now), history_of(key, now)
    for use in history.workers.rows:
        use.badge = liveness_badge(use.worker.liveness if use.worker else "Removed")  # type: ignore[attr-defined]  # for the template
    refusal, refused_worker = refusal_of(key)
    seen = (history.last_start_at, uses["reach"].last_heartbeat_at, last_changes([key.pk]).get(key.pk))
    times = [time for time in seen if time]
    return uses | {
        "history": history,
        "last_used_at": max(times, default=None),
        "refusal": refusal,
        "refused_worker": refused_worker,
        "events": events_of(key),
    }
