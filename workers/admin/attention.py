"""The filter that lists the workers which need attention, by the same rules as the dashboard counts them."""

from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest

from environments import times
from environments.members import staff_of
from workers.admin.states import outage_of
from workers.attention import CRASH_LOOP_WINDOW, crash_looping, on_looping_hosts, outdated
from workers.models import WorkerInstance

CRASH_LOOP, DUPLICATE, OUTDATED = "crash-loop", "duplicate", "outdated"


class AttentionFilter(admin.SimpleListFilter):
    """Workers that need attention, by the reason."""

    title = "needs attention"
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(CRASH_LOOP, "Crash loop"), (DUPLICATE, "Running twice"), (OUTDATED, "Outdated configuration")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        now = times.now()
        may_be_held = outage_of(request) is not None
        if self.value() == CRASH_LOOP:
            on_hosts = on_looping_hosts(now - CRASH_LOOP_WINDOW).values("worker_id")
            return queryset.filter(Q(pk__in=crash_looping(now).values("worker_id")) | Q(pk__in=on_hosts))
        if self.value() == DUPLICATE:
            duplicates = WorkerInstance.objects.duplicates(now, may_be_held=may_be_held).values("worker_id")
            doubled = WorkerInstance.objects.doubled(now, may_be_held=may_be_held).values("worker_id")
            return queryset.filter(Q(pk__in=duplicates) | Q(pk__in=doubled))
        if self.value() == OUTDATED:
            return outdated(queryset, staff_of(request), now, may_be_held=may_be_held)
        return queryset
