"""Fills the reference floor's tables: one organization, one environment, its queues, keys and workers."""

import hashlib
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.bench.reference.application import AUDIENCE, ISSUER, LITELLM, NONCE_BYTES, TEMPORAL, Keys
from tests.bench.reference.databases import open_database

#: Characters of the two secrets.
TEMPORAL_CHARACTERS, LITELLM_CHARACTERS = 700, 27
LIFETIME = timedelta(days=90)


def fill(url: str, worker_ids: Sequence[str], keys: Keys, *, queues: int, api_keys: int) -> list[str]:
    """Makes the tables in an empty database, the workers spread evenly over the queues; the API keys' tokens."""
    database = open_database(url)
    database.create()
    organization, environment = uuid4(), uuid4()
    queue_ids = [uuid4() for _ in range(queues)]
    expires_at = datetime.now(UTC) + LIFETIME
    tokens = {key_id: _token(key_id, expires_at, keys.signing) for key_id in (uuid4() for _ in range(api_keys))}
    rows: dict[str, Sequence[Sequence[Any]]] = {
        "organization": [(organization, "bench", "Bench")],
        "environment": [(environment, organization, "production", *_connections(AESGCM(keys.sealing)))],
        "worker_queue": [(key, environment, f"queue-{number}", 60) for number, key in enumerate(queue_ids)],
        "api_key": [
            (key, hashlib.sha256(token.encode()).hexdigest(), None, expires_at) for key, token in tokens.items()
        ],
        "worker": [(UUID(key), queue_ids[at % queues], "new", None) for at, key in enumerate(worker_ids)],
    }
    for table, values in rows.items():
        marks = ", ".join(["%s"] * len(values[0]))
        database.execute_many(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608  # our own names
    database.close()
    return list(tokens.values())


def _connections(aead: AESGCM) -> tuple[str | bytes, ...]:
    temporal = _seal(secrets.token_hex(TEMPORAL_CHARACTERS)[:TEMPORAL_CHARACTERS], TEMPORAL, aead)
    litellm = _seal(secrets.token_hex(LITELLM_CHARACTERS)[:LITELLM_CHARACTERS], LITELLM, aead)
    return ("temporal.example.com:7233", "bench", temporal, "https://llm.example.com", litellm)


def _seal(text: str, column: bytes, aead: AESGCM) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + aead.encrypt(nonce, text.encode(), column)


def _token(key_id: UUID, expires_at: datetime, signing: bytes) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(key_id), "jti": secrets.token_urlsafe(32), "exp": expires_at}
    return jwt.encode(claims, signing, "HS256")
