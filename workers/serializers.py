"""The shapes of the worker API; with `environments.encryption` the only place that reveals a secret."""

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from environments.encryption import Secret
from workers.api_keys import IssuedApiKey


@extend_schema_serializer(component_name="WorkerStartRequest")
class WorkerStartRequestSerializer(serializers.Serializer[dict[str, Any]]):
    """Request to start a worker and fetch its config"""  # noqa: D400, D415  # the contract's words

    system_info = serializers.DictField(default=dict)


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
