"""What somebody decided about a worker or a queue: whether it may start, why not, and until when.

A decision that has an end holds until then. Nothing has to run or to be written for it to end: whoever asks says what
time it is, in SQL by the expressions here, and of a loaded row by `state_at`.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, models
from django.db.models import Case, Q, Value, When
from django.db.models.lookups import Exact, LessThanOrEqual

from environments.database.expressions import Rule, Ruled, moment

REASON_LENGTH = 200
WITHOUT_STATE = "A reason and an end belong to something that is disabled or draining."
HAS_PASSED = "This moment has passed: choose one to come, or none."
#: The columns that are one decision: whoever writes one of them writes all.
STATE_FIELDS = frozenset({"is_draining", "is_disabled", "state_reason", "state_ends_at"})


class State(StrEnum):
    """What holds of a worker or a queue at a moment."""

    ENABLED = "Enabled"
    DRAINING = "Draining"
    DISABLED = "Disabled"


def check_one_line(text: str) -> None:
    """ValidationError for line breaks and characters that do not show: refusals and logs repeat the text."""
    if not text.isprintable():
        msg = "Use one line of text, without control characters."
        raise ValidationError(msg)


def state_reason() -> models.CharField:  # type: ignore[type-arg]  # Django's fields are not generic when run
    """The column that says why something is disabled or draining."""
    told = "Why it is disabled or draining; told wherever that refuses something."
    fixed: dict[str, Any] = {"max_length": REASON_LENGTH, "blank": True, "default": "", "validators": [check_one_line]}
    return models.CharField("reason", help_text=told, **fixed)


def state_ends_at() -> models.DateTimeField:  # type: ignore[type-arg]  # as above
    """The column that says until when something is disabled or draining."""
    told = "When that ends by itself, in UTC; empty for no end."
    return models.DateTimeField("until", null=True, blank=True, help_text=told)


class ToldState(models.CheckConstraint):
    """A reason and an end say something of a state, and so are not there without one; a row is checked as it is."""

    def validate(
        self,
        model: type[models.Model],  # noqa: ARG002  # Django's signature
        instance: Any,
        exclude: Any = None,
        using: str = DEFAULT_DB_ALIAS,  # noqa: ARG002  # as above
    ) -> None:
        """Without asking the database, as Django would for each row of a document."""
        told = {"state_reason": instance.state_reason, "state_ends_at": instance.state_ends_at}
        is_told = any(told[name] for name in told.keys() - (exclude or set()))
        if is_told and not (instance.is_disabled or instance.is_draining):
            raise ValidationError(self.get_violation_error_message())


def state_check() -> ToldState:
    """The constraint of a model that has a state."""
    return ToldState(
        condition=Q(state_reason="", state_ends_at=None) | Q(is_disabled=True) | Q(is_draining=True),
        name="%(app_label)s_%(class)s_state_is_told",
        violation_error_message=WITHOUT_STATE,
    )


class HasState(models.Model):
    """What can be disabled and draining; one reason and one end are for both."""

    state_ends_at: Any  # as the models have it

    class Meta:
        abstract = True

    def state_at(self, now: datetime) -> State:
        """What holds then of what is stored."""
        if self.state_ends_at is not None and self.state_ends_at <= now:
            return State.ENABLED
        if self.is_disabled:
            return State.DISABLED
        return State.DRAINING if self.is_draining else State.ENABLED

    def forget_ended(self, now: datetime) -> None:
        """Sets the row to what holds, so that what somebody changes is told beside that; it is not saved."""
        if self.state_ends_at is not None and self.state_ends_at <= now:
            self.is_disabled = self.is_draining = False
            self.state_reason, self.state_ends_at = "", None

    @property
    def end(self) -> str:
        """When it ends, as a sentence to be put after another one; "" without an end."""
        return f" This ends by itself at {self.state_ends_at:%Y-%m-%d %H:%M:%S} UTC." if self.state_ends_at else ""

    @property
    def why(self) -> str:
        """The end and the reason, to be put after what was refused for it; "" where neither is told."""
        return f"{self.end} The reason: {self.state_reason}" if self.state_reason else self.end


def decision(state: State, *, reason: str = "", until: datetime | None = None) -> dict[str, Any]:
    """The columns of a decision, all of them: what an earlier one said does not outlive it."""
    return {
        "is_disabled": state is State.DISABLED,
        "is_draining": state is State.DRAINING,
        "state_reason": reason,
        "state_ends_at": until,
    }


def check_is_to_come(row: HasState, now: datetime) -> None:
    """ValidationError when somebody gave a row, from which what ended was taken out, an end that has passed."""
    if row.state_ends_at is not None and row.state_ends_at <= now:
        raise ValidationError({"state_ends_at": HAS_PASSED})


def whole_decision(names: Iterable[str]) -> set[str]:
    """The columns to write where these changed: of a decision all, as what ended of one before may still be stored."""
    changed = set(names)
    return changed.union(STATE_FIELDS) if changed.intersection(STATE_FIELDS) else changed


def not_disabled(now: datetime | Value, *levels: str) -> Q:
    """That nothing which the lookup prefixes lead to ("" for the row itself) is disabled."""
    return Q(*(Q(**{f"{level}is_disabled": False}) | _has_ended(now, level) for level in levels))


def enabled(now: datetime | Value, *levels: str) -> Q:
    """The same of both disabled and draining."""
    return Q(
        *(
            Q(**{f"{level}is_disabled": False, f"{level}is_draining": False}) | _has_ended(now, level)
            for level in levels
        )
    )


def state_of(now: datetime | Value) -> Ruled:
    """What `state_at` tells, as text."""
    return STATE({**{name: name for name in ("state_ends_at", "is_disabled", "is_draining")}, "now": moment(now)})


def _state(*, now: Any, state_ends_at: Any, is_disabled: Any, is_draining: Any) -> Case:
    return Case(
        When(LessThanOrEqual(state_ends_at, now), then=Value(State.ENABLED)),
        When(Exact(is_disabled, rhs=True), then=Value(State.DISABLED)),
        When(Exact(is_draining, rhs=True), then=Value(State.DRAINING)),
        default=Value(State.ENABLED),
        output_field=models.CharField(),
    )


STATE = Rule(
    _state,
    models.CharField(),
    now=models.DateTimeField(),
    state_ends_at=models.DateTimeField(),
    is_disabled=models.BooleanField(),
    is_draining=models.BooleanField(),
)


def _has_ended(now: datetime | Value, level: str) -> Q:
    return Q(**{f"{level}state_ends_at__lte": now})
