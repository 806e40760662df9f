"""The console's pages of what stands, and of the messages about it."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.messages import SUCCESS, WARNING
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from environments import audit, times
from environments.admin.console import ReadOnlyAdmin, actor_of
from environments.admin.periods import PeriodFilter
from environments.admin.signed_in import staff_of
from environments.models import Role
from environments.moments import moment
from workers.admin.links import Link, link_to, shown, subject_page
from workers.admin.starts import pretty_json
from workers.admin.states import badge
from workers.models import Incident, NotificationDelivery
from workers.notifications.outbox import try_again

#: Messages that one selection sends again.
MOST_AT_ONCE = 500


class StandingFilter(admin.SimpleListFilter):
    """What stands now, unless somebody asks for what is over."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [("over", "Over"), ("all", "All")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """What Django calls All is what stands."""
        for number, choice in enumerate(super().choices(changelist)):
            yield choice if number else {**choice, "display": "Stands now"}

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        if self.value() == "all":
            return queryset
        return queryset.filter(ended_at__isnull=self.value() != "over")


@admin.register(Incident)
class IncidentAdmin(ReadOnlyAdmin):
    """What stands now, and what did lately."""

    empty = "Nothing stands that anybody would be told."
    made_at = "opened_at"
    list_display = ("shown_event", "subject", "organization", "detail", "since", "state")
    list_filter = (StandingFilter, "event")
    search_fields = ("subject_name",)
    fields = ("shown_event", "subject", "organization", "detail", "since", "opened", "due", "state")

    def name_of(self, row: Incident) -> str:
        return f"{row.organization_id}: {row}"

    @admin.display(description="event", ordering="event")
    def shown_event(self, row: Incident) -> str:
        return str(row.get_event_display())

    @admin.display(description="subject", ordering="subject_name")
    def subject(self, row: Incident) -> SafeString:
        return shown(Link(row.subject_name, subject_page(row.subject_type, row.subject_id)))

    @admin.display(description="since", ordering="since_at")
    def since(self, row: Incident) -> SafeString:
        return moment(row.since_at)

    @admin.display(description="seen", ordering="opened_at")
    def opened(self, row: Incident) -> SafeString:
        return moment(row.opened_at)

    @admin.display(description="told")
    def due(self, row: Incident) -> SafeString:
        return moment(row.due_at)

    @admin.display(description="state")
    def state(self, row: Incident) -> SafeString:
        return format_html("over {}", moment(row.ended_at)) if row.ended_at else badge("stands", "danger")


#: Filter value -> its text, and which messages it leaves.
STATES = {
    "waiting": ("Waiting", Q(next_attempt_at__isnull=False)),
    "delivered": ("Delivered", Q(delivered_at__isnull=False)),
    "given_up": ("Given up", Q(given_up_at__isnull=False)),
}


class DeliveryFilter(admin.SimpleListFilter):
    """Messages by what became of them."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(value, text) for value, (text, _) in STATES.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        return queryset.filter(STATES[value][1]) if (value := self.value()) in STATES else queryset


class MadeWithin(PeriodFilter):
    """Messages of the last day, week or month."""

    field = "created_at"


@admin.register(NotificationDelivery)
class NotificationDeliveryAdmin(ReadOnlyAdmin):
    """Every message, with what became of it."""

    empty = "Each message to a target is listed here, and what became of it."
    list_display = ("created", "message", "target_link", "state", "attempts", "last_error")
    list_select_related = ("target",)
    search_fields = ("target__name",)
    list_filter = (DeliveryFilter, MadeWithin)
    fields = ("created", "message", "target_link", "state", "attempts", "next_attempt", "last_error", "sent")
    actions = ("try_again",)

    def name_of(self, row: NotificationDelivery) -> str:
        return f"{row.organization_id}: {row}"

    @admin.display(description="message")
    def message(self, row: NotificationDelivery) -> str:
        return str(row)

    @admin.display(description="target")
    def target_link(self, row: NotificationDelivery) -> SafeString:
        return shown(link_to(row.target, row.target.name))

    @admin.display(description="state")
    def state(self, row: NotificationDelivery) -> SafeString:
        if row.given_up_at:
            return format_html("{} {}", badge("given up", "danger"), moment(row.given_up_at))
        if row.delivered_at:
            return format_html("{} {}", badge("delivered", "success"), moment(row.delivered_at))
        return badge("waiting", "warning" if row.attempts else "")

    @admin.display(description="next attempt")
    def next_attempt(self, row: NotificationDelivery) -> SafeString:
        return moment(row.next_attempt_at, "none")

    @admin.display(description="as a webhook is sent it")
    def sent(self, row: NotificationDelivery) -> SafeString:
        return pretty_json(row.payload)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Whoever changes targets."""
        return self.may(request, Role.ADMINISTRATOR)

    @admin.action(description="Try again", permissions=["retry"])
    def try_again(self, request: HttpRequest, queryset: Any) -> None:
        """Of those that were given up."""
        mine = staff_of(request).within(queryset, "organization", Role.ADMINISTRATOR)
        with transaction.atomic():
            chosen = mine.filter(given_up_at__isnull=False).order_by("pk").select_for_update(of=("self",))
            rows = list(chosen[:MOST_AT_ONCE])
            try_again(NotificationDelivery.objects.filter(pk__in=[row.pk for row in rows]), times.now())
            subjects = [(row, {"attempts": [row.attempts, 0]}) for row in rows]
            audit.record_many("notification_delivery.tried_again", subjects, actor=actor_of(request), now=times.now())
        told = f"{len(rows)} messages are sent again." if len(rows) != 1 else "One message is sent again."
        none = "Nothing was changed: none of these messages was given up."
        self.message_user(request, told if rows else none, SUCCESS if rows else WARNING)
