"""The filters that list the workers which need attention, or run with one version of an API key."""

import re
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest

from environments import times
from environments.admin.signed_in import staff_of
from environments.models import CredentialConnection
from environments.models.connections import CREDENTIAL_KINDS
from workers.admin.states import outage_of
from workers.lifecycle.refusals import REFUSED_FOR
from workers.models import Liveness, Work, WorkerInstance
from workers.reports.attention import (
    CRASH_LOOP_WINDOW,
    crash_looping,
    on_looping_hosts,
    outdated,
    refused_starts,
)
from workers.reports.incomplete import incomplete_queues, incomplete_workers, queues_of_own_connections
from workers.reports.observed import amiss, polled_by_strangers, waiting_in_vain
from workers.reports.rotation_wave import running_on

CRASH_LOOP, DUPLICATE, OUTDATED, REFUSED = "crash-loop", "duplicate", "outdated", "refused"
NOT_POLLING, CUT_OFF, UNSEEN = "not-polling", "cut-off", "unseen"
INCOMPLETE, OF_OWN = "incomplete", "own"
WAITING, STRANGERS = "waiting", "strangers"
#: Value in the address -> what the processes do.
WORKS = {NOT_POLLING: Work.NOT_POLLING, CUT_OFF: Work.CUT_OFF}
RUNS_ON = re.compile(r"(?P<connection>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):(?P<version>[0-9]{1,9})", re.ASCII)


class AttentionFilter(admin.SimpleListFilter):
    """Workers that need attention, by the reason."""

    title = "needs attention"
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [
            (REFUSED, "Start refused"),
            (INCOMPLETE, "Incomplete configuration"),
            (CRASH_LOOP, "Crash loop"),
            (DUPLICATE, "Running twice"),
            (OUTDATED, "Outdated configuration"),
            (NOT_POLLING, "Beats but does not poll"),
            (CUT_OFF, "Polls but does not beat"),
            (UNSEEN, "Offline and not seen to poll"),
        ]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        now = times.now()
        may_be_held = outage_of(request) is not None
        if self.value() == REFUSED:
            refused = refused_starts(now - REFUSED_FOR).filter(worker_id__isnull=False)
            return queryset.filter(pk__in=refused.values("worker_id"))
        if self.value() == INCOMPLETE:
            return queryset.filter(pk__in=incomplete_workers(now).values("pk"))
        if self.value() == CRASH_LOOP:
            on_hosts = on_looping_hosts(now - CRASH_LOOP_WINDOW).values("worker_id")
            return queryset.filter(Q(pk__in=crash_looping(now).values("worker_id")) | Q(pk__in=on_hosts))
        if self.value() == DUPLICATE:
            duplicates = WorkerInstance.objects.duplicates(now, may_be_held=may_be_held).values("worker_id")
            doubled = WorkerInstance.objects.doubled(now, may_be_held=may_be_held).values("worker_id")
            return queryset.filter(Q(pk__in=duplicates) | Q(pk__in=doubled))
        if self.value() == OUTDATED:
            return outdated(queryset, staff_of(request), now, may_be_held=may_be_held)
        return _by_work(queryset, self.value() or "", now, may_be_held=may_be_held)


def _by_work(workers: Any, value: str, now: datetime, *, may_be_held: bool) -> Any:
    """Those of which polling and heartbeats do not go together, or that are Offline and none of these."""
    if value == UNSEEN:
        seen = amiss(now, Work.CUT_OFF, may_be_held=may_be_held).values("worker_id")
        return workers.filter(liveness=Liveness.OFFLINE).exclude(pk__in=seen)
    if work := WORKS.get(value):
        return workers.filter(pk__in=amiss(now, work, may_be_held=may_be_held).values("worker_id"))
    return workers


class RunsOnFilter(admin.SimpleListFilter):
    """Workers that run with `?runs_on=<connection>:<version>`; shown only where a link has led to it."""

    title = "runs on"
    parameter_name = "runs_on"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        """The one that was asked for."""
        value = self.value()
        if not value:
            return []
        match = RUNS_ON.fullmatch(value)
        self.version = int(match["version"]) if match else 0
        self.connection = _connection(request, match["connection"]) if match else None
        name = f"{self.connection}, API key version {self.version}" if self.connection else "an unknown API key"
        return [(value, name)]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        if not self.value():
            return queryset
        if self.connection is None:
            return queryset.none()
        processes = running_on(self.connection, self.version, times.now())
        return queryset.filter(pk__in=processes.values("worker_id"))


def _connection(request: HttpRequest, identifier: str) -> CredentialConnection | None:
    """The connection of either kind, if the person may see it."""
    for model in CREDENTIAL_KINDS:
        found: CredentialConnection | None
        found = staff_of(request).within(model.objects.filter(pk=identifier), "organization").first()
        if found:
            return found
    return None


class ConfigurationFilter(admin.SimpleListFilter):
    """Worker queues that lack a connection which every worker needs."""

    title = "configuration"
    parameter_name = "configuration"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(INCOMPLETE, "Incomplete"), (OF_OWN, "Only workers' own connections")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        if self.value() == INCOMPLETE:
            return queryset.filter(pk__in=incomplete_queues(times.now()).values("pk"))
        if self.value() == OF_OWN:
            return queryset.filter(pk__in=queues_of_own_connections(times.now()).values("pk"))
        return queryset


class TemporalFilter(admin.SimpleListFilter):
    """Worker queues by what Temporal was seen to know of them."""

    title = "Temporal"
    parameter_name = "temporal"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(WAITING, "Tasks wait and nobody polls"), (STRANGERS, "Unknown processes poll")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        found = {WAITING: waiting_in_vain, STRANGERS: polled_by_strangers}.get(self.value() or "")
        return queryset.filter(pk__in=found(times.now()).values("queue_id")) if found else queryset
