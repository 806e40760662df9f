"""The filter that lists the workers which need attention, by the same rules as the dashboard counts them."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from environments.members import staff_of
from workers.admin.states import outage_of
from workers.attention import crash_looping, outdated
from workers.models import WorkerInstance

CRASH_LOOP, DUPLICATE, OUTDATED = "crash-loop", "duplicate", "outdated"


class AttentionFilter(admin.SimpleListFilter):
    """Workers that need attention, by the reason."""

    title = "needs attention"
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(CRASH_LOOP, "Crash loop"), (DUPLICATE, "Running twice"), (OUTDATED, "Outdated configuration")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        now = timezone.now()
        may_be_held = outage_of(request) is not None
        if self.value() == CRASH_LOOP:
            return queryset.filter(pk__in=crash_looping(now).values("worker_id"))
        if self.value() == DUPLICATE:
            duplicates = WorkerInstance.objects.duplicates(now, may_be_held=may_be_held)
            return queryset.filter(pk__in=duplicates.values("worker_id"))
        if self.value() == OUTDATED:
            return outdated(queryset, staff_of(request), now, may_be_held=may_be_held)
        return queryset
