"""What clients send to create and change environments and worker queues; members that are not known are ignored."""

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from workers.api.serializers.exact import (
    Description,
    ExactText,
    FreeJSON,
    Moment,
    PointingSerializer,
    Tags,
    Unsettable,
    WholeNumber,
)
from workers.api.serializers.queues import QUEUE_STATUSES, queue_status
from workers.models import WorkerQueue
from workers.models.states import decision

#: What existing clients' words for a queue's state mean.
STATES = {word: state for state, word in QUEUE_STATUSES.items()}
#: Members of the command line, and what they are of the execution environment.
FLAT = {"variables": "env_vars", "secrets": "secrets", "integrations": "integration_ids"}


class LevelSerializer(PointingSerializer):
    """What environments and queues have in common."""

    name = ExactText()
    display_name = Unsettable()
    description = Description()
    tags = Tags()
    settings = FreeJSON()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The members as columns: null is none of whatever it is."""
        empty: dict[str, Any] = {"display_name": "", "description": "", "tags": [], "settings": {}}
        return attrs | {name: none for name, none in empty.items() if name in attrs and attrs[name] is None}


@extend_schema_serializer(component_name="EnvironmentUpdate")
class EnvironmentChangeSerializer(LevelSerializer):
    """Members of an environment that are to change; "" and null as `status` leave it."""

    status = serializers.ChoiceField(["active", ""], required=False, allow_null=True, allow_blank=True)
    execution_environment = FreeJSON()
    variables = serializers.DictField(child=ExactText(allow_blank=True), required=False, allow_null=True)
    secrets = Tags(help_text="Names, never values.")
    integrations = Tags()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """What the command line sends flat becomes part of the execution environment, of which the rest stays."""
        attrs = super().validate(attrs)
        attrs.pop("status", None)
        flat = {FLAT[name]: value for name in FLAT if (value := attrs.pop(name, None)) is not None}
        if "execution_environment" in attrs:
            given = attrs["execution_environment"] or {}
            attrs["execution_environment"] = {name: given[name] for name in given if given[name] is not None}
        return attrs | ({"flat": flat} if flat else {})


@extend_schema_serializer(component_name="EnvironmentCreate")
class EnvironmentCreateSerializer(EnvironmentChangeSerializer):
    """A new environment."""

    name = ExactText(required=True)


@extend_schema_serializer(component_name="WorkerQueueUpdate")
class QueueChangeSerializer(LevelSerializer):
    """Members of a queue that are to change; "" and null as `status` leave it."""

    max_workers = WholeNumber(required=False, allow_null=True)
    heartbeat_interval = WholeNumber(required=False)
    status = serializers.ChoiceField([*STATES, ""], required=False, allow_null=True, allow_blank=True)
    state_reason = Unsettable(help_text="Why it is inactive or paused; refusals tell it. Another status takes it away.")
    state_ends_at = Moment(
        required=False, allow_null=True, help_text="When that ends by itself. Another status takes it away."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The members as columns."""
        attrs = super().validate(attrs)
        return attrs | ({"state_reason": ""} if attrs.get("state_reason", "") is None else {})


@extend_schema_serializer(component_name="WorkerQueueCreate")
class QueueCreateSerializer(QueueChangeSerializer):
    """A new worker queue."""

    name = ExactText(required=True)


def environment_values(told: dict[str, Any], execution_environment: dict[str, Any]) -> dict[str, Any]:
    """The columns that a body changes; what it tells flat goes into the execution environment that there is."""
    flat = told.pop("flat", {})
    whole = told.get("execution_environment", execution_environment)
    return told | ({"execution_environment": whole | flat} if flat else {})


def queue_values(told: dict[str, Any], queue: WorkerQueue | None = None) -> dict[str, Any]:
    """The columns that a body changes; the word for the state that the queue is in leaves what was decided."""
    status = told.pop("status", None)
    is_same = queue is not None and status == queue_status(queue)
    return told if not status or is_same else decision(STATES[status]) | told
