"""Which locks a page that changes something takes, and when; on a real PostgreSQL."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import form_of, person, post_confirmed, signed_in, url
from tests.support.factories import Fleet
from tests.support.waiting import LONG, wait_for_a_waiting_session
from workers.models import ApiKey, Worker

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

#: Each level and a connection, with a change of what its workers are given.
CHANGES: dict[str, dict[str, Any]] = {
    "organization": {"name": "Another"},
    "environment": {"description": "another"},
    "queue": {"heartbeat_interval": 17},
    "worker": {"description": "another"},
    "temporal": {"host": "another.example.com:7233"},
}


@pytest.fixture
def fleet(another: psycopg.Connection[Any]) -> Fleet:
    another.autocommit = True
    return fresh_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


@contextmanager
def after_each_statement(act: Callable[[str], None]) -> Iterator[None]:
    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        act(sql)
        return result

    with connection.execute_wrapper(watch):
        yield


@pytest.mark.parametrize("name", CHANGES)
def test_an_edit_never_stops_what_refers_to_the_row_and_locks_it_only_to_save(
    another: psycopg.Connection[Any], fleet: Fleet, client: Client, name: str
) -> None:
    row = getattr(fleet, name)
    address = url(type(row), "change", row.pk)
    form = {**form_of(client, address), **CHANGES[name]}
    held: list[str] = []

    def probe(sql: str) -> None:
        rows = f"SELECT 1 FROM {row._meta.db_table} WHERE id = %s FOR"  # noqa: S608  # a name of ours
        another.execute(f"{rows} KEY SHARE NOWAIT", [row.pk])
        try:
            another.execute(f"{rows} NO KEY UPDATE NOWAIT", [row.pk])
        except psycopg.errors.LockNotAvailable:
            held.append(sql)

    with after_each_statement(probe):
        assert post_confirmed(client, address, form).status_code == 302
    assert held[0].endswith("FOR NO KEY UPDATE")
    which_workers = [
        sql for sql in held if 'FROM "workers_worker"' in sql and "organization_id" in sql.partition("WHERE")[2]
    ]
    assert which_workers == []


@pytest.mark.parametrize("name", CHANGES)
def test_a_form_that_is_wrong_locks_nothing(fleet: Fleet, client: Client, name: str) -> None:
    row = getattr(fleet, name)
    address = url(type(row), "change", row.pk)
    wrong = {**form_of(client, address), "name": "Not A Slug\0"}
    statements: list[str] = []
    with after_each_statement(statements.append):
        assert client.post(address, wrong).status_code == 200
    assert not any(" FOR " in sql for sql in statements if "_session" not in sql)


@pytest.mark.parametrize("name", ["environment", "queue", "worker"])
def test_a_change_of_a_name_waits_for_who_refers_to_the_row_without_stopping_it(
    another: psycopg.Connection[Any], fleet: Fleet, client: Client, name: str
) -> None:
    """A start refers to its queue before it locks it: who had locked it weakly, to lock it fully later, would be in its way."""
    row = getattr(fleet, name)
    address = url(type(row), "change", row.pk)
    form = {**form_of(client, address), "name": "renamed"}

    def save() -> int:
        try:
            return post_confirmed(client, address, form).status_code
        finally:
            connection.close()

    another.autocommit = False
    rows = f"SELECT 1 FROM {row._meta.db_table} WHERE id = %s FOR"  # noqa: S608  # a name of ours
    another.execute(f"{rows} KEY SHARE", [row.pk])
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(save)
        wait_for_a_waiting_session()
        another.execute(f"{rows} NO KEY UPDATE NOWAIT", [row.pk])
        another.commit()
        assert saving.result(LONG) == 302
    row.refresh_from_db()
    assert row.name == "renamed"


def test_what_another_page_saves_meanwhile_is_kept_and_not_told_as_this_one_s(fleet: Fleet, client: Client) -> None:
    address = url(Worker, "change", fleet.worker.pk)
    form = {**form_of(client, address), "description": "mine"}
    is_done = False

    def meddle(sql: str) -> None:
        nonlocal is_done
        if sql.startswith("SELECT") and 'FROM "workers_worker"' in sql and not is_done and connection.in_atomic_block:
            is_done = True
            with ThreadPoolExecutor(1) as pool:
                pool.submit(label).result(LONG)

    def label() -> None:
        Worker.objects.update(labels="theirs", is_draining=True)
        connection.close()

    with after_each_statement(meddle):
        assert client.post(address, form).status_code == 302
    worker = Worker.objects.get()
    assert (worker.description, worker.labels, worker.is_draining) == ("mine", "theirs", True)
    assert AuditEvent.objects.get(action="worker.updated").changes == {"description": ["", "mine"]}


def test_a_row_that_is_deleted_meanwhile_is_not_found(fleet: Fleet, client: Client) -> None:
    second = factories.create_worker(fleet.queue, "second")
    address = url(Worker, "change", second.pk)
    form = {**form_of(client, address), "description": "mine"}
    is_done = False

    def meddle(sql: str) -> None:
        nonlocal is_done
        if sql.startswith("SELECT") and 'FROM "workers_worker"' in sql and not is_done and connection.in_atomic_block:
            is_done = True
            with ThreadPoolExecutor(1) as pool:
                pool.submit(delete).result(LONG)

    def delete() -> None:
        Worker.objects.filter(pk=second.pk).delete()
        connection.close()

    with after_each_statement(meddle):
        assert client.post(address, form).status_code == 404
    assert not AuditEvent.objects.filter(action="worker.updated").exists()


def test_a_post_to_the_page_of_what_cannot_be_edited_is_refused(fleet: Fleet, client: Client) -> None:
    assert client.post(url(ApiKey, "change", fleet.api_key.pk), {}).status_code == 403


def test_a_moved_worker_s_page_names_the_process_that_is_cut_off(fleet: Fleet, client: Client) -> None:
    assert start(fleet, token=factories.issue_token(fleet.queue)).status_code == 200
    right = factories.create_queue(fleet.environment, "right")
    address = url(Worker, "change", fleet.worker.pk)
    page = client.post(address, {**form_of(client, address), "queue": right.pk}).content.decode()
    assert f"1 running process uses an API key that does not reach {right.task_queue_name}" in page
    assert start(fleet).status_code == 200
    page = client.post(address, {**form_of(client, address), "queue": right.pk}).content.decode()
    assert page.count("does not reach") == 1  # the older one
