"""How the console asks for and shows what somebody decided: disabled or draining, why, and until when."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import INPUT_CLASSES, UnfoldAdminTextInputWidget

from environments import times
from environments.moments import moment
from workers.admin.states import InOrganizationForm, badge
from workers.lifecycle.decisions import SENTENCES
from workers.models import State, Worker, WorkerQueue
from workers.models.states import HAS_PASSED, REASON_LENGTH, STATE_FIELDS, check_one_line, state_of

#: In the order of a form.
DECISION = ("is_draining", "is_disabled", "state_reason", "state_ends_at")
STATE_COLORS: dict[State, str] = {State.DISABLED: "danger", State.DRAINING: "warning"}


class MomentWidget(forms.DateTimeInput):
    """The browser's own choice of a time, which is taken as UTC."""

    input_type = "datetime-local"

    def __init__(self) -> None:
        attrs = {"step": "1", "class": " ".join(INPUT_CLASSES)}
        super().__init__(attrs=attrs, format="%Y-%m-%dT%H:%M:%S")


class MomentField(forms.DateTimeField):
    """A moment that is one in UTC, too."""

    widget = MomentWidget

    def to_python(self, value: Any) -> datetime | None:
        """ValidationError for what lies in no year from 1 to 9999 there."""
        found: datetime | None = super().to_python(value)
        try:
            return found and found.astimezone(UTC)
        except OverflowError:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None


class DecisionFields(forms.Form):
    """Why and until when many are disabled or draining."""

    reason = forms.CharField(
        label="Reason",
        required=False,
        max_length=REASON_LENGTH,
        validators=[check_one_line],
        widget=UnfoldAdminTextInputWidget,
        help_text="Told wherever something is refused for it.",
    )
    until = MomentField(
        label="Until",
        required=False,
        help_text="When it ends by itself, in UTC; empty for no end.",
    )

    def clean_until(self) -> datetime | None:
        """A moment to come."""
        until: datetime | None = self.cleaned_data["until"]
        if until is not None and until <= times.now():
            raise forms.ValidationError(HAS_PASSED)
        return until


class DecidedForm(InOrganizationForm):
    """Something that can be disabled and draining."""

    def clean(self) -> dict[str, Any]:
        """Takes reason and end away with what they were for; an end has to be to come."""
        cleaned = super().clean()
        was_held, is_held = (
            any(values.get(name) for name in ("is_disabled", "is_draining")) for values in (self.initial, cleaned)
        )
        until = cleaned.get("state_ends_at")
        if was_held and not is_held:
            cleaned |= {"state_reason": "", "state_ends_at": None}
        elif until is not None and until <= times.now():
            self.add_error("state_ends_at", HAS_PASSED)
        return cleaned


class DecidedPages:
    """Pages of what can be disabled and draining: all that is read of a row is what holds now."""

    joint_fields = STATE_FIELDS

    def settle(self, row: Worker | WorkerQueue) -> None:
        row.forget_ended(times.now())

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """By the filter of the state alone: a flag that has ended may still be stored."""
        allowed: bool = super().lookup_allowed(lookup, value, request)
        return allowed and lookup.partition("__")[0] not in STATE_FIELDS


class StateFilter(admin.SimpleListFilter):
    """Workers or queues by what was decided and holds now."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(str(state), str(state)) for state in State]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        decided = queryset.annotate(decided=state_of(times.now()))
        return decided.filter(decided=self.value()) if self.value() else queryset


def state_badge(row: Worker | WorkerQueue) -> SafeString:
    """What was decided and holds now, in its color, and when it ends."""
    now = times.now()
    state = row.state_at(now)
    shown = badge(state, STATE_COLORS.get(state, ""))
    is_ending = row.state_ends_at is not None and row.state_ends_at > now
    return format_html("{} ends {}", shown, moment(row.state_ends_at, now=now)) if is_ending else shown


@dataclass(frozen=True)
class Held:
    """A worker or queue that is disabled or draining, as its page tells it."""

    state: State
    label: str
    color: str
    sentence: str
    reason: str
    until: datetime | None


def held(*rows: Worker | WorkerQueue, now: datetime) -> list[Held]:
    """Those of the rows that are disabled or draining now; the queue of a worker comes after it."""
    found = []
    for row in rows:
        state = row.state_at(now)
        if color := STATE_COLORS.get(state):
            label = f"Queue {state}" if isinstance(row, WorkerQueue) else str(state)
            found.append(Held(state, label, color, SENTENCES[type(row), state], row.state_reason, row.state_ends_at))
    return found


def ending(row: Worker | WorkerQueue, changes: dict[str, list[Any]], live: int) -> list[str]:
    """What disabling or draining does to so many live processes, in sentences."""
    if not live:
        return []
    running = f"{live} running process{'' if live == 1 else 'es'}"
    told = []
    if changes.get("is_disabled", [None, False])[1]:
        told.append(f"{running} will be told to end at the next heartbeat, and cannot start again until enabled.")
    if changes.get("is_draining", [None, False])[1]:
        told.append(f"{running} will go on and finish; none starts again while draining.")
    return [*told, row.end.strip()] if told and row.end else told
