"""What goes wrong around a service: callers who put secrets where they do not belong, and a database that fails midway."""

import json
import re
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

import psycopg

from tests.drills.service import Fleet
from tests.support.crawler import Console

#: A database that the code does not expect, and how to mend it: errors on PostgreSQL that no outage explains.
BREAKAGES = (
    ("ALTER TABLE workers_workerstart RENAME TO gone", "ALTER TABLE gone RENAME TO workers_workerstart"),
    ("ALTER TABLE controlplane_sharedentry RENAME TO gone", "ALTER TABLE gone RENAME TO controlplane_sharedentry"),
    *(
        (
            f"ALTER TABLE {table} ADD CONSTRAINT broken CHECK (false) NOT VALID",
            f"ALTER TABLE {table} DROP CONSTRAINT broken",
        )
        for table in ("workers_workerstart", "environments_temporalconnection", "auth_user", "django_session")
    ),
)
INCOMPLETE = (
    "UPDATE environments_organization SET litellm_connection_id = NULL",
    "UPDATE environments_organization SET litellm_connection_id = (SELECT id FROM environments_litellmconnection LIMIT 1)",
)
#: The same for SQLite: second factors without what they are made of.
BREAKAGE_OF_SQLITE = (
    "INSERT INTO mfa_authenticator (type, data, user_id, created_at) "
    "SELECT kind, '{}', id, CURRENT_TIMESTAMP FROM auth_user, (SELECT 'totp' AS kind UNION SELECT 'recovery_codes')"
)
#: A credential that is no longer what was sealed.
DAMAGE = "UPDATE environments_temporalconnection SET sealed_api_key = left(sealed_api_key, -4) || 'AAAA'"


class Request(NamedTuple):
    """What is sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: str | bytes = ""


class Answer(NamedTuple):
    """What came back, headers and body in one; status 0 when nothing did."""

    status: int
    content: bytes


def send_all(server: int | Callable[[], HTTPConnection], requests: Iterable[Request]) -> list[Answer]:
    """The answers of what listens on a port of this machine, or of what is connected to otherwise, each asked anew."""
    connect = server if callable(server) else partial(HTTPConnection, "127.0.0.1", server, timeout=60)
    return [_send(connect(), request) for request in requests]


def _send(connection: HTTPConnection, request: Request) -> Answer:
    with closing(connection), suppress(OSError, HTTPException):
        connection.request(request.method, request.path, request.body or None, request.headers)
        response = connection.getresponse()
        return Answer(response.status, str(response.headers).encode() + response.read())
    return Answer(0, b"")


def good_calls(fleet: Fleet) -> Iterator[Request]:
    """A start and a heartbeat."""
    headers = {"Authorization": f"Bearer {fleet.api_key}", "Content-Type": "application/json"}
    path = f"/api/v1/workers/{fleet.worker_ids[0]}"
    yield Request("POST", f"{path}/start", headers, json.dumps({"system_info": {"hostname": fleet.organization_id}}))
    yield Request(
        "POST", f"{path}/heartbeat", headers, json.dumps({"system_info": {}, "logs": [fleet.organization_id]})
    )


def readings(fleet: Fleet, document: dict[str, dict[str, object]]) -> Iterator[Request]:
    """Every GET of the served document, of the fleet's queue and environment."""
    headers = {"Authorization": f"Bearer {fleet.api_key}"}
    for path, methods in document.items():
        if "get" in methods and "{" not in path:
            yield Request("GET", path, headers)


def readings_of(fleet: Fleet, document: dict[str, dict[str, object]], name: str, identifier: str) -> Iterator[Request]:
    """Every GET that takes this id."""
    headers = {"Authorization": f"Bearer {fleet.api_key}"}
    for path, methods in document.items():
        if "get" in methods and f"{{{name}}}" in path:
            query = "?deployment_type=shell" if path.endswith("install-script") else ""
            yield Request("GET", path.replace(f"{{{name}}}", identifier) + query, headers)


def misplacing(fleet: Fleet) -> Iterator[Request]:
    """Calls that are refused, with the key and the secrets of the fleet wherever a caller might put them by mistake."""
    key, secret = fleet.api_key, fleet.temporal_api_key
    start = f"/api/v1/workers/{fleet.worker_ids[0]}/start"
    own = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    basic = b64encode(f"worker:{key}".encode()).decode()
    spoiled = (
        f"Bearer {key[:-8]}AAAAAAAA",
        f"Bearer {key} {key}",
        f"Token {key}",
        f"Basic {basic}",
        key,
        f"Bearer {secret}",
    )
    for authorization in spoiled:
        yield Request("POST", start, own | {"Authorization": authorization}, "{}")
    yield Request(
        "POST", f"{start}?api_key={key}", {"Cookie": f"api_key={key}", "X-Api-Key": key}, json.dumps({"k": key})
    )
    for body in (
        f'{{"system_info": {{"key": "{key}", "secret": "{secret}"',
        json.dumps({"system_info": secret}),
        json.dumps({"system_info": [key]}),
        json.dumps([secret, key]),
        f'{{"system_info": [], "{secret}": 1, "{secret}": 2}}',
        json.dumps({"system_info": [{secret: float("nan")}]}),
        json.dumps({"system_info": {"padding": secret * 3_000}}),
        f"{secret}\xff{key}".encode("latin-1"),
    ):
        yield Request("POST", start, own, body)
    yield Request("POST", start, own | {"Content-Type": "text/plain"}, secret)
    yield Request("POST", start.replace("start", "heartbeat"), own, json.dumps([{"status": secret, "logs": key}]))
    yield Request("PUT", start, own | {"User-Agent": "worker/1"}, json.dumps({"system_info": {"key": key}}))
    yield Request("POST", f"/api/v1/workers/{uuid4()}/start", own, json.dumps({"system_info": {}}))
    yield Request("POST", "/api/v1/workers/register", own, json.dumps({"environment_name": [secret]}))
    yield Request("GET", f"/api/v1/worker-queues?limit={secret}", own)
    yield Request("GET", f"/{fleet.organization_id}", own)
    yield Request("GET", start, own | {"Host": "elsewhere.example"})
    yield Request("POST", "/admin/login/", {"Content-Type": "application/x-www-form-urlencoded"}, f"password={secret}")
    yield from (Request("GET", path, own) for path in ("/livez", "/readyz", "/metrics", "/api/docs"))


def at_the_console(console: Console, connection: str, fleet: Fleet) -> None:
    """Sends secrets to pages which may fail at any of it."""
    token = next((cookie.value or "" for cookie in console.cookies if cookie.name == "csrftoken"), "")
    typed = {"csrfmiddlewaretoken": [token], "api_key": [fleet.temporal_api_key]}
    for path in ("/admin/", connection, "/admin/workers/workerstart/", "/admin/account/"):
        console.send(path)
    valid = {
        "name": ["cloud"],
        "host": ["temporal.example.com:7233"],
        "namespace": ["changed"],
        "requires_api_key": ["on"],
    }
    console.send(connection, typed | valid)
    console.send("/admin/account/second-factor/", typed | {"code": [fleet.litellm_api_key]})
    console.send("/admin/workers/apikey/whose/", typed | {"text": [fleet.api_key]})
    stranger = Console(console.url)
    with suppress(OSError, AssertionError):  # an error is an answer here, which the browser keeps
        page = stranger.send("/admin/login/")
        if "csrfmiddlewaretoken" in page:
            typed |= {
                "username": ["root"],
                "password": [fleet.litellm_api_key],
                "csrfmiddlewaretoken": [_token_of(page)],
            }
            stranger.send("/admin/login/", typed)
    console.shown += stranger.shown


def at_the_second_factor(console: Console, who: tuple[str, str], fleet: Fleet) -> None:
    """Logs in with secrets in headers, too, and sends others where a code should be."""
    stranger = Console(console.url)
    stranger.opener.addheaders += [("Authorization", f"Bearer {fleet.api_key}"), ("X-Api-Key", fleet.temporal_api_key)]
    page = stranger.log_in(*who)
    typed = {"code": [fleet.litellm_api_key], "password": [who[1]], "csrfmiddlewaretoken": [_token_of(page)]}
    stranger.send("/admin/account/second-factor/", typed)
    console.shown += stranger.shown


def _token_of(page: str) -> str:
    return page.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]


@contextmanager
def broken(url: str, breaking: str, mending: str) -> Iterator[None]:
    """Within, the database is not as the code expects it."""
    execute(url, breaking)
    try:
        yield
    finally:
        execute(url, mending)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    """Runs one statement on either database, and returns what it found."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(unquote(urlsplit(url).path).removeprefix("/"), timeout=30)) as file, file:
            return file.execute(statement).fetchall()
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def value_of(url: str, query: str) -> str:
    """The one value that a query finds; ids are written as addresses have them."""
    ((value,),) = execute(url, query)
    text = str(value)
    return str(UUID(text)) if re.fullmatch("[0-9a-f]{32}", text) else text
