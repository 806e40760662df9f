"""How the console shows what is known of a worker."""

from typing import Any

from django.contrib import admin
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from environments import times
from environments.admin.console import ConsoleForm
from workers.lifecycle.pulse import recovery
from workers.models import LIVE, Liveness, Outage, Work
from workers.models.liveness import OFFLINE_AFTER_AT_LEAST

LIVENESS_COLORS: dict[str, str] = {
    Liveness.ONLINE: "success",
    Liveness.LATE: "warning",
    Liveness.OFFLINE: "danger",
}
#: Of what is amiss; that a process works is what everybody expects.
WORK_COLORS: dict[str, str] = {Work.NOT_POLLING: "danger", Work.CUT_OFF: "warning"}


def badge(text: str, color: str = "") -> SafeString:
    """A label in a color: success, warning, danger, or "" for none."""
    return format_html('<span class="cp-badge{}">{}</span>', color and f" cp-badge-{color}", text)


def liveness_badge(liveness: str) -> SafeString:
    """A liveness as the console colors it everywhere."""
    return badge(liveness, LIVENESS_COLORS.get(liveness, ""))


class InOrganizationForm(ConsoleForm):
    """The row belongs to the organization of what it is in, so nobody has to say it twice."""

    parent: str

    def clean(self) -> dict[str, Any]:
        """Takes the organization over before the constraints are checked."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if parent := cleaned.get(self.parent):
            if self.instance._state.adding:
                self.instance.organization_id = parent.organization_id
            elif self.instance.organization_id != parent.organization_id:
                self.add_error(self.parent, "This belongs to another organization.")
        return cleaned


class LivenessFilter(admin.SimpleListFilter):
    """Workers by what is known of their processes."""

    title = "liveness"
    parameter_name = "liveness"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(str(liveness), str(liveness)) for liveness in Liveness]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        if self.value() == Liveness.OFFLINE:  # says first what is quickly found out: nobody is Offline sooner
            queryset = queryset.annotate(last_heard_at=F("current__last_heartbeat_at"))
            queryset = queryset.filter(last_heard_at__lt=times.now() - OFFLINE_AFTER_AT_LEAST)
        return queryset.filter(liveness=self.value()) if self.value() else queryset


def outage_of(request: HttpRequest) -> Outage | None:
    """The outage that liveness still depends on, asked once a request."""
    if not hasattr(request, "_outage"):
        request._outage = recovery(times.now())  # type: ignore[attr-defined]  # for as long as the request lives
    return request._outage  # type: ignore[attr-defined]  # as above


class ShowsLiveness:
    """Pages whose rows have their liveness; what leads to a row, offers it or checks it does without."""

    list_before_template = "admin/workers/recovering.html"
    liveness_pages: tuple[str, ...] = ("changelist",)

    def with_liveness(self, rows: Any, *, may_be_held: bool) -> Any:
        """The rows of such a page; `may_be_held` as for `liveness_of`."""
        raise NotImplementedError

    def get_queryset(self, request: HttpRequest) -> Any:
        """With liveness where it is shown."""
        rows = super().get_queryset(request)
        page = getattr(request.resolver_match, "url_name", "").rpartition(f"_{rows.model._meta.model_name}_")[2]
        if page not in self.liveness_pages:
            return rows
        return self.with_liveness(rows, may_be_held=outage_of(request) is not None)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """With the outage, so that the list can say that the control plane itself was away."""
        context = {**(extra_context or {}), "outage": outage_of(request)}
        return super().changelist_view(request, context)


def is_recovering(row: Any) -> bool:
    """Whether a worker or an instance is shown as it was before our own outage, since it has not been heard of yet."""
    return bool(getattr(row, "is_held", False)) and row.liveness in LIVE
