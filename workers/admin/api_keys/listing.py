"""The list of API keys: its columns, what each of its rows was last used for, and its filters."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from environments import times
from environments.admin.searches import BoundedList
from environments.models import Organization
from environments.moments import moment
from workers.admin.links import link_to, shown
from workers.admin.states import badge
from workers.api_keys.usage import last_used, still_used
from workers.models import ApiKey, Scope
from workers.models.api_keys import EXPIRY_WARNING_DAYS
from workers.reports.expiries import ending

#: Days before the expiry from which on it is urgent.
URGENT_DAYS = 3


def state_of(key: ApiKey, now: datetime) -> tuple[str, str]:
    """The key's state in words, and the color of its badge."""
    if key.revoked_at:
        return "Revoked", "danger"
    if not key.is_usable(now):
        return "Expired", "" if key.is_short_lived else "danger"
    if key.replaced_by_id:
        return "Replaced, in its grace period", "warning"
    days = key.expiry_warning(now)
    if days is None:
        return "Usable", "success"
    return f"Expires within {days} day{'' if days == 1 else 's'}", color_of_warning(days)


def color_of_warning(days: int) -> str:
    """The color of a warning that is given so many days before the expiry."""
    return "danger" if days <= URGENT_DAYS else "warning"


def target_of(key: ApiKey) -> SafeString:
    """What the key is for, as a link; needs what it is for to be loaded, but for an organization."""
    return organization_of(key) if key.scope == Scope.ORGANIZATION else shown(link_to(key.target))


def organization_of(key: ApiKey) -> SafeString:
    """A link to the key's organization."""
    return shown(link_to(Organization(pk=key.organization_id)))


class KeyColumns:
    """How a key's values are shown in the list and on its page."""

    @admin.display(description="name", ordering="name")
    def shown_name(self, row: ApiKey) -> SafeString:
        style = "display: block; min-width: 9rem; max-width: 18rem; white-space: normal; overflow-wrap: anywhere"
        return format_html('<bdi style="{}">{}</bdi>', style, row.name)

    @admin.display(description="scope", ordering="scope")
    def shown_scope(self, row: ApiKey) -> str:
        return capfirst(Scope(row.scope).label)

    @admin.display(description="role", ordering="role")
    def shown_role(self, row: ApiKey) -> str:
        return capfirst(row.role)

    @admin.display(description="target")
    def shown_target(self, row: ApiKey) -> SafeString:
        return target_of(row)

    @admin.display(description="organization", ordering="organization")
    def tenant(self, row: ApiKey) -> SafeString:
        return organization_of(row)

    @admin.display(description="state")
    def state(self, row: ApiKey) -> SafeString:
        return badge(*state_of(row, times.now()))

    @admin.display(description="last used")
    def last_used(self, row: ApiKey) -> SafeString:
        return moment(getattr(row, "last_used_at", None))

    @admin.display(description="expires", ordering="expires_at")
    def expires(self, row: ApiKey) -> SafeString:
        return moment(row.expires_at)


class KeyList(BoundedList):
    """The rows of one page with when each was last used, which takes two statements for all of them."""

    result_list: Any

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        found = last_used([row.pk for row in self.result_list])
        for row in self.result_list:
            row.last_used_at = found.get(row.pk)


#: Filter value -> its text, and which keys it leaves.
STATES: dict[str, tuple[str, Callable[[Any, datetime], Any]]] = {
    "usable": ("Usable", lambda keys, now: keys.usable(now)),
    "expiring": (
        f"Expiring within {EXPIRY_WARNING_DAYS[0]} days",
        lambda keys, now: (
            keys.usable(now).without_short_lived().filter(expires_at__lte=now + timedelta(days=EXPIRY_WARNING_DAYS[0]))
        ),
    ),
    "replaced": (
        "Rotated, but still used",
        lambda keys, now: still_used(keys.usable(now).filter(replaced_by__isnull=False), now),
    ),
    "endless": ("Never expiring", lambda keys, _: keys.filter(expires_at=None, revoked_at=None)),
    "expired": ("Expired", lambda keys, now: keys.in_state("expired", now)),
    "revoked": ("Revoked", lambda keys, now: keys.in_state("revoked", now)),
}


class StateFilter(admin.SimpleListFilter):
    """Keys by what can still be done with them."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(value, text) for value, (text, _) in STATES.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        if self.value() is None:
            return queryset
        if self.value() not in STATES:
            raise IncorrectLookupParameters
        return STATES[str(self.value())][1](queryset, times.now())


class ExpiryDayFilter(admin.SimpleListFilter):
    """Keys that expire on one day, as the calendar links to them; there is nothing to choose from in the list."""

    title = "day of expiry"
    parameter_name = "expires_on"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(day, day)] if (day := self.value()) else []

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        if not self.value():
            return queryset
        try:
            day = date.fromisoformat(str(self.value()))
            return ending(queryset, day, day + timedelta(days=1))
        except (ValueError, OverflowError):
            raise IncorrectLookupParameters from None
