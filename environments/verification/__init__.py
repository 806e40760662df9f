"""Really connects to what a connection names, within three seconds and only where the control plane may."""

from environments.encryption import Secret
from environments.models import LiteLLMConnection, TelemetrySettings, TemporalConnection
from environments.verification.guard import RefusedError
from environments.verification.litellm import verify_litellm
from environments.verification.outcome import ConnectionProblemError, Verification
from environments.verification.telemetry import verify_telemetry
from environments.verification.temporal import Poller, pollers_of, verify_temporal

__all__ = [
    "ConnectionProblemError",
    "Poller",
    "RefusedError",
    "Verification",
    "pollers_of",
    "verify",
    "verify_litellm",
    "verify_telemetry",
    "verify_temporal",
]


def verify(row: TemporalConnection | LiteLLMConnection | TelemetrySettings, secret: Secret) -> Verification:
    """Connects to what a row of any kind names, saved or not; for telemetry settings the secret is ignored."""
    match row:
        case TemporalConnection():
            return verify_temporal(row, secret)
        case LiteLLMConnection():
            return verify_litellm(row, secret)
        case TelemetrySettings():
            return verify_telemetry(row)
