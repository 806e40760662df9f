"""No page of the console shows a secret again."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from html import unescape
from threading import Event
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from environments import audit
from environments.encryption import Secret
from environments.models import AuditEvent, LiteLLMConnection, TemporalConnection
from environments.sealing.data_keys import open_api_key, seal_api_key
from tests.support.calls import fresh_fleet, start
from tests.support.console import (
    REGISTERED,
    errors_of,
    everything,
    form_of,
    pages_of,
    person,
    post_confirmed,
    signed_in,
    url,
)
from tests.support.console_rows import new_row_like, with_every_kind_of_row
from tests.support.factories import Fleet
from workers.models import ApiKey

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


LONG = 20
CONNECTIONS = (TemporalConnection, LiteLLMConnection)
each_connection = pytest.mark.parametrize("model", CONNECTIONS, ids=lambda model: model._meta.model_name)


@pytest.fixture
def fleet(db: None) -> Fleet:
    """One for each test, since some of this file commit."""
    return with_every_kind_of_row(fresh_fleet())


@pytest.fixture
def committed_fleet(transactional_db: None) -> Fleet:
    return with_every_kind_of_row(fresh_fleet())


@each_connection
def test_a_blank_secret_keeps_the_stored_one(model: Any, fleet: Fleet, client: Client) -> None:
    before = model.objects.get()
    address = url(model, "change", before.pk)
    assert client.post(address, {**form_of(client, address), "name": "renamed"}).status_code == 302
    after = model.objects.get()
    assert after.name == "renamed"
    assert (after.sealed_api_key, after.api_key_fingerprint, after.api_key_version) == (
        before.sealed_api_key,
        before.api_key_fingerprint,
        before.api_key_version,
    )


@each_connection
def test_a_new_secret_is_sealed_and_shows_in_fingerprint_and_version(model: Any, fleet: Fleet, client: Client) -> None:
    before = model.objects.get()
    address = url(model, "change", before.pk)
    assert post_confirmed(client, address, {**form_of(client, address), "api_key": "typed-by-ada"}).status_code == 302
    after = model.objects.get()
    assert open_api_key(after) == Secret("typed-by-ada")
    assert after.api_key_fingerprint != before.api_key_fingerprint
    assert after.api_key_version == before.api_key_version + 1
    assert "typed-by-ada" not in str(everything())
    event = AuditEvent.objects.get(action=f"{audit.kind_of(model())}.updated")
    assert event.actor == "user:ada"
    assert event.changes["api_key_fingerprint"] == [before.api_key_fingerprint, after.api_key_fingerprint]


@each_connection
def test_the_form_never_sends_the_secret_back(model: Any, fleet: Fleet, client: Client) -> None:
    """Not even the one just typed, when another field has to be corrected."""
    row = model.objects.get()
    address = url(model, "change", row.pk)
    response = client.post(address, {**form_of(client, address), "name": "not a slug", "api_key": "typed-by-ada"})
    assert errors_of(response)
    assert "typed-by-ada" not in response.content.decode()


@each_connection
def test_a_connection_without_secret_is_explained(model: Any, fleet: Fleet, client: Client) -> None:
    data = {**new_row_like(model.objects.get()), "name": "new", "api_key": ""}
    assert "takes none" in errors_of(client.post(url(model, "add"), data))
    del data["requires_api_key"]
    assert client.post(url(model, "add"), data).status_code == 302


def test_django_s_own_log_holds_no_secret(fleet: Fleet, client: Client) -> None:
    address = url(TemporalConnection, "change", fleet.temporal.pk)
    post_confirmed(client, address, {**form_of(client, address), "api_key": "typed-by-ada"})
    assert LogEntry.objects.exists()
    assert "typed-by-ada" not in str(list(LogEntry.objects.values()))


def test_a_secret_that_somebody_changes_while_a_form_is_open_is_kept(fleet: Fleet, client: Client) -> None:
    address = url(TemporalConnection, "change", fleet.temporal.pk)
    form = form_of(client, address)
    seal_api_key(fleet.temporal, Secret("changed meanwhile"), now=timezone.now())
    fleet.temporal.save()
    assert post_confirmed(client, address, {**form, "namespace": "edited"}).status_code == 302
    row = TemporalConnection.objects.get()
    assert (row.namespace, open_api_key(row)) == ("edited", Secret("changed meanwhile"))


@pytest.mark.sqlite
def test_a_secret_that_somebody_changes_while_a_form_is_saved_is_kept(committed_fleet: Fleet) -> None:
    """The row is locked from when it is loaded: whoever comes second works on what the first one stored."""
    fleet, client = committed_fleet, signed_in()
    address = url(TemporalConnection, "change", fleet.temporal.pk)
    form = {**form_of(client, address), "name": "renamed"}
    is_loaded, is_changed = Event(), Event()

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith("SELECT") and 'FROM "environments_temporalconnection"' in sql and not is_loaded.is_set():
            is_loaded.set()
            # With the lock the other one waits for us, so this waits in vain; without it, it would be done now.
            is_changed.wait(0.5)
        return result

    def save() -> int:
        try:
            with connection.execute_wrapper(watch):
                return client.post(address, form).status_code
        finally:
            is_loaded.set()
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(save)
        assert is_loaded.wait(LONG)
        with transaction.atomic():
            row = TemporalConnection.objects.select_for_update().get(pk=fleet.temporal.pk)
            seal_api_key(row, Secret("changed meanwhile"), now=timezone.now())
            row.save()
        is_changed.set()
        assert saving.result(LONG) == 302
    row = TemporalConnection.objects.get()
    assert (row.name, open_api_key(row)) == ("renamed", Secret("changed meanwhile"))


def test_a_new_person_is_on_record_without_the_password(fleet: Fleet, client: Client) -> None:
    password = "correct horse battery staple"
    data = {"username": "grace", "password1": password, "password2": password, "usable_password": "true"}
    assert client.post(url(User, "add"), data).status_code == 302
    event = AuditEvent.objects.get(action="user.created")
    assert (event.actor, event.object_name) == ("user:ada", "grace")
    assert "password" not in event.changes


def test_a_password_that_an_administrator_sets_is_on_record(fleet: Fleet, client: Client) -> None:
    """Whoever sets another's password can act as that person afterwards."""
    grace = person("grace", is_staff=True, is_superuser=True)
    password = "correct horse battery staple"
    data = {"password1": password, "password2": password, "usable_password": "true"}
    address = reverse("admin:auth_user_password_change", args=[grace.pk])
    assert client.post(address, data).status_code == 302
    grace.refresh_from_db()
    assert grace.check_password(password)
    event = AuditEvent.objects.get(object_type="user", object_id=str(grace.pk))
    assert event.actor == "user:ada"
    assert grace.password not in str(event.changes)


def test_a_password_is_not_shown_nor_its_hash(fleet: Fleet, client: Client) -> None:
    user = person()
    user.set_password("correct horse battery staple")
    user.save()
    client.force_login(user)
    page = client.get(url(User, "change", user.pk)).content.decode()
    assert user.password.rpartition("$")[2] not in unescape(page)


def test_a_new_key_is_shown_in_one_answer_that_nobody_may_store(fleet: Fleet, client: Client) -> None:
    response = client.post(url(ApiKey, "add"), {"name": "once", "days": 1, "worker": fleet.worker.pk})
    assert "no-store" in response["Cache-Control"]
    shown = re.search(r'id="api-key"[^>]*>([^<]+)<', response.content.decode())
    assert shown
    assert start(fleet, token=shown[1]).status_code == 200
    cache.clear()
    for model in REGISTERED:
        for page in pages_of(model):
            assert shown[1] not in client.get(page).content.decode()
    with suppress(KeyError):
        assert shown[1] not in str(client.session.items())
    assert shown[1] not in str(everything())


@pytest.mark.parametrize("page", ["rotate", "revoke"])
def test_a_key_is_neither_rotated_nor_revoked_by_a_link(page: str, fleet: Fleet, client: Client) -> None:
    before = everything()
    assert client.get(url(ApiKey, page, fleet.api_key.pk), {"grace_hours": "0", "reason": "x"}).status_code == 200
    assert everything() == before


def test_rotating_a_key_twice_is_explained(fleet: Fleet, client: Client) -> None:
    address = url(ApiKey, "rotate", fleet.api_key.pk)
    assert "no-store" in client.post(address, {"grace_hours": "1"})["Cache-Control"]
    response = client.post(address, {"grace_hours": "1"})
    assert response.status_code == 200
    assert "already rotated" in response.content.decode()
    assert ApiKey.objects.count() == 2


@pytest.mark.parametrize("hours", ["", "-1", "721", "abc", "9" * 400, "\x00"])
def test_an_odd_grace_period_is_explained(hours: str, fleet: Fleet, client: Client) -> None:
    response = client.post(url(ApiKey, "rotate", fleet.api_key.pk), {"grace_hours": hours})
    assert response.status_code == 200
    assert response.context["form"].errors["grace_hours"]
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("reason", ["", " ", "r" * 301, "\x00", "\u00a0"])
def test_an_odd_reason_to_revoke_is_explained(reason: str, fleet: Fleet, client: Client) -> None:
    response = client.post(url(ApiKey, "revoke", fleet.api_key.pk), {"reason": reason})
    assert response.status_code == 200
    assert response.context["form"].errors["reason"]
    assert ApiKey.objects.get().revoked_at is None


@pytest.mark.parametrize("model", ["environment", "temporalconnection", "litellmconnection", "workerqueue", "worker"])
def test_the_text_that_names_a_row_finds_it(model: str, fleet: Fleet, client: Client) -> None:
    rows = [fleet.environment, fleet.temporal, fleet.litellm, fleet.queue, fleet.worker]
    row = next(row for row in rows if row._meta.model_name == model)
    found = client.get(url(type(row), "changelist"), {"q": str(row)}).context["cl"].result_list
    assert list(found) == [row]
