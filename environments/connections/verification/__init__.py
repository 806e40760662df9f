"""Really connects to what a connection names, within three seconds and only where the control plane may.

Temporal's client is loaded by whoever first asks for it: 34 MB and a quarter of a second that no start needs, and
hardly any command.
"""

from environments.connections.verification.guard import RefusedError
from environments.connections.verification.litellm import verify_litellm
from environments.connections.verification.outcome import ConnectionProblemError, Verification
from environments.connections.verification.telemetry import verify_telemetry
from environments.encryption import Secret
from environments.models import LiteLLMConnection, TelemetrySettings, TemporalConnection

__all__ = [
    "ConnectionProblemError",
    "RefusedError",
    "Verification",
    "verify",
    "verify_litellm",
    "verify_telemetry",
]


def verify(row: TemporalConnection | LiteLLMConnection | TelemetrySettings, secret: Secret) -> Verification:
    """Connects to what a row of any kind names, saved or not; for telemetry settings the secret is ignored."""
    match row:
        case TemporalConnection():
            from environments.connections.verification.temporal import verify_temporal  # noqa: PLC0415  # as said above

            return verify_temporal(row, secret)
        case LiteLLMConnection():
            return verify_litellm(row, secret)
        case TelemetrySettings():
            return verify_telemetry(row)
