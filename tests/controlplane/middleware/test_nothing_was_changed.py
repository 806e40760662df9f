"""Where the console says that nothing was changed, nothing was, wherever in a request the database fails."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.urls import reverse

from controlplane.engines.circuit import circuit
from environments.admin.console import TYPED_NAME
from environments.models import Environment, LiteLLMConnection, Membership, Role, TelemetrySettings
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import everything, form_of, member, person, signed_in, url
from tests.support.factories import Fleet
from workers.models import ApiKey, Worker, WorkerQueue

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

WRITES = ("INSERT", "UPDATE", "DELETE")
#: What has no counterpart where the test's own transaction is not around the request's.
ENDINGS = ("SAVEPOINT", "RELEASE", "ROLLBACK")
PASSWORD = "correct horse battery staple"


@pytest.fixture
def fleet(db: None, caplog: pytest.LogCaptureFixture) -> Fleet:
    caplog.set_level(logging.CRITICAL)
    fleet = fresh_fleet()
    assert start(fleet).status_code == 200
    for number in range(2):
        factories.create_worker(fleet.queue, f"spare-{number}")
    factories.create_telemetry(fleet.organization, "spare")
    member(fleet.organization, Role.VIEWER, "leaver")
    return fleet


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


@contextmanager
def failing_at(number: int) -> Iterator[list[str]]:
    """Takes the database away from the statement of this number on; gives the statements up to it."""
    statements: list[str] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        if number and len(statements) >= number and not sql.startswith(ENDINGS):
            del statements[number:]
            message = "the database is away"
            raise OperationalError(message)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        yield statements


def many(model: Any, **where: Any) -> dict[str, Any]:
    ids = list(model._default_manager.filter(**where).values_list("pk", flat=True))
    return {"action": "delete_selected", "_selected_action": ids, "post": "yes"}


def changed(client: Client, row: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    address = url(type(row), "change", row.pk)
    return address, {**form_of(client, address), **fields}


def request_of(name: str, client: Client, fleet: Fleet) -> tuple[str, dict[str, Any]]:
    """The address and the form of a change that the console makes."""
    spare = Worker.objects.filter(name="spare-0").get()
    chosen = ",".join(pk.hex for pk in Worker.objects.values_list("pk", flat=True))
    requests: dict[str, Any] = {
        "delete a worker": lambda: (
            url(Worker, "delete", fleet.worker.pk),
            {"post": "yes", TYPED_NAME: str(fleet.worker)},
        ),
        "delete a person": lambda: (url(User, "delete", person("leaver").pk), {"post": "yes"}),
        "delete many workers": lambda: (
            url(Worker, "changelist"),
            {**many(Worker), TYPED_NAME: f"{Worker.objects.count()} workers"},
        ),
        "delete many people": lambda: (url(User, "changelist"), many(User, username="leaver")),
        "disable many": lambda: ("/admin/workers/worker/bulk/disable/", {"workers": chosen}),
        "issue many keys": lambda: (
            "/admin/workers/worker/bulk/issue_keys/",
            {"workers": chosen, "name": "new", "days": "1"},
        ),
        "issue a key": lambda: (
            url(ApiKey, "add"),
            {"name": "new", "days": 1, "scope": "worker", "worker": spare.pk},
        ),
        "issue a key of a queue": lambda: (
            url(ApiKey, "add"),
            {"name": "new", "days": 1, "scope": "queue", "queue": fleet.queue.pk},
        ),
        "rotate a key": lambda: (url(ApiKey, "rotate", fleet.api_key.pk), {"grace_hours": "1"}),
        "revoke a key": lambda: (
            url(ApiKey, "revoke", fleet.api_key.pk),
            {"reason": "leaked", "is_confirmed": "on"},
        ),
        "make a worker": lambda: (
            url(Worker, "add"),
            {"name": "new", "queue": fleet.queue.pk, "is_key_issued": "on", "days": "1"},
        ),
        "make an environment": lambda: (
            url(Environment, "add"),
            {"organization": fleet.organization.pk, "name": "new"},
        ),
        "make a member": lambda: (
            url(Membership, "add"),
            {"organization": fleet.organization.pk, "username": "ada", "role": "viewer"},
        ),
        "change a queue": lambda: changed(client, fleet.queue, description="changed"),
        "ask about a change": lambda: changed(client, fleet.queue, heartbeat_interval=5),
        "ask about an API key": lambda: changed(client, fleet.litellm, api_key="typed"),
        "change a connection": lambda: changed(client, TelemetrySettings.objects.get(), otel_service_name="changed"),
        "set a password": lambda: (
            reverse("admin:auth_user_password_change", args=[person("leaver").pk]),
            {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"},
        ),
    }
    address, data = requests[name]()
    return address, data


CHANGES = (
    "delete a worker",
    "delete a person",
    "delete many workers",
    "delete many people",
    "disable many",
    "issue many keys",
    "issue a key",
    "issue a key of a queue",
    "rotate a key",
    "revoke a key",
    "make a worker",
    "make an environment",
    "make a member",
    "change a queue",
    "ask about a change",
    "ask about an API key",
    "change a connection",
    "set a password",
)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_made_or_said_not_to_be(change: str, client: Client, fleet: Fleet) -> None:
    """And a page that is shown after all tells of what was done: a key that nobody saw is not issued."""
    address, data = request_of(change, client, fleet)
    before, problems, cookies = everything(), [], deepcopy(client.cookies)
    for _ in range(2):  # the second time Django knows the ids of all kinds of rows
        savepoint = transaction.savepoint_create()
        client.cookies = deepcopy(cookies)  # a session may have got another key
        with failing_at(0) as statements:
            done = client.post(address, data)
        transaction.savepoint_rollback(savepoint)
    assert done.status_code in {200, 302}
    first = next(number for number, sql in enumerate(statements, 1) if sql.startswith(WRITES))
    for number in range(first, len(statements) + 1):
        if statements[number - 1].startswith(ENDINGS) or "django_session" in statements[number - 1]:
            continue
        savepoint = transaction.savepoint_create()
        client.cookies = deepcopy(cookies)
        with failing_at(number):
            response = client.post(address, data)
        transaction.set_rollback(False)  # of the test's own transaction
        text = response.content.decode() if not response.streaming else ""
        is_refused = response.status_code == 503 and "Nothing was changed" in text
        is_told = "success" in str(response.cookies.get("messages", ""))
        if not is_refused or is_told or everything() != before:
            same = everything() == before
            problems.append(f"{number}, {statements[number - 1][:90]}: {response.status_code} {is_told=} {same=}")
        transaction.savepoint_rollback(savepoint)
        circuit.close()
        cache.clear()
    assert problems == []
    assert LiteLLMConnection.objects.count() == WorkerQueue.objects.count() == 1
