"""Everything that users do beside starts and heartbeats."""

import json
import secrets
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

from tests.drills.load import PATIENCE
from tests.drills.service import Fleet, Service

PASSWORD = secrets.token_urlsafe(24)
#: What reads in the API, of a queue.
READS = ("", "/workers", "/config", "/metrics", "/worker-command", "/install-script", "/update-lock-status")


def failed_deeds(service: Service, fleet: Fleet, queue_id: str, *, is_thorough: bool) -> list[str]:
    """Does what users do beside starts and heartbeats, and names what failed, with the reason."""
    console = Console(service)
    deeds: list[partial[Any]] = [
        *(partial(_read, service, fleet, f"/api/v1/worker-queues/{queue_id}{page}") for page in READS),
        partial(_read, service, fleet, "/api/v1/environments"),
        partial(_read, service, fleet, "/api/health"),
        partial(_update_lock, service, fleet, f"/api/v1/worker-queues/{queue_id}/workers/anybody/update-lock"),
        partial(console.sign_in),
        *(partial(console.add, kind, **fields) for kind, fields in _rows(fleet).items()),
        partial(service.manage, "create_worker", *_place(fleet), "--name", "added"),
        # Every kind of row once more, with another organization.
        partial(service.create_fleet, 3, organization_id="another"),
    ]
    if is_thorough:
        deeds += [partial(service.manage, "rotate_encryption", "--data-keys"), partial(service.manage, "prune_workers")]
    failures = []
    for deed in deeds:
        try:
            deed()
        except AssertionError as error:
            failures.append(str(error))
    return failures


def _place(fleet: Fleet) -> list[str]:
    return ["--organization", fleet.organization_id, "--environment", "production", "--queue", "default"]


def _rows(fleet: Fleet) -> dict[str, dict[str, str]]:
    """What a person adds in the console, by its page."""
    organization = {"organization": fleet.organization_id}
    temporal = {"host": "temporal.example.com:7233", "namespace": "default", "is_tls_enabled": "on"}
    secret = {"requires_api_key": "on", "api_key": secrets.token_urlsafe(24)}
    return {
        "environments/temporalconnection": {**organization, "name": "added", **temporal, **secret},
        "environments/litellmconnection": {**organization, "name": "added", "api_url": "https://example.com", **secret},
        "environments/environment": {**organization, "name": "added"},
    }


class Console:
    """A browser of a superuser."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._cookies: SimpleCookie = SimpleCookie()

    def sign_in(self) -> None:
        options = ("--username", "ada", "--email", "ada@example.com", "--noinput")
        self._service.manage("createsuperuser", *options, environ={"DJANGO_SUPERUSER_PASSWORD": PASSWORD})
        self._ask("GET", "/admin/login/")
        self._submit("/admin/login/?next=/admin/", username="ada", password=PASSWORD)

    def add(self, kind: str, **fields: str) -> None:
        """Fills in the page for a new row."""
        self._submit(f"/admin/{kind}/add/", **fields)

    def _submit(self, path: str, **fields: str) -> None:
        """A form that is taken answers with where to go on; one that is shown again was refused."""
        form = urlencode({**fields, "csrfmiddlewaretoken": self._cookies["csrftoken"].value})
        if (status := self._ask("POST", path, form)) != HTTPStatus.FOUND:
            message = f"POST {path} was answered {status}"
            raise AssertionError(message)

    def _ask(self, method: str, path: str, body: str | None = None) -> int:
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in self._cookies.items())
        headers = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded"}
        connection = HTTPConnection("127.0.0.1", self._service.port, timeout=PATIENCE)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.read()
        for header in response.headers.get_all("Set-Cookie", []):
            self._cookies.load(header)
        return response.status


def ask(port: int, api_key: str, method: str, path: str, body: Any = None) -> Any:
    """One call of the API and what it answered, as JSON where it is; AssertionError when it is refused."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read().decode()
    if response.status not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT}:
        message = f"{method} {path} was answered {response.status}: {text}"
        raise AssertionError(message)
    return json.loads(text) if response.headers["Content-Type"] == "application/json" and text else text


def _read(service: Service, fleet: Fleet, path: str) -> None:
    ask(service.port, fleet.api_key, "GET", path)


def _update_lock(service: Service, fleet: Fleet, path: str) -> None:
    ask(service.port, fleet.api_key, "POST", path, {"worker_id": "anybody"})
    ask(service.port, fleet.api_key, "DELETE", path)
