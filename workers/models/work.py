"""What a process does, from both sides: whether it beats, which liveness tells, and whether Temporal sees it poll.

It is an SQL expression, as liveness is, and the one place of the rule. Without a fresh observation nothing is claimed.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from django.db import models
from django.db.models import Case, Expression, ExpressionWrapper, F, Q, Value, When
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThan, GreaterThanOrEqual

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


def work_of(instance: str, now: datetime | Value) -> Case:
    """The work of the instance that the lookup prefix `instance` leads to, beside an annotation `liveness`, as text."""
    moment = now if isinstance(now, Value) else Value(now, output_field=models.DateTimeField())
    seen = f"{instance}observation__"
    observed_at = Coalesce(F(f"{seen}observed_at"), F(f"{seen}queue__observed_at"))
    is_fresh = Q(GreaterThan(observed_at, _moment(moment, -FRESH_FOR)))
    had_time = Q(GreaterThanOrEqual(observed_at, _moment(F(f"{instance}started_at"), STARTS_WITHIN)))
    is_busy = Q(**{f"{instance}activity": Activity.BUSY}) | ~Q(**{f"{instance}current_task_id": ""})
    is_live, is_polling = Q(liveness__in=LIVE), Q(**{f"{seen}is_polling": True})
    is_idle = had_time & Q(**{f"{seen}is_polling": False, f"{seen}is_full": False}) & ~is_busy
    has_ended = Q(liveness__in=(Liveness.OFFLINE, Liveness.STOPPED))
    return Case(
        When(is_fresh & is_polling & is_live, then=Value(Work.WORKING)),
        When(is_fresh & is_polling & has_ended, then=Value(Work.CUT_OFF)),
        When(is_fresh & is_idle & is_live, then=Value(Work.NOT_POLLING)),
        default=Value(Work.UNKNOWN),
        output_field=models.CharField(),
    )


def _moment(moment: Expression | F, later: timedelta) -> Expression:
    duration = Value(later, output_field=models.DurationField())
    return ExpressionWrapper(moment + duration, models.DateTimeField())
