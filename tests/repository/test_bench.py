"""The benchmark's reference floor does what it is said to do, so that it is no lower than a start can be."""

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import psycopg
import pytest

from tests.bench.reference.application import AUDIENCE, ISSUER, Application, Keys
from tests.bench.reference.databases import open_database
from tests.bench.reference.filling import LITELLM_CHARACTERS, TEMPORAL_CHARACTERS, fill
from tests.support.databases import fresh_database
from workers.api.serializers.workers import WorkerConfigResponseSerializer

KEYS = Keys(b"s" * 32, b"e" * 32)
WORKER_ID = str(uuid4())
SYSTEM_INFO = {"hostname": "here", "cpu_percent": 12.5, "packages": ["a", "b"]}


@dataclass(frozen=True)
class Reference:
    """A reference with one worker, its database, and a token."""

    application: Application
    url: str
    token: str

    def call(self, call: str, *, token: str | None = None, worker_id: str = WORKER_ID) -> tuple[str, Any]:
        """The status and the JSON that a call is answered with."""
        body = json.dumps({"status": "active", "system_info": SYSTEM_INFO}).encode()
        environ = {
            "HTTP_AUTHORIZATION": f"Bearer {token or self.token}",
            "PATH_INFO": f"/api/v1/workers/{worker_id}/{call}",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        statuses: list[str] = []
        text = b"".join(self.application(environ, lambda status, _headers: statuses.append(status)))
        return statuses[0], json.loads(text or "null")

    def execute(self, statement: str) -> list[Any]:
        """What a statement finds, which is committed."""
        if self.url.startswith("sqlite:"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection, connection:
                return connection.execute(statement).fetchall()
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def reference() -> Iterator[Reference]:
    url = fresh_database("reference")
    [token, _] = fill(url, [WORKER_ID, str(uuid4())], KEYS, queues=1, api_keys=2)
    database = open_database(url)
    yield Reference(Application(database, KEYS), url, token)
    database.close()


def starts_and_sightings(reference: Reference) -> list[Any]:
    return reference.execute(
        "SELECT (SELECT count(*) FROM worker_start), (SELECT count(*) FROM worker WHERE last_seen_at IS NOT NULL)"
    )


def test_a_start_is_answered_with_the_products_fields_and_recorded(reference: Reference) -> None:
    status, answer = reference.call("start")
    assert status == "200 OK"
    assert list(answer) == list(WorkerConfigResponseSerializer().fields)
    assert len(answer) == 17
    assert (len(answer["temporal_api_key"]), len(answer["litellm_api_key"])) == (
        TEMPORAL_CHARACTERS,
        LITELLM_CHARACTERS,
    )
    [(worker_id, told)] = reference.execute("SELECT worker_id, system_info FROM worker_start")
    assert str(worker_id) == WORKER_ID
    assert (json.loads(told) if isinstance(told, str) else told) == SYSTEM_INFO
    assert reference.execute("SELECT status FROM worker WHERE last_seen_at IS NOT NULL") == [("active",)]


def test_a_heartbeat_is_noted_at_its_worker_alone(reference: Reference) -> None:
    assert reference.call("heartbeat") == ("204 No Content", None)
    [(worker_id,)] = reference.execute("SELECT id FROM worker WHERE last_seen_at IS NOT NULL")
    assert str(worker_id) == WORKER_ID


@pytest.mark.parametrize("call", ["start", "heartbeat"])
@pytest.mark.parametrize(
    "change", ["revoked_at = '2026-01-01T00:00:00+00:00'", "expires_at = '2026-01-01T00:00:00+00:00'", "hash = 'other'"]
)
def test_the_keys_row_decides(reference: Reference, call: str, change: str) -> None:
    reference.execute(f"UPDATE api_key SET {change}")  # noqa: S608  # listed above
    assert reference.call(call) == ("404 Not Found", None)
    assert starts_and_sightings(reference) == [(0, 0)]


@pytest.mark.parametrize("call", ["start", "heartbeat"])
def test_an_unknown_worker_is_refused(reference: Reference, call: str) -> None:
    assert reference.call(call, worker_id=str(uuid4())) == ("404 Not Found", None)
    assert starts_and_sightings(reference) == [(0, 0)]


@pytest.mark.parametrize("call", ["start", "heartbeat"])
@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"iss": "other"}, KEYS.signing),
        ({"aud": "other"}, KEYS.signing),
        ({"exp": datetime.now(UTC) - timedelta(seconds=1)}, KEYS.signing),
        ({"exp": None}, KEYS.signing),
        ({"sub": None}, KEYS.signing),
        ({}, KEYS.sealing),
    ],
    ids=["issuer", "audience", "expired", "no expiry", "no subject", "another key"],
)
def test_a_token_that_is_not_good_is_refused(
    reference: Reference, call: str, change: dict[str, Any], key: bytes
) -> None:
    claims = jwt.decode(reference.token, KEYS.signing, ["HS256"], issuer=ISSUER, audience=AUDIENCE) | change
    token = jwt.encode({name: value for name, value in claims.items() if value is not None}, key, "HS256")
    assert reference.call(call, token=token) == ("401 Unauthorized", None)
    assert starts_and_sightings(reference) == [(0, 0)]
