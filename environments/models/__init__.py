"""Organizations, environments, connections with sealed secrets, data keys, and the audit trail.

May import database and the ground.
"""

from environments.models.connections import (
    Connection,
    CredentialConnection,
    LiteLLMConnection,
    Sampler,
    TelemetrySettings,
    TemporalConnection,
)
from environments.models.organizations import Environment, HasConnections, Membership, Organization, Role
from environments.models.records import AuditEvent, DataKey

__all__ = [
    "AuditEvent",
    "Connection",
    "CredentialConnection",
    "DataKey",
    "Environment",
    "HasConnections",
    "LiteLLMConnection",
    "Membership",
    "Organization",
    "Role",
    "Sampler",
    "TelemetrySettings",
    "TemporalConnection",
]
