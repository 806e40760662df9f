"""An error of a person's page looks like the console, says what happened and leads on; programs are answered in JSON."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.test import Client, RequestFactory

from controlplane.api import errors
from controlplane.engines.circuit import circuit
from environments.admin.error_page import TOLD
from tests.support.console import person, signed_in, url
from workers.models import Worker

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


@pytest.fixture
def client(db: None) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def mistyped(client: Client) -> Any:
    return client.get("/admin/nothing/")


def asking_too_much(client: Client) -> Any:
    return client.get(url(Worker, "changelist"), {"id__in": ",".join("x" * 200)})


def of_no_host(client: Client) -> Any:
    return client.get("/admin/", headers={"Host": "elsewhere.example"})


def not_for_viewers(client: Client) -> Any:
    return signed_in(person("bob", is_staff=True)).get(url(Worker, "add"))


def without_the_form_s_token(client: Client) -> Any:
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(person())
    return careful.post(url(Worker, "add"), {})


def larger_than_a_form(client: Client) -> Any:
    body = "x" * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
    return client.post(url(Worker, "add"), body, "application/x-www-form-urlencoded")


def while_the_database_is_away(client: Client) -> Any:
    return client.get("/admin/")


CASES: list[tuple[Callable[[Client], Any], int, str]] = [
    (mistyped, 404, "Not found"),
    (asking_too_much, 400, "Bad request"),
    (of_no_host, 400, "Bad request"),
    (not_for_viewers, 403, "Not allowed"),
    (without_the_form_s_token, 403, "Not saved"),
    (larger_than_a_form, 413, "Too large"),
    (while_the_database_is_away, 503, "The database is not available"),
]


@pytest.mark.parametrize(("call", "status", "title"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_an_error_has_a_page_of_the_console_s_own(
    call: Callable[[Client], Any], status: int, title: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call is while_the_database_is_away:
        monkeypatch.setattr(circuit, "is_open", lambda: True)
    response = call(client)
    assert response.status_code == status
    assert_is_ours(response, status, title)


@pytest.mark.parametrize(
    ("handle", "status"),
    [
        (lambda request: errors.bad_request(request, SuspiciousOperation()), 400),
        (lambda request: errors.forbidden(request, PermissionDenied()), 403),
        (errors.server_error, 500),
    ],
)
def test_programs_are_answered_in_json(handle: Callable[[Any], Any], status: int) -> None:
    """And people with a page, at another address."""
    response = handle(RequestFactory().get("/api/v1/workers/x/start"))
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/json")
    assert_is_ours(handle(RequestFactory().get("/admin/")), status, TOLD[status][0])  # type: ignore[index]  # HTTPStatus


def assert_is_ours(response: Any, status: int, title: str) -> None:
    text = unescape(response.content.decode())
    assert f"<title>{title} | Control plane</title>" in text
    assert re.search(r'<p role="alert">[A-Z][^<]{20,}</p>', text)
    assert "/static/controlplane/console" in text
    assert 'href="/admin/"' in text
    assert f"Status {status}" in text
    assert "style=" not in text
    assert not re.search(r"<script(?! src=)", text)
    assert "'self'" in response.headers.get("Content-Security-Policy", "'self'")
