"""The shapes of what managers make beside environments and worker queues, and of what a change would do."""

from functools import cache
from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from environments.models import CredentialConnection, Membership, Role
from workers.api.serializers.exact import (
    Description,
    ExactFields,
    ExactText,
    Id,
    Moment,
    Name,
    PointingSerializer,
    Truth,
    Unsettable,
    WholeNumber,
)
from workers.api.serializers.queues import PointersSerializer
from workers.api_keys.issuing import (
    DEFAULT_GRACE_PERIOD,
    DEFAULT_LIFETIME,
    LONGEST_GRACE_PERIOD,
    LONGEST_LIFETIME,
    NAME_LENGTH,
    REASON_LENGTH,
)
from workers.fleet.kinds import Kind
from workers.fleet.outlook import Outlook
from workers.models import KeyRole, Liveness, Scope, State
from workers.reports.registered import KEY_STATES, DescribedKey

HOURS = 3600


class OrganizationUpdateSerializer(PointingSerializer):
    """Members of the organization that are to change."""

    name = Name()


@extend_schema_serializer(component_name="Organization")
class OrganizationSerializer(PointersSerializer):
    """The organization of the key, and what it points to for all that points to nothing itself."""

    id = serializers.CharField(source="row.id")
    name = serializers.CharField(source="row.name")
    created_at = serializers.DateTimeField(source="row.created_at")


# --- Workers ---


class StateSerializer(serializers.Serializer[dict[str, Any]]):
    """What a person decides about a worker."""

    is_disabled = Truth(required=False, help_text="It cannot start, and running processes are told to end.")
    is_draining = Truth(required=False, help_text="Running processes go on and finish; none starts again.")
    state_reason = Unsettable(help_text="Why; refusals tell it. Another decision takes it away.")
    state_ends_at = Moment(
        required=False, allow_null=True, help_text="When that ends by itself. Another decision takes it away."
    )


@extend_schema_serializer(component_name="WorkerUpdate")
class WorkerChangeSerializer(StateSerializer, PointingSerializer):
    """Members of a worker that are to change."""

    name = ExactText()
    queue_id = Id(required=False, help_text="It can be another one while no process of the worker lives.")
    description = Description()
    labels = Unsettable(help_text="Words parted by commas. Empty or null: none.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Null is no text."""
        return attrs | {
            name: "" for name in ("description", "labels", "state_reason") if name in attrs and attrs[name] is None
        }


@extend_schema_serializer(component_name="WorkerCreate")
class WorkerCreateSerializer(WorkerChangeSerializer):
    """A new worker."""

    name = ExactText(required=True)
    queue_id = Id()


@extend_schema_serializer(component_name="RegisteredWorker")
class WorkerSerializer(PointersSerializer):
    """A worker as it was set up, and how it is by its latest process."""

    id = serializers.UUIDField(source="row.id")
    organization_id = serializers.CharField(source="row.organization_id")
    environment_id = serializers.UUIDField(source="row.queue.environment_id")
    queue_id = serializers.UUIDField(source="row.queue_id")
    name = serializers.CharField(source="row.name")
    description = serializers.CharField(source="row.description")
    labels = serializers.CharField(source="row.labels")
    is_disabled = serializers.BooleanField(source="row.is_disabled")
    is_draining = serializers.BooleanField(source="row.is_draining")
    state = serializers.ChoiceField([str(one) for one in State], source="row.state", help_text="What holds now.")
    state_reason = serializers.CharField(source="row.state_reason")
    state_ends_at = serializers.DateTimeField(source="row.state_ends_at", allow_null=True)
    is_ephemeral = serializers.BooleanField(source="row.is_ephemeral")
    liveness = serializers.ChoiceField([str(one) for one in Liveness], source="row.liveness")
    task_queue_name = serializers.CharField(source="row.queue.task_queue_name")
    created_at = serializers.DateTimeField(source="row.created_at")
    updated_at = serializers.DateTimeField(source="provenance.updated_at")
    created_by = serializers.CharField(source="provenance.created_by", allow_null=True)


# --- API keys ---


@extend_schema_serializer(component_name="ApiKeyCreate")
class KeyCreateSerializer(serializers.Serializer[dict[str, Any]]):
    """A new API key: for a worker, a worker queue, an environment or, with none of these, the organization."""

    name = Name(required=True, max_length=NAME_LENGTH, help_text="What it is for.")
    role = serializers.ChoiceField(KeyRole.values, default=str(KeyRole.WORKER))
    environment_id = Id(required=False, allow_null=True)
    queue_id = Id(required=False, allow_null=True)
    worker_id = Id(required=False, allow_null=True)
    lifetime_days = WholeNumber(
        default=DEFAULT_LIFETIME.days,
        allow_null=True,
        min_value=1,
        max_value=LONGEST_LIFETIME.days,
        help_text="Null: it never expires, which takes a reason and a key that never expires itself.",
    )
    no_expiry_reason = ExactText(default="", allow_blank=True, max_length=REASON_LENGTH)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One target at most, and a reason for a key without end."""
        targets = [name for name in ("environment_id", "queue_id", "worker_id") if attrs.get(name)]
        if len(targets) > 1:
            raise serializers.ValidationError(dict.fromkeys(targets, "invalid"))
        if attrs["lifetime_days"] is None and not attrs["no_expiry_reason"].strip():
            raise serializers.ValidationError({"no_expiry_reason": "invalid"})
        if attrs.get("worker_id") and attrs["role"] == KeyRole.MANAGER:
            raise serializers.ValidationError({"role": "invalid"})
        return attrs


@extend_schema_serializer(component_name="ApiKeyRotation")
class RotationSerializer(serializers.Serializer[dict[str, Any]]):
    """For how long the key that is replaced stays good."""

    grace_hours = WholeNumber(
        default=int(DEFAULT_GRACE_PERIOD.total_seconds()) // HOURS,
        min_value=0,
        max_value=int(LONGEST_GRACE_PERIOD.total_seconds()) // HOURS,
    )


@extend_schema_serializer(component_name="ApiKeyRevocation")
class RevocationSerializer(serializers.Serializer[dict[str, Any]]):
    """Why the key ends."""

    reason = ExactText(required=True, max_length=REASON_LENGTH)

    def validate_reason(self, value: str) -> str:
        if not value.strip():
            raise serializers.ValidationError("blank", code="blank")  # noqa: EM101  # a code, not a message
        return value


@extend_schema_serializer(component_name="ApiKey")
class KeySerializer(serializers.Serializer[DescribedKey]):
    """An API key, without the key itself."""

    id = serializers.UUIDField(source="row.id")
    organization_id = serializers.CharField(source="row.organization_id")
    name = serializers.CharField(source="row.name")
    role = serializers.ChoiceField(KeyRole.values, source="row.role")
    scope = serializers.ChoiceField(Scope.values, source="row.scope")
    environment_id = serializers.UUIDField(source="row.environment_id", allow_null=True)
    queue_id = serializers.UUIDField(source="row.queue_id", allow_null=True)
    worker_id = serializers.UUIDField(source="row.worker_id", allow_null=True)
    state = serializers.ChoiceField(KEY_STATES)
    created_at = serializers.DateTimeField(source="row.created_at")
    created_by = serializers.CharField(source="row.created_by")
    expires_at = serializers.DateTimeField(source="row.expires_at", allow_null=True)
    no_expiry_reason = serializers.CharField(source="row.no_expiry_reason")
    revoked_at = serializers.DateTimeField(source="row.revoked_at", allow_null=True)
    revoke_reason = serializers.CharField(source="row.revoke_reason")
    replaced_by = serializers.UUIDField(source="row.replaced_by_id", allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True)


@extend_schema_serializer(component_name="IssuedApiKey")
class IssuedKeySerializer(KeySerializer):
    """A new API key with the key itself, this once."""

    api_key = serializers.CharField(help_text="The key; nothing stores it.")


# --- Connections ---


@cache
def connection_change_of(kind: Kind) -> type[serializers.Serializer[dict[str, Any]]]:
    """The body that changes a connection of this kind."""
    return _body_of(kind, is_new=False)


@cache
def connection_creation_of(kind: Kind) -> type[serializers.Serializer[dict[str, Any]]]:
    """The body that makes one."""
    return _body_of(kind, is_new=True)


def _body_of(kind: Kind, *, is_new: bool) -> type[serializers.Serializer[dict[str, Any]]]:
    members: dict[str, Any] = {"model": kind.model, "names": tuple(kind.fields), "is_new": is_new}
    members["__doc__"] = f"A new {kind.words}." if is_new else f"Members of {kind.words} that are to change."
    if kind.has_api_key:
        members["api_key"] = ExactText(help_text="Stored sealed and never answered.")
    made: Any = type(f"{kind.model.__name__}Body", (ExactFields,), members)
    name = f"{kind.model.__name__}{'Create' if is_new else 'Update'}"
    shape: type[serializers.Serializer[dict[str, Any]]] = extend_schema_serializer(component_name=name)(made)
    return shape


@cache
def connection_of(kind: Kind) -> type[serializers.Serializer[Any]]:
    """The shape of a connection of this kind, without its secret."""
    members: dict[str, Any] = {"kind": kind, "__doc__": f"A {kind.words}; its secret is never answered."}
    made: Any = type(f"{kind.model.__name__}Shown", (ConnectionSerializer,), members)
    shape: type[serializers.Serializer[Any]] = extend_schema_serializer(component_name=kind.model.__name__)(made)
    return shape


class ConnectionSerializer(serializers.Serializer[Any]):
    """What every kind of connection tells."""

    kind: Kind

    id = serializers.UUIDField()
    organization_id = serializers.CharField()
    created_at = serializers.DateTimeField()
    verified_at = serializers.DateTimeField(allow_null=True, help_text="Null: what is stored now never was.")
    verification_problem = serializers.CharField(help_text="Empty: none was found.")
    verification_latency_ms = serializers.IntegerField(allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        shown = {name: shown_field(field) for name, field in self.kind.fields.items()}
        if issubclass(self.kind.model, CredentialConnection):
            shown |= {
                "api_key_fingerprint": serializers.CharField(source="shown_fingerprint"),
                "api_key_version": serializers.IntegerField(),
                "api_key_set_at": serializers.DateTimeField(allow_null=True),
            }
        return {**super().get_fields(), **shown}

    def to_representation(self, instance: Any) -> Any:
        """What was verified before a change says nothing of what is stored now."""
        told = super().to_representation(instance)
        if instance.verified_revision != instance.endpoint_revision:
            told |= {"verified_at": None, "verification_problem": "", "verification_latency_ms": None}
        return told


def shown_field(field: Any) -> Any:
    """The member in which a field is answered."""
    kinds: dict[str, Any] = {
        "BooleanField": serializers.BooleanField,
        "FloatField": serializers.FloatField,
        "DateField": serializers.DateField,
    }
    if field.choices:
        return serializers.ChoiceField([value for value, _ in field.choices])
    return kinds.get(field.get_internal_type(), serializers.CharField)(**({"allow_null": True} if field.null else {}))


@extend_schema_serializer(component_name="ConnectionVerification")
class VerificationSerializer(serializers.Serializer[dict[str, Any]]):
    """What really connecting has shown."""

    is_ok = serializers.BooleanField()
    problem = serializers.CharField(help_text="One sentence; empty when there is none.")
    latency_ms = serializers.IntegerField()
    details = serializers.CharField(help_text="Such as the server's version.")
    is_kept = serializers.BooleanField(help_text="False: the connection was changed meanwhile.")


# --- Members ---


@extend_schema_serializer(component_name="Member")
class MemberSerializer(serializers.Serializer[Membership]):
    """A person's role in the organization."""

    id = serializers.UUIDField()
    username = serializers.CharField(source="user.username")
    role = serializers.ChoiceField(Role.values)
    created_at = serializers.DateTimeField()


# --- What a change would do ---


@extend_schema_field({})
class AnyValue(serializers.JSONField):
    """A value of any kind, or null."""


@extend_schema_serializer(component_name="FieldChange")
class FieldChangeSerializer(serializers.Serializer[dict[str, Any]]):
    """A field's value before and after, which may be of any kind."""

    before = AnyValue()
    after = AnyValue()


@extend_schema_serializer(component_name="QueueImpact")
class ImpactSerializer(serializers.Serializer[dict[str, Any]]):
    """Workers of one queue that would go from one configuration revision to another."""

    queue = serializers.CharField()
    queue_id = serializers.UUIDField()
    old_revision = serializers.CharField()
    new_revision = serializers.CharField()
    workers = serializers.IntegerField()
    online = serializers.IntegerField()
    outdated = serializers.IntegerField(help_text="Running processes that would have another than a start would give.")
    missing_now = serializers.CharField(help_text="What they lack before the change; empty when nothing.")
    missing = serializers.CharField(help_text="What they would lack after it.")


@extend_schema_serializer(component_name="CannotStart")
class CannotStartSerializer(serializers.Serializer[dict[str, Any]]):
    """Workers and queues that could start before the change and not after it."""

    reason = serializers.CharField()
    workers = serializers.IntegerField()
    queues = serializers.IntegerField()
    online = serializers.IntegerField()


@extend_schema_serializer(component_name="Processes")
class ProcessesSerializer(serializers.Serializer[dict[str, Any]]):
    """Running processes of one queue."""

    queue = serializers.CharField()
    queue_id = serializers.UUIDField()
    processes = serializers.IntegerField()


@extend_schema_serializer(component_name="Outlook")
class OutlookSerializer(serializers.Serializer[Outlook]):
    """What a change would be and do."""

    changes = serializers.DictField(child=FieldChangeSerializer(), help_text="By field, as in the audit trail.")
    impact = ImpactSerializer(many=True)
    cannot_start = CannotStartSerializer(many=True)
    cut_off = ProcessesSerializer(many=True, help_text="Whose API key would no longer be good.")
    ending = ProcessesSerializer(many=True, help_text="Who would be told to end.")
    workers = serializers.ListField(
        child=serializers.CharField(), help_text="The first names of workers that would be given something else."
    )

    def to_representation(self, instance: Outlook) -> dict[str, Any]:
        """The same as `apply --dry-run --format json` has it."""
        parts = ("impact", "cannot_start", "cut_off", "ending")
        return {
            "changes": {name: {"before": was, "after": then} for name, (was, then) in instance.changes.items()},
            **{part: [found.as_json() for found in getattr(instance, part)] for part in parts},
            "workers": instance.workers,
        }
