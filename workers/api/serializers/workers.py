"""The shapes of what workers send and are answered; a secret is revealed into the answer to a start."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from drf_spectacular.drainage import set_override
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from environments.encryption import Secret
from environments.endpoints.hosts import UnusableError
from environments.endpoints.rules import read_url
from workers.configuration.effective import WorkerConfiguration
from workers.installation.queue import WORKER_SDK_VERSION
from workers.lifecycle.starts import Started
from workers.models import Activity
from workers.models.instances import ACTIVITY_LENGTH, CUT, LOG_LINES

LARGEST_INTEGER = 2**63 - 1
LONGEST_URL = 500
KNOWN_WORDS = "active, idle or busy; another word is kept, and taken for active."
ENVIRONMENT_NAME = "`environment` or `organization.environment`."


class _Optional:
    """A field that may be missing or null, both of which are read as its default."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"required": False, "allow_null": True, **kwargs})

    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        """DRF's, to which null is a value."""
        found: tuple[bool, Any] = super().validate_empty_values(serializers.empty if data is None else data)  # type: ignore[misc]  # of the field that this is mixed into
        return found


class OptionalInteger(_Optional, serializers.IntegerField):
    """A number that has to be right if it is there."""


class FreeInteger(OptionalInteger):
    """A number for people to read: one that cannot be kept is read as missing."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """The number or the default; nothing is refused."""
        try:
            return super().run_validation(data)
        except serializers.ValidationError:
            return self.get_default()


class FreeText(_Optional, serializers.CharField):
    """Text for people to read, "" is read as missing: whatever else is told is kept as the JSON that it is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"default": "", "allow_blank": True, "trim_whitespace": False, **kwargs})

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """The text or the default; nothing is refused."""
        return super().run_validation(serializers.empty if data == "" else data)

    def to_internal_value(self, data: Any) -> str:
        return _as_text(data)


class KeptObject(serializers.DictField):
    """An object of which no member is looked at: the parser has cut each already."""

    def run_child_validation(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """All of it."""
        return dict(data)


class FreeObject(_Optional, serializers.DictField):
    """An object for people to read; anything else that is told leaves the note that it was none."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"default": dict, **kwargs})

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict):
            return data
        return {CUT: ["all of it: it is no object"]} if data not in ("", []) else {}


class NameField(serializers.CharField):
    """A text that is needed; DRF's would take a number for one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"min_length": 1, "trim_whitespace": False, **kwargs})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


ACTIVITIES = frozenset(Activity.values)


class ActivityField(FreeText):
    """What a process says that it does: one of the known words in any case, or another one, which is kept."""

    def to_internal_value(self, data: Any) -> str:
        told = super().to_internal_value(data)
        return told.lower() if told.lower() in ACTIVITIES else told[:ACTIVITY_LENGTH]


class LogLinesField(_Optional, serializers.ListField):
    """The last lines that are told; a text is taken for its lines, and what is no text for a line."""

    child = serializers.CharField()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"default": list, **kwargs})

    def to_internal_value(self, data: Any) -> list[str]:
        lines = data.splitlines() if isinstance(data, str) else data if isinstance(data, list) else [data]
        return [_as_text(line) for line in lines if line is not None][-LOG_LINES:]


def _as_text(told: Any) -> str:
    return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)


class ToldSerializer(serializers.Serializer[dict[str, Any]]):
    """The members of what a worker tells, each under its own name.

    DRF's own loop looks for each in forms, too, and for validators that none has: it takes as long as the parsing.
    """

    @cached_property
    def _members(self) -> list[tuple[str, Any]]:
        return list(self.fields.items())

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """DRF's, but for what is no part of these."""
        if not isinstance(data, dict):
            return super().run_validation(data)
        found, errors = {}, {}
        for name, field in self._members:
            if name not in data and field.default is not serializers.empty:
                found[name] = field.default() if callable(field.default) else field.default
                continue
            try:
                found[name] = field.run_validation(data.get(name, serializers.empty))
            except serializers.ValidationError as error:
                errors[name] = error.detail
        if errors:
            raise serializers.ValidationError(errors)
        return found


# --- Starts ---


@extend_schema_serializer(component_name="WorkerStartRequest")
class WorkerStartRequestSerializer(ToldSerializer):
    """Request to start a worker and fetch its config"""  # noqa: D400, D415  # the contract's words

    system_info = KeptObject(default=dict)


@extend_schema_serializer(component_name="WorkerQueueStartRequest")
class QueueStartRequestSerializer(ToldSerializer):
    """What a worker that knows only its queue tells of itself."""

    worker_sdk_version = FreeText()
    system_info = FreeObject()
    control_plane_url = FreeText(help_text="The URL by which the worker reaches the control plane.")


@extend_schema_serializer(component_name="WorkerRegisterRequest")
class RegisterRequestSerializer(ToldSerializer):
    """What a worker that knows only its environment tells of itself."""

    environment_name = NameField(help_text=ENVIRONMENT_NAME)
    hostname = FreeText()
    worker_metadata = FreeObject()
    system_info = FreeObject(help_text="Beyond the contract: what tells the process from others, as at a start.")


class SecretField(serializers.CharField):
    """Reveals a secret into the response."""

    def to_representation(self, value: Secret) -> str:  # type: ignore[override]  # it takes a Secret, not text
        return value.reveal()


@extend_schema_serializer(component_name="WorkerConfigResponse")
class WorkerConfigResponseSerializer(serializers.Serializer[Any]):
    """Worker configuration response"""  # noqa: D400, D415  # the contract's words

    worker_id = serializers.CharField()
    worker_queue_name = serializers.CharField()
    environment_name = serializers.CharField()
    task_queue_name = serializers.CharField()
    temporal_namespace = serializers.CharField()
    temporal_host = serializers.CharField()
    temporal_api_key = SecretField()
    organization_id = serializers.CharField()
    control_plane_url = serializers.CharField()
    heartbeat_interval = serializers.IntegerField(default=60)
    litellm_api_url = serializers.CharField()
    litellm_api_key = SecretField()
    otel_enabled = serializers.BooleanField(default=True)
    otel_exporter_otlp_endpoint = serializers.CharField(allow_null=True, required=False)
    otel_service_name = serializers.CharField(default="agent-control-plane-worker")
    otel_traces_sampler = serializers.CharField(default="parentbased_always_on")
    otel_traces_sampler_arg = serializers.FloatField(allow_null=True, required=False)

    def to_representation(self, instance: WorkerConfiguration[Secret]) -> dict[str, Any]:
        """The configuration has these fields in this order and in their types already."""
        return {name: value.reveal() if isinstance(value, Secret) else value for name, value in vars(instance).items()}


class Fixed(serializers.Field):  # type: ignore[type-arg]  # DRF's fields are not generic when run
    """A member that clients expect for a part of the hosted product that this control plane does not have."""

    def __init__(self, value: Any) -> None:
        super().__init__(source="*", read_only=True)
        self.value = value
        kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
        schema = {"type": kinds.get(type(value), ["string", "null"])}
        set_override(self, "field", schema | ({"items": {"type": "string"}} if value == [] else {}))

    def to_representation(self, value: Any) -> Any:  # noqa: ARG002  # it is the same for every row
        return self.value


@extend_schema_serializer(component_name="WorkerQueueStartResponse")
class QueueStartResponseSerializer(serializers.Serializer[Started]):
    """What a worker that started in a queue is given; Redis, WebSocket and NATS are parts that do not exist here."""

    worker_id = serializers.UUIDField(source="worker.id")
    task_queue_name = serializers.CharField(source="configuration.task_queue_name")
    temporal_namespace = serializers.CharField(source="configuration.temporal_namespace")
    temporal_host = serializers.CharField(source="configuration.temporal_host")
    temporal_api_key = SecretField(source="configuration.temporal_api_key")
    organization_id = serializers.CharField(source="configuration.organization_id")
    control_plane_url = serializers.CharField(source="configuration.control_plane_url")
    heartbeat_interval = serializers.IntegerField(source="configuration.heartbeat_interval")
    litellm_api_url = serializers.CharField(source="configuration.litellm_api_url")
    litellm_api_key = SecretField(source="configuration.litellm_api_key")
    queue_name = serializers.CharField(source="configuration.worker_queue_name")
    environment_name = serializers.CharField(source="configuration.environment_name")
    queue_id = serializers.UUIDField(source="worker.queue_id")
    #: What the existing worker that this control plane was tried with calls itself.
    control_plane_sdk_version = Fixed(WORKER_SDK_VERSION)
    queue_ephemeral = Fixed(value=False)
    queue_single_execution = Fixed(value=False)
    redis_url = Fixed(None)
    redis_password = Fixed(None)
    redis_enabled = Fixed(value=False)
    websocket_enabled = Fixed(value=False)
    websocket_url = Fixed(None)
    websocket_features = Fixed([])
    nats_config = Fixed(None)


@extend_schema_serializer(component_name="WorkerRegisterResponse")
class RegisterResponseSerializer(serializers.Serializer[Started]):
    """What a worker that registered in an environment is given."""

    worker_id = serializers.UUIDField(source="worker.id")
    worker_token = serializers.SerializerMethodField(help_text="The API key of this request, to go on with.")
    environment_name = serializers.SerializerMethodField()
    temporal_namespace = serializers.CharField(source="configuration.temporal_namespace")
    temporal_host = serializers.CharField(source="configuration.temporal_host")
    temporal_api_key = SecretField(source="configuration.temporal_api_key")
    organization_id = serializers.CharField(source="configuration.organization_id")
    control_plane_url = serializers.CharField(source="configuration.control_plane_url")

    def get_worker_token(self, _started: Started) -> str:
        """The key that the caller sent: a key that could make others would outlive its own revocation in them."""
        presented: Secret = self.context["presented_key"]
        return presented.reveal()

    def get_environment_name(self, started: Started) -> str:
        return f"{started.configuration.organization_id}.{started.configuration.environment_name}"


def http_url(text: str) -> str | None:
    """The URL without its trailing slash, or None for what is no http(s) URL of a host: no user, query or fragment."""
    try:
        read_url(text[: LONGEST_URL + 1])
    except UnusableError:
        return None
    return text.rstrip("/") if len(text) <= LONGEST_URL else None


# --- While it runs ---


@extend_schema_serializer(component_name="WorkerHeartbeatSimple")
class LightHeartbeatSerializer(ToldSerializer):
    """What every heartbeat tells."""

    status = ActivityField(default=Activity.ACTIVE, help_text=KNOWN_WORDS)
    tasks_processed = FreeInteger(default=0, min_value=0, max_value=LARGEST_INTEGER)
    current_task_id = FreeText()
    worker_metadata = FreeObject()


@extend_schema_serializer(component_name="WorkerHeartbeatRequest")
class HeartbeatRequestSerializer(LightHeartbeatSerializer):
    """A heartbeat; without `system_info` and `logs` it is a light one, and the last ones are kept."""

    system_info = FreeObject()
    logs = LogLinesField(help_text=f"The last {LOG_LINES} lines are kept.")


@extend_schema_serializer(component_name="WorkerHeartbeatInEnvironment")
class SimpleHeartbeatRequestSerializer(LightHeartbeatSerializer):
    """A light heartbeat that names the worker and its environment."""

    worker_id = NameField()
    environment_name = NameField(help_text=ENVIRONMENT_NAME)


@extend_schema_serializer(component_name="WorkerDisconnectRequest")
class DisconnectRequestSerializer(ToldSerializer):
    """Why a worker ends."""

    reason = FreeText(default="shutdown")
    exit_code = FreeInteger(default=None, min_value=-LARGEST_INTEGER, max_value=LARGEST_INTEGER)
    error_message = FreeText(help_text="Kept to 2,000 characters.")
    system_info = FreeObject(help_text="With `hostname` and `pid` as at the start it says which process ends.")
