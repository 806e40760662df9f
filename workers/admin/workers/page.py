"""What a worker's page tells: how it is at a glance, its processes, what it is given and from where, its history."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from environments.admin.trail import text_of
from environments.models import AuditEvent
from environments.models.connections import CONNECTION_POINTERS
from workers.admin.api_keys.covering import keys_by_id, keys_covering
from workers.admin.decisions import held
from workers.admin.links import link_to, list_of
from workers.admin.states import LIVENESS_COLORS, WORK_COLORS, is_recovering
from workers.admin.workers.start_history import past_starts, starts_of
from workers.api_keys.tokens import UUID_TEXT
from workers.configuration.effective import revision_or_reason, sections_of
from workers.configuration.explanation import SECTION_FIELDS, fields_of
from workers.lifecycle.heartbeats import LOG_LINE_LENGTH
from workers.lifecycle.refusals import CALL_WITHIN, latest_foreign_refusal_at, refused_start_of
from workers.models import (
    LIVE,
    ApiKey,
    Liveness,
    Outage,
    ProcessObservation,
    QueueObservation,
    Refusal,
    RefusedStart,
    Work,
    Worker,
    WorkerInstance,
    WorkerStart,
)
from workers.models.instances import CUT, DOUBLED_FOR_INTERVALS, ERROR_MESSAGE_LENGTH
from workers.models.work import MEANINGS, with_work
from workers.observation.lease import next_pass_at
from workers.reports.queues import instances_of, with_reports

#: Rows of each part of the page; a link leads to the rest.
MOST_ROWS = 20
MOST_PROCESSES = 6
LONGEST_VALUE = 100
NOTED_WITHIN = timedelta(seconds=CALL_WITHIN)
#: What changes the configuration, in the audit trail's words.
POINTED_TO = [*CONNECTION_POINTERS, "queue", "heartbeat_interval"]
WITHIN = ["host", "namespace", "api_url", "api_key_fingerprint", "requires_api_key", *SECTION_FIELDS["telemetry"]]


@dataclass(frozen=True)
class ShownEvent:
    """One event of the audit trail, with its changes as text."""

    row: AuditEvent
    changes: list[tuple[str, str, str]]


def overview_of(worker: Worker, outage: Outage | None, now: datetime) -> dict[str, Any]:
    """How the worker is at this moment; it has to be loaded with its chain."""
    revision, problem = revision_or_reason(worker)
    processes = _processes(worker, revision, now)
    current = next((process for process in processes if process.is_current), None)
    is_outdated = current is not None and current.is_outdated and current.liveness in LIVE
    liveness = current.liveness if current else Liveness.NEVER_STARTED
    return {
        "worker": worker,
        "processes": processes,
        "current": current,
        "liveness": str(liveness),
        "liveness_color": LIVENESS_COLORS.get(liveness, ""),
        "held": held(worker, worker.queue, now=now),
        "is_recovering": current is not None and is_recovering(current),
        "has_duplicates": sum(process.liveness in LIVE for process in processes) > 1,
        "is_doubled": current is not None and current.liveness in LIVE and _is_doubled(current, worker),
        "outage": outage,
        **_temporal(worker, current, now),
        "revision": revision,
        "problem": problem,
        "is_outdated": is_outdated,
        "outdated_by": _first_change(worker, current.started_at) if current and is_outdated else None,
        "cuts": _cuts(current),
        **_refusals(worker, current),
    }


def context_of(worker: Worker, outage: Outage | None, now: datetime) -> dict[str, Any]:
    """The overview for above the form, and the details for below it."""
    overview = overview_of(worker, outage, now)
    return {"overview": overview, "details": _details(worker, overview, now)}


def _is_doubled(current: WorkerInstance, worker: Worker) -> bool:
    """What `InstanceQuerySet.doubled` asks, of a process that is loaded."""
    lately = current.last_heartbeat_at - DOUBLED_FOR_INTERVALS * timedelta(seconds=worker.queue.heartbeat_interval)
    return current.doubled_at is not None and current.doubled_at >= lately


def _details(worker: Worker, overview: dict[str, Any], now: datetime) -> dict[str, Any]:
    starts = list(starts_of(worker.pk, worker.organization_id)[: MOST_ROWS + 1])
    covering = keys_covering(worker, now, MOST_ROWS + 1)
    ids = {row.api_key_id for row in [*starts, *overview["processes"]]}
    keys = keys_by_id(ids, worker.organization_id, now)
    for process in overview["processes"]:
        process.key = keys.get(process.api_key_id)
    return {
        "fields": fields_of(worker, link_to),
        "starts": past_starts(starts, keys, overview["revision"], MOST_ROWS),
        "keys": covering[:MOST_ROWS],
        "has_more_keys": len(covering) > MOST_ROWS,
        "keys_in_use": {process.api_key_id for process in overview["processes"] if process.liveness in LIVE},
        "has_logs": any(process.report.logs for process in overview["processes"]),
        "longest_line": LOG_LINE_LENGTH,
        "longest_message": ERROR_MESSAGE_LENGTH,
        "events": _events(worker),
        "lists": _lists(worker),
    }


def _processes(worker: Worker, revision: str, now: datetime) -> list[Any]:
    """The current process first, then the others that live, each with its report.

    One is outdated when another start would give it something else; not while that would be refused.
    """
    found = with_work(instances_of(now, worker=worker.pk).with_held(now), now)
    processes = with_reports(list(found.order_by("-is_current", "-last_heartbeat_at", "id")[:MOST_PROCESSES]))
    for process in processes:
        given = process.configuration_revision
        process.is_outdated = bool(given and revision) and given != revision  # type: ignore[attr-defined]  # for the template
    return processes


def _temporal(worker: Worker, current: Any, now: datetime) -> dict[str, Any]:
    """What Temporal was seen to know of the process and of its queue."""
    observation = QueueObservation.objects.filter(queue=worker.queue_id).first()
    work = Work(current.work) if current else Work.UNKNOWN
    is_fresh = observation is not None and observation.is_fresh(now)
    is_newer = is_fresh and not work and current is not None and current.liveness in LIVE
    is_newer = is_newer and current.started_at > observation.observed_at  # type: ignore[union-attr]  # it is fresh
    due_at = next_pass_at() if is_newer else None
    return {
        "work": str(work),
        "work_color": WORK_COLORS.get(work, "success"),
        "work_meaning": MEANINGS.get(work, ""),
        "work_since": ProcessObservation.objects.filter(pk=current.pk).values_list("changed_at", flat=True).first()
        if work
        else None,
        "observation": observation,
        "is_observation_fresh": is_fresh,
        "is_newer_than_look": is_newer,
        "next_look_at": due_at if due_at and due_at > now else None,
    }


def _first_change(worker: Worker, since: datetime) -> AuditEvent | None:
    """What made a process outdated that started then: the first event after it that changed what it was given."""
    levels = (worker, worker.queue, worker.queue.environment, worker.organization)
    connections = [str(section.row.pk) for section in sections_of(worker) if section.row]
    named = [str(row.pk) for row in (worker.queue, worker.queue.environment)]
    changes = Q(object_id__in=[str(row.pk) for row in levels], changes__has_any_keys=POINTED_TO)
    changes |= Q(object_id__in=connections, changes__has_any_keys=WITHIN)
    changes |= Q(object_id__in=named, changes__has_key="name")
    events = AuditEvent.objects.filter(changes, organization=worker.organization_id, occurred_at__gt=since)
    return events.order_by("occurred_at").first()


def _refusals(worker: Worker, current: WorkerInstance | None) -> dict[str, Any]:
    """The last refused starts of the organization's keys; of another organization's key only when.

    `latest_refusal` is one that came after the current process started, or while there is none, and `refused_call` one
    since which no heartbeat was taken, or hardly any: of a call that is refused again and again not each is noted.
    """
    refusals = Refusal.objects.filter(worker_id=worker.pk).order_by("-occurred_at")
    own = list(refusals.filter(organization=worker.organization_id).select_related("api_key")[: MOST_ROWS + 1])
    of_keys = [row for row in own if row.call == Refusal.START][:MOST_ROWS]
    told = {(row.api_key_id, row.occurred_at) for row in of_keys}
    of_worker = [row for row in refused_start_of(worker) if (row.api_key_id, row.occurred_at) not in told]
    starts: list[Refusal | RefusedStart] = [*of_keys, *of_worker]
    starts.sort(key=lambda row: row.occurred_at, reverse=True)
    call = next((row for row in own if row.call != Refusal.START), None)
    is_news = starts and (current is None or starts[0].occurred_at > current.started_at)
    is_going_on = call and (current is None or call.occurred_at > current.last_heartbeat_at - NOTED_WITHIN)
    return {
        "refusals": starts,
        "foreign_refusal_at": latest_foreign_refusal_at(worker),
        "latest_refusal": starts[0] if is_news else None,
        "refused_call": call if is_going_on else None,
    }


def _cuts(current: Any) -> list[str]:
    """What was cut of what the current process reports."""
    told = (current.report.system_info, current.report.worker_metadata) if current and current.report else ()
    return sorted({text for part in told for text in part.get(CUT, ())})


def _events(worker: Worker) -> list[ShownEvent]:
    events = AuditEvent.objects.filter(organization=worker.organization_id, object_id=str(worker.pk))
    rows = list(events.order_by("-occurred_at")[:MOST_ROWS])
    names = _names(rows, worker)
    return [ShownEvent(row, _changes(row, names)) for row in rows]


def _names(events: list[AuditEvent], worker: Worker) -> dict[str, str]:
    """How the organization's rows are called that the changes point to, by their ids as the events have them."""
    names: dict[str, str] = {}
    for pointer in ("queue", *CONNECTION_POINTERS):
        values = {str(value) for row in events for value in row.changes.get(pointer, ())}
        ids = {value for value in values if UUID_TEXT.fullmatch(value)}
        model: Any = Worker._meta.get_field(pointer).related_model
        rows = model.objects.filter(pk__in=ids, organization=worker.organization_id) if ids else ()
        names |= {str(row.pk): row.name for row in rows}
    return names


def _changes(event: AuditEvent, names: dict[str, str]) -> list[tuple[str, str, str]]:
    """Fields with their values before and after; of an object that is new or gone, those that have one."""
    found = [(name, _value(before, names), _value(after, names)) for name, (before, after) in event.changes.items()]
    return [(name, before, after) for name, before, after in found if before != after]


def _value(value: Any, names: dict[str, str]) -> str:
    text = names.get(str(value)) or text_of(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _lists(worker: Worker) -> dict[str, str]:
    """Where the rest is of what the page shows the latest of."""
    organization_id = worker.organization_id
    return {
        "processes": list_of(WorkerInstance, worker=worker.pk),
        "starts": list_of(WorkerStart, worker=worker.pk, organization=organization_id),
        "keys": list_of(ApiKey, organization=organization_id),
        "events": list_of(AuditEvent, object_id=worker.pk, organization=organization_id),
    }
