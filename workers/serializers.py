"""The shapes of what workers send and are answered; beside `environments.encryption` the only revealer of secrets."""

import re
from typing import Any
from urllib.parse import urlsplit

from drf_spectacular.drainage import set_override
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from environments.encryption import Secret
from workers.api_keys import IssuedApiKey
from workers.configuration import WorkerConfiguration
from workers.installation import WORKER_SDK_VERSION
from workers.lifecycle.starts import Started
from workers.models import Activity

LARGEST_INTEGER = 2**63 - 1
LONGEST_URL = 500
URL = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~!$&()*+,;=:@%/-]*)?", re.IGNORECASE)
ENVIRONMENT_NAME = "`environment` or `organization.environment`."


class OptionalText(serializers.CharField):
    """Text that may be missing, null or empty, all of which are read as the default."""

    def __init__(self, **kwargs: Any) -> None:
        fixed: dict[str, Any] = {"required": False, "allow_null": True, "allow_blank": True, "trim_whitespace": False}
        super().__init__(**{**fixed, "default": "", **kwargs})

    def run_validation(self, data: Any = serializers.empty) -> Any:
        return super().run_validation(serializers.empty if data in (None, "") else data)


class OptionalObject(serializers.DictField):
    """An object that may be missing or null, both of which are read as an empty one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"required": False, "allow_null": True, "default": dict, **kwargs})

    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        return super().validate_empty_values(serializers.empty if data is None else data)


# --- Starts ---


@extend_schema_serializer(component_name="WorkerStartRequest")
class WorkerStartRequestSerializer(serializers.Serializer[dict[str, Any]]):
    """Request to start a worker and fetch its config"""  # noqa: D400, D415  # the contract's words

    system_info = serializers.DictField(default=dict)


@extend_schema_serializer(component_name="WorkerQueueStartRequest")
class QueueStartRequestSerializer(serializers.Serializer[dict[str, Any]]):
    """What a worker that knows only its queue tells of itself."""

    worker_sdk_version = OptionalText()
    system_info = OptionalObject()
    control_plane_url = OptionalText(help_text="The URL by which the worker reaches the control plane.")


@extend_schema_serializer(component_name="WorkerRegisterRequest")
class RegisterRequestSerializer(serializers.Serializer[dict[str, Any]]):
    """What a worker that knows only its environment tells of itself."""

    environment_name = serializers.CharField(min_length=1, trim_whitespace=False, help_text=ENVIRONMENT_NAME)
    hostname = OptionalText()
    worker_metadata = OptionalObject()


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
        kinds = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
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
    control_plane_url = serializers.SerializerMethodField()
    heartbeat_interval = serializers.IntegerField(source="configuration.heartbeat_interval")
    litellm_api_url = serializers.CharField(source="configuration.litellm_api_url")
    litellm_api_key = SecretField(source="configuration.litellm_api_key")
    queue_name = serializers.CharField(source="configuration.worker_queue_name")
    environment_name = serializers.CharField(source="configuration.environment_name")
    queue_id = serializers.UUIDField(source="worker.queue_id")
    control_plane_sdk_version = serializers.SerializerMethodField()
    queue_ephemeral = Fixed(value=False)
    queue_single_execution = Fixed(value=False)
    redis_url = Fixed(None)
    redis_password = Fixed(None)
    redis_enabled = Fixed(value=False)
    websocket_enabled = Fixed(value=False)
    websocket_url = Fixed(None)
    websocket_features = Fixed([])
    nats_config = Fixed(None)

    def get_control_plane_sdk_version(self, _started: Started) -> str:
        """What the existing worker that this control plane was tried with calls itself."""
        return WORKER_SDK_VERSION

    def get_control_plane_url(self, started: Started) -> str:
        """The caller's own URL, which is the one that works from where it runs, or the one of the settings."""
        return http_url(self.context["own_url"]) or started.configuration.control_plane_url


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
    if len(text) > LONGEST_URL or not URL.fullmatch(text):
        return None
    try:
        parts = urlsplit(text)
        is_url = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return text.rstrip("/") if is_url else None


# --- While it runs ---


@extend_schema_serializer(component_name="WorkerHeartbeatSimple")
class LightHeartbeatSerializer(serializers.Serializer[dict[str, Any]]):
    """What every heartbeat tells."""

    status = serializers.ChoiceField(Activity.choices, default=Activity.ACTIVE)
    tasks_processed = serializers.IntegerField(default=0, min_value=0, max_value=LARGEST_INTEGER)
    current_task_id = OptionalText()
    worker_metadata = OptionalObject()


@extend_schema_serializer(component_name="WorkerHeartbeatRequest")
class HeartbeatRequestSerializer(LightHeartbeatSerializer):
    """A heartbeat; without `system_info` and `logs` it is a light one, and the last ones are kept."""

    system_info = OptionalObject()
    logs = serializers.ListField(
        child=serializers.CharField(allow_blank=True, trim_whitespace=False), default=list, allow_null=True
    )

    def validate_logs(self, logs: list[str] | None) -> list[str]:
        return logs or []


@extend_schema_serializer(component_name="WorkerHeartbeatInEnvironment")
class SimpleHeartbeatRequestSerializer(LightHeartbeatSerializer):
    """A light heartbeat that names the worker and its environment."""

    worker_id = serializers.CharField(min_length=1, trim_whitespace=False)
    environment_name = serializers.CharField(min_length=1, trim_whitespace=False, help_text=ENVIRONMENT_NAME)


@extend_schema_serializer(component_name="WorkerDisconnectRequest")
class DisconnectRequestSerializer(serializers.Serializer[dict[str, Any]]):
    """Why a worker ends."""

    reason = OptionalText(default="shutdown")
    exit_code = serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=-LARGEST_INTEGER, max_value=LARGEST_INTEGER
    )
    error_message = OptionalText(help_text="Kept to 2,000 characters.")
    system_info = OptionalObject(help_text="With `hostname` and `pid` as at the start it says which process ends.")


# --- API keys ---


def issued_key(issued: IssuedApiKey) -> dict[str, Any]:
    """A new API key in plain text with what tells it apart, for the one page or command output that shows it."""
    row = issued.row
    return {
        "id": str(row.pk),
        "name": row.name,
        "organization_id": row.organization_id,
        "scope": row.scope,
        "target": str(row.target),
        "expires_at": row.expires_at and row.expires_at.isoformat(),
        "api_key": issued.token.reveal(),
    }
