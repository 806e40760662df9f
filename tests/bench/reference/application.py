"""The reference floor's application: token, body, database, two secrets opened, the answer."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.bench.reference.databases import Caller, Postgresql, Sqlite, open_database

#: What the application reads: its database's URL, and two keys of 32 bytes in hexadecimal.
DATABASE_VARIABLE, SIGNING_VARIABLE, SEALING_VARIABLE = (
    f"REFERENCE_{name}" for name in ("DATABASE_URL", "SIGNING_KEY", "SEALING_KEY")
)
ISSUER, AUDIENCE = "reference", "reference-worker"
#: Bytes of a sealed secret that come before its ciphertext.
NONCE_BYTES = 12
#: What binds a sealed secret to its column.
TEMPORAL, LITELLM = b"environment.temporal_api_key", b"environment.litellm_api_key"


class Keys(NamedTuple):
    """The two keys, of 32 bytes each: tokens are signed with the first, secrets are sealed with the second."""

    signing: bytes
    sealing: bytes


class Application:
    """The two calls."""

    def __init__(self, database: Postgresql | Sqlite, keys: Keys) -> None:
        self._database = database
        self._signing_key = keys.signing
        self._aead = AESGCM(keys.sealing)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            caller = _verify(environ["HTTP_AUTHORIZATION"].removeprefix("Bearer "), self._signing_key)
        except jwt.InvalidTokenError:
            start_response("401 Unauthorized", [])
            return []
        *_, identifier, call = environ["PATH_INFO"].split("/")
        worker_id = UUID(identifier)
        body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        if call == "heartbeat":
            is_noted = self._database.beat(worker_id, caller)
            start_response("204 No Content" if is_noted else "404 Not Found", [])
            return []
        row = self._database.start(worker_id, caller, body["system_info"])
        if row is None:
            start_response("404 Not Found", [])
            return []
        text = json.dumps(_answer(worker_id, row, self._aead), separators=(",", ":")).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
        return [text]


def make_application() -> Application:
    """The application of the database and the keys that the environment names."""
    signing, sealing = (bytes.fromhex(os.environ[name]) for name in (SIGNING_VARIABLE, SEALING_VARIABLE))
    return Application(open_database(os.environ[DATABASE_VARIABLE]), Keys(signing, sealing))


def _verify(token: str, signing_key: bytes) -> Caller:
    claims = jwt.decode(
        token, signing_key, ["HS256"], issuer=ISSUER, audience=AUDIENCE, options={"require": ["exp", "sub"]}
    )
    return Caller(UUID(claims["sub"]), hashlib.sha256(token.encode()).hexdigest(), datetime.now(UTC))


def _answer(worker_id: UUID, row: tuple[Any, ...], aead: AESGCM) -> dict[str, Any]:
    queue, interval, environment, host, namespace, temporal_key, litellm_url, litellm_key, organization_id, slug = row
    return {
        "worker_id": str(worker_id),
        "worker_queue_name": queue,
        "environment_name": environment,
        "task_queue_name": f"{slug}.{environment}.{queue}",
        "temporal_namespace": namespace,
        "temporal_host": host,
        "temporal_api_key": _open(temporal_key, TEMPORAL, aead),
        "organization_id": str(organization_id),
        "control_plane_url": "https://controlplane.example.com",
        "heartbeat_interval": interval,
        "litellm_api_url": litellm_url,
        "litellm_api_key": _open(litellm_key, LITELLM, aead),
        "otel_enabled": True,
        "otel_exporter_otlp_endpoint": None,
        "otel_service_name": "agent-control-plane-worker",
        "otel_traces_sampler": "parentbased_always_on",
        "otel_traces_sampler_arg": None,
    }


def _open(sealed: bytes, column: bytes, aead: AESGCM) -> str:
    return aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], column).decode()
