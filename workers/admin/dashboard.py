"""The console's first page."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

from environments import times
from environments.admin.signed_in import staff_of
from environments.models.connections import CONNECTION_KINDS
from environments.roles import Staff
from workers.admin.links import list_of
from workers.admin.states import LIVENESS_COLORS, outage_of
from workers.admin.workers.filters import (
    CRASH_LOOP,
    CUT_OFF,
    DUPLICATE,
    INCOMPLETE,
    NOT_POLLING,
    OUTDATED,
    REFUSED,
    STRANGERS,
    UNSEEN,
    WAITING,
)
from workers.models import LIVE, ApiKey, Liveness, NotificationDelivery, Worker, WorkerQueue
from workers.reports.dashboard import Attention, Dashboard, first_steps, look_at_fleet

#: What the chart may show: the name in the address, and how many hours.
PERIODS = {"24h": 24, "7d": 168}


def context_of(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What unfold calls for the first page's template."""
    staff, now = staff_of(request), times.now()
    period = request.GET.get("period", "")
    period = period if period in PERIODS else next(iter(PERIODS))
    outage = outage_of(request)
    dashboard = look_at_fleet(staff, hours=PERIODS[period], now=now, may_be_held=outage is not None)
    has_started = sum(dashboard.workers.values()) > dashboard.workers[Liveness.NEVER_STARTED]
    is_part = request.GET.get("part") == "fleet"
    return context | {
        "title": "Dashboard",
        "is_part": is_part,  # which the page fetches again and again
        "layout": "admin/part.html" if is_part else "admin/base.html",
        "dashboard": dashboard,
        "tiles": _tiles(dashboard),
        "problems": _problems(dashboard.attention),
        "is_running": any(dashboard.workers[liveness] for liveness in LIVE),
        "period": period,
        "periods": list(PERIODS),
        "outage": outage,
        "first_steps": [] if has_started else _first_steps(request, staff),
    }


def _tiles(dashboard: Dashboard) -> list[dict[str, Any]]:
    """How many workers are in each state, with their color and list."""
    return [
        {
            "label": str(liveness),
            "count": count,
            "color": LIVENESS_COLORS.get(liveness, "") if count else "",
            "url": list_of(Worker, liveness=str(liveness)),
        }
        for liveness, count in dashboard.workers.items()
    ]


def _problems(attention: Attention) -> list[tuple[int, str, str]]:
    """What needs attention: how much, what, and its list; the most pressing first."""
    expiring = sum(trouble.expiring for trouble in attention.connections.values())
    # Those that are cut off are listed by themselves.
    offline = {"liveness": str(Liveness.OFFLINE)} | ({"attention": UNSEEN} if attention.cut_off else {})
    found = [
        (
            attention.refused_workers,
            ("worker whose latest start was refused", "workers whose latest start was refused"),
            list_of(Worker, attention=REFUSED),
        ),
        (
            attention.refused_hosts,
            ("host whose latest start was refused", "hosts whose latest start was refused"),
            "#refused-starts",
        ),
        (
            attention.incomplete_queues,
            ("worker queue whose configuration is incomplete", "worker queues whose configuration is incomplete"),
            list_of(WorkerQueue, configuration=INCOMPLETE),
        ),
        (
            attention.waiting_queues,
            ("worker queue in which tasks wait and nobody polls", "worker queues in which tasks wait and nobody polls"),
            list_of(WorkerQueue, temporal=WAITING),
        ),
        (
            attention.not_polling,
            ("worker that beats but does not poll", "workers that beat but do not poll"),
            list_of(Worker, attention=NOT_POLLING),
        ),
        (
            attention.cut_off,
            ("worker that polls but does not beat", "workers that poll but do not beat"),
            list_of(Worker, attention=CUT_OFF),
        ),
        (
            attention.queues_with_strangers,
            ("worker queue that an unknown process polls", "worker queues that unknown processes poll"),
            list_of(WorkerQueue, temporal=STRANGERS),
        ),
        (
            attention.crash_looping,
            ("worker in a crash loop", "workers in a crash loop"),
            list_of(Worker, attention=CRASH_LOOP),
        ),
        (
            attention.looping_hosts,
            ("host in a crash loop", "hosts in a crash loop"),
            list_of(Worker, attention=CRASH_LOOP),
        ),
        (
            attention.doubled,
            ("worker that is two processes", "workers that are two processes each"),
            list_of(Worker, attention=DUPLICATE),
        ),
        (
            attention.duplicates,
            ("process running beside a newer one", "processes running beside a newer one"),
            list_of(Worker, attention=DUPLICATE),
        ),
        (
            attention.offline,
            ("worker offline", "workers offline"),
            list_of(Worker, **offline),
        ),
        (
            attention.outdated,
            ("worker with an outdated configuration", "workers with an outdated configuration"),
            list_of(Worker, attention=OUTDATED),
        ),
        (
            attention.expiring_keys,
            ("API key that expires within 30 days", "API keys that expire within 30 days"),
            list_of(ApiKey, state="expiring"),
        ),
        (
            attention.undelivered,
            ("notification that was given up", "notifications that were given up"),
            list_of(NotificationDelivery, state="given_up"),
        ),
        (
            expiring,
            ("credential that expires within 30 days", "credentials that expire within 30 days"),
            reverse("admin:workers_apikey_calendar"),
        ),
        *(
            (
                attention.connections[names.model_name].failing,
                (f"{names.verbose_name} failing verification", f"{names.verbose_name_plural} failing verification"),
                list_of(names.model, verified="no"),
            )
            for names in (kind._meta for kind in CONNECTION_KINDS)
        ),
    ]
    return [(count, one if count == 1 else many, url) for count, (one, many), url in found if count]


def _first_steps(request: HttpRequest, staff: Staff) -> list[dict[str, Any]]:
    """Each with the page where it is done, if this person may do it."""
    steps = []
    for title, model, is_done in first_steps(staff):
        page = f"admin:{model._meta.app_label}_{model._meta.model_name}_{'changelist' if is_done else 'add'}"
        may_do = is_done or admin.site._registry[model].has_add_permission(request)
        steps.append({"title": title, "is_done": is_done, "url": reverse(page) if may_do else ""})
    return steps
