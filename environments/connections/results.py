"""Keeps what verifications of connections found: on the row that was verified, or signed until there is one."""

from datetime import UTC, datetime
from typing import Any

from django.core import signing
from django.db import transaction
from django.utils.crypto import salted_hmac

from environments import audit, times
from environments.audit import Actor
from environments.connections.verification import Verification, verify
from environments.encryption import Key, Secret
from environments.models import CredentialConnection, LiteLLMConnection, TelemetrySettings, TemporalConnection
from environments.sealing.data_keys import open_api_key

type Verifiable = TemporalConnection | LiteLLMConnection | TelemetrySettings

SALT = "environments.verification"
#: How long a signed result is good for.
LONGEST_WAIT_SECONDS = 600
PROBLEM_LENGTH = 300
NO_SECRET = Secret("")
#: How the trail calls a verification that found no problem.
OK = "ok"


def verify_stored(row: Verifiable, *, actor: Actor) -> tuple[Verification, bool]:
    """Verifies a saved row with its stored API key; also whether the result was kept, since the row may have changed.

    Call it outside of a transaction: it takes up to three seconds. CannotOpenError if the API key does not open.
    """
    secret = open_api_key(row) if isinstance(row, CredentialConnection) else NO_SECRET
    verification = verify(row, secret)
    return verification, _keep(row, verification, actor=actor, now=times.now())


def verify_typed(row: Verifiable, secret: Secret, *, actor: Actor) -> tuple[Verification, str]:
    """Verifies what somebody is about to save; also the result, signed, for `accept_result` when it is saved."""
    verification = verify(row, secret)
    now = times.now()
    endpoint = {name: [None, getattr(row, name)] for name in row.ENDPOINT if name != "api_key_fingerprint"}
    changes = {**endpoint, "outcome": [None, verification.problem or OK]}
    audit.record(f"{audit.kind_of(row)}.tried", row, actor=actor, now=now, changes=changes)
    result = {
        "of": _subject(row, secret, actor),
        "at": now.timestamp(),
        "problem": verification.problem,
        "latency_ms": verification.latency_ms,
    }
    return verification, signing.dumps(result, salt=SALT)


def accept_result(signed: str, row: Verifiable, secret: Secret, *, actor: Actor) -> bool:
    """Notes a signed result on a row that is about to be saved; False, and nothing noted, unless it is of just this.

    That is: the same kind, row, endpoint and API key, typed by the same person. Call it when the API key is sealed.
    """
    try:
        result = signing.loads(signed, salt=SALT, max_age=LONGEST_WAIT_SECONDS)
    except signing.BadSignature:
        return False
    if result["of"] != _subject(row, secret, actor):
        return False
    verified_at = datetime.fromtimestamp(result["at"], UTC)
    for name, value in _columns(row, result["problem"], result["latency_ms"], verified_at).items():
        setattr(row, name, value)
    return True


def record_outcome(row: Verifiable, problem: str, *, actor: Actor, now: datetime) -> None:
    """Puts on record what a row was found to be when it was verified; call it within a transaction."""
    changes = {"outcome": [None, problem or OK]}
    audit.record(f"{audit.kind_of(row)}.verified", row, actor=actor, now=now, changes=changes)


@transaction.atomic
def _keep(row: Verifiable, verification: Verification, *, actor: Actor, now: datetime) -> bool:
    """Compares and sets: a result of another endpoint or API key than the one stored now would be a lie."""
    verified = {name: getattr(row, name) for name in row.ENDPOINT}
    rows: Any = type(row)._default_manager
    is_kept = rows.filter(pk=row.pk, **verified).update(
        **_columns(row, verification.problem, verification.latency_ms, now)
    )
    record_outcome(row, verification.problem, actor=actor, now=now)
    return bool(is_kept)


def _columns(row: Verifiable, problem: str, latency_ms: int, verified_at: datetime) -> dict[str, Any]:
    return {
        "verified_at": verified_at,
        "verified_revision": row.endpoint_revision,
        "verification_problem": problem[:PROBLEM_LENGTH],
        "verification_latency_ms": latency_ms,
    }


def _subject(row: Verifiable, secret: Secret, actor: Actor) -> str:
    """What a result is of. A new row has no id to go by yet, and a new organization no key for fingerprints."""
    fingerprint_key = Key("verification", salted_hmac(SALT, "fingerprint", algorithm="sha256").digest())
    parts = [
        actor.name,
        row._meta.label,
        row.organization_id,
        None if row._state.adding else str(row.pk),
        *(getattr(row, name) for name in row.ENDPOINT if name != "api_key_fingerprint"),
        fingerprint_key.fingerprint(secret),
    ]
    return salted_hmac(SALT, repr(parts), algorithm="sha256").hexdigest()
