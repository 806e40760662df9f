"""What a process does, from both sides: whether it beats, which liveness tells, and whether Temporal sees it poll.

It is an SQL expression, as liveness is, and the one place of the rule. Without a fresh observation nothing is claimed.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.db import models
from django.db.models import Case, Expression, ExpressionWrapper, Q, Value, When
from django.db.models.functions import Coalesce
from django.db.models.lookups import Exact, GreaterThan, GreaterThanOrEqual, In

from environments.database.expressions import Rule, Ruled, moment
from workers.models.instances import Activity, InstanceQuerySet
from workers.models.liveness import LIVE, Liveness
from workers.models.observations import FRESH_FOR

#: For so long after its start a process need not poll yet.
STARTS_WITHIN = timedelta(minutes=2)


class Work(StrEnum):
    """What a process is seen to do; stored nowhere."""

    WORKING = "Working"
    NOT_POLLING = "Not polling"
    CUT_OFF = "Cut off"
    #: Nothing is known of it from Temporal, or it is no wonder that it does not poll.
    UNKNOWN = ""


#: What is amiss, in a sentence for people.
MEANINGS = {
    Work.WORKING: "It beats, and Temporal sees it poll.",
    Work.NOT_POLLING: "It beats, but Temporal does not see it poll, so it takes no tasks: look at its log, restart it.",
    Work.CUT_OFF: "It polls Temporal and works, but does not reach the control plane: look at its network and API key.",
}


def with_work(instances: InstanceQuerySet, now: datetime | Value) -> InstanceQuerySet:
    """Instances that are loaded with their liveness, each with its `work`.

    Observations are found by the ids of instances and queues.
    """
    return instances.annotate(work=work_of("", now))


def work_of(instance: str, now: datetime | Value) -> Ruled:
    """The work of the instance that the lookup prefix `instance` leads to, beside an annotation `liveness`, as text."""
    own = {name: f"{instance}{name}" for name in ("started_at", "activity", "current_task_id")}
    seen = {name: f"{instance}observation__{name}" for name in ("observed_at", "is_polling", "is_full")}
    of_queue = {"queue_observed_at": f"{instance}observation__queue__observed_at"}
    return WORK({**own, **seen, **of_queue, "liveness": "liveness", "now": moment(now)})


def _work(  # noqa: PLR0913  # all that it depends on
    *,
    now: Any,
    liveness: Any,
    started_at: Any,
    activity: Any,
    current_task_id: Any,
    is_polling: Any,
    is_full: Any,
    **observed_at: Any,
) -> Case:
    seen_at = Coalesce(*observed_at.values())
    is_fresh = Q(GreaterThan(seen_at, _later(now, -FRESH_FOR)))
    had_time = Q(GreaterThanOrEqual(seen_at, _later(started_at, STARTS_WITHIN)))
    is_free = Q(Exact(current_task_id, "")) & ~Q(Exact(activity, Activity.BUSY))
    is_live, polls = Q(In(liveness, LIVE)), Q(Exact(is_polling, rhs=True))
    is_idle = had_time & Q(Exact(is_polling, rhs=False)) & Q(Exact(is_full, rhs=False)) & is_free
    has_ended = Q(In(liveness, (Liveness.OFFLINE, Liveness.STOPPED)))
    return Case(
        When(is_fresh & polls & is_live, then=Value(Work.WORKING)),
        When(is_fresh & polls & has_ended, then=Value(Work.CUT_OFF)),
        When(is_fresh & is_idle & is_live, then=Value(Work.NOT_POLLING)),
        default=Value(Work.UNKNOWN),
        output_field=models.CharField(),
    )


def _later(moment: Any, later: timedelta) -> Expression:
    duration = Value(later, output_field=models.DurationField())
    return ExpressionWrapper(moment + duration, models.DateTimeField())


WORK = Rule(
    _work,
    models.CharField(),
    now=models.DateTimeField(),
    liveness=models.CharField(),
    started_at=models.DateTimeField(),
    activity=models.CharField(),
    current_task_id=models.CharField(),
    is_polling=models.BooleanField(),
    is_full=models.BooleanField(),
    observed_at=models.DateTimeField(),
    queue_observed_at=models.DateTimeField(),
)
