"""Rows that are deleted between two statements of one call: it is answered as if they had never been, not by 5xx.

A second session deletes them, with all that needs them, before each statement in turn. What the call has locked by then
cannot go, as in life.
"""

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.cache import cache
from django.db import connection

from environments.limits import counts
from tests.support import factories
from tests.support.calls import fresh_fleet, shared_client, start
from tests.support.console import person, signed_in
from tests.support.factories import Fleet
from workers.models import KeyRole

UNKNOWN = "00000000-0000-4000-8000-000000000000"
#: Tables of an organization, each with the column that leads to what it is part of; the first to be deleted first.
TABLES = (
    "workers_instancereport",
    "workers_workerinstance",
    "workers_workerstart",
    "workers_refusal",
    "workers_apikey",
    "workers_updatelock",
    "workers_worker",
    "workers_workerqueue",
    "environments_environment",
    "environments_auditevent",
    "environments_datakey",
    "environments_temporalconnection",
    "environments_litellmconnection",
    "environments_organization",
)
ALL_WORKERS = "workers_instancereport workers_workerinstance workers_refusal workers_apikey workers_worker"
#: What is deleted -> the tables that lose their rows by it, all of which are of the one fleet.
VANISHING = {
    "process": "workers_instancereport workers_workerinstance",
    "key": "workers_refusal workers_apikey",
    "worker": ALL_WORKERS,
    "queue": f"workers_updatelock {ALL_WORKERS} workers_workerqueue",
    "environment": f"workers_updatelock {ALL_WORKERS} workers_workerqueue environments_environment",
    "organization": " ".join(TABLES),
}
#: Deleting what the key is not for leaves the key.
LEAVES_THE_KEY = ("worker", "queue", "environment")

FULL = {"status": "idle", "system_info": {"hostname": "host", "pid": 1}, "logs": ["line"], "worker_metadata": {"a": 1}}
BODIES: dict[str, Any] = {
    "workers/{worker}/start": {},
    "workers/{worker}/heartbeat": FULL,
    "workers/{worker}/disconnect": {"reason": "shutdown"},
    "workers/register": {"environment_name": "production"},
    "workers/heartbeat": {"worker_id": "{worker}", "environment_name": "production", "status": "idle"},
    "worker-queues/{queue}/start": {},
    "worker-queues/{queue}/workers/worker-1/update-lock": {"worker_id": "worker-1"},
}
#: What a manager changes, as the method and what is sent.
CHANGES: dict[str, tuple[str, Any]] = {
    "worker-queues/{queue}": ("patch", {"heartbeat_interval": 30}),
    "worker-queues/{queue}?dry_run=true": ("patch", {"heartbeat_interval": 30}),
    "registered-workers/{worker}": ("patch", {"description": "changed"}),
    "api-keys": ("post", {"name": "new", "queue_id": "{queue}"}),
}
READS = (
    "worker-queues",
    "worker-queues/{queue}",
    "worker-queues/{queue}/workers",
    "worker-queues/{queue}/config",
    "worker-queues/{queue}/metrics",
    "worker-queues/{queue}/worker-command",
    "worker-queues/{queue}/install-script",
    "worker-queues/{queue}/update-lock-status",
    "environments",
    "environments/{environment}",
    "environments/{environment}/worker-queues",
)
CALLS = (
    *(("post", path) for path in BODIES),
    ("delete", "worker-queues/{queue}/workers/worker-1/update-lock"),
    *(("get", path) for path in READS),
)


def concerns(what: str, path: str) -> bool:
    """Whether a call may need what vanishes; keys and organizations are needed by all."""
    is_of_worker = path.startswith("workers/")
    return {
        "process": is_of_worker,
        "worker": is_of_worker,
        "queue": is_of_worker or "queue" in path,
        "environment": "environment" in path or path == "workers/register",
    }.get(what, True)


CASES = [(*call, [what for what in VANISHING if concerns(what, call[1])]) for call in CALLS]
CASES += [
    (method, path, ["queue" if "queue" in path or path == "api-keys" else "worker"])
    for path, (method, _) in CHANGES.items()
]


#: What can be inserted of a table.
COLUMNS = """
SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = %s AND is_generated = 'NEVER'
"""
COLUMNS_OF: dict[str, str] = {}


class Vanishing:
    """A fleet that can be deleted in part by a second session, and brought back."""

    def __init__(self, session: Any, fleet: Fleet, token: str) -> None:
        self.session, self.fleet, self.token = session, fleet, token
        session.autocommit = True
        session.execute("SET lock_timeout = 20")
        session.execute("SET session_replication_role = replica")  # whoever deletes all at once needs no order
        session.execute(";".join(f"CREATE TEMP TABLE kept_{table} AS TABLE {table}" for table in TABLES))
        self._bring_back = ";".join(_bring_back(session, table) for table in TABLES)

    def delete(self, what: str, *, leaves_key: bool) -> None:
        """Deletes it; nothing when somebody holds a part of it."""
        try:
            leaving = {"workers_apikey", "workers_refusal"} if leaves_key else set()
            gone = [f"DELETE FROM {table}" for table in VANISHING[what].split() if table not in leaving]  # noqa: S608
            self.session.execute(";".join(gone))  # all of them, or none
        except psycopg.errors.LockNotAvailable:
            pass

    def bring_back(self) -> None:
        """All rows as they were."""
        self.session.execute(self._bring_back)
        cache.clear()
        counts.forget()

    def call(self, method: str, path: str) -> Any:
        """The answer to a call of the API."""
        ids = {"worker": self.fleet.worker.pk, "queue": self.fleet.queue.pk, "environment": self.fleet.environment.pk}
        sent = CHANGES[path][1] if path in CHANGES else BODIES.get(path, {})
        body = json.dumps(sent).replace("{worker}", str(ids["worker"])).replace("{queue}", str(ids["queue"]))
        return shared_client().generic(
            method.upper(),
            f"/api/v1/{path.format(**ids)}",
            body if method in {"post", "patch"} else "",
            "application/json",
            HTTP_AUTHORIZATION=f"Bearer {self.token}",
        )


def _bring_back(session: Any, table: str) -> str:
    if table not in COLUMNS_OF:
        (COLUMNS_OF[table],) = session.execute(COLUMNS, [table]).fetchone()
    columns = COLUMNS_OF[table]
    return f"DELETE FROM {table}; INSERT INTO {table} ({columns}) SELECT {columns} FROM kept_{table}"  # noqa: S608


@contextmanager
def before_statement(number: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """Acts before the statement of this number; gives all statements."""
    statements: list[str] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        if len(statements) == number:
            act()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        yield statements


@pytest.fixture
def vanishing(another: Any, caplog: pytest.LogCaptureFixture) -> Vanishing:
    caplog.set_level(logging.CRITICAL)
    fleet = fresh_fleet()
    token = factories.issue_token(fleet.organization, role=KeyRole.MANAGER)
    assert start(fleet, {"system_info": {"hostname": "host", "pid": 1}}, token=token).status_code == 200
    return Vanishing(another, fleet, token)


@pytest.mark.parametrize(("method", "path", "vanish"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_call_whose_rows_vanish_is_refused_and_never_5xx(
    method: str, path: str, vanish: list[str], vanishing: Vanishing
) -> None:
    for what in vanish:
        answers = []
        for leaves_key in (True, False) if what in LEAVES_THE_KEY else (False,):
            for number in itertools.count(1):
                with before_statement(number, lambda: vanishing.delete(what, leaves_key=leaves_key)) as statements:  # noqa: B023
                    status = vanishing.call(method, path).status_code
                vanishing.bring_back()
                if len(statements) < number:
                    assert status in {200, 201, 204}
                    break
                answers.append((status, f"{what} gone before statement {number}: {statements[number - 1][:80]}"))
        assert [answer for answer in answers if answer[0] not in {200, 201, 204, 401, 403, 404, 409}] == []
        assert what == "process" or {status for status, _ in answers} & {401, 404}


#: Pages of the console -> what is sent to them, and what vanishes meanwhile.
PAGES: dict[str, tuple[dict[str, str], str]] = {
    "worker/{worker}/change/": ({"name": "changed", "is_disabled": "on", "_save": "Save"}, "worker"),
    "worker/{worker}/delete/": ({"post": "yes"}, "worker"),
    "worker/bulk/disable/": ({"workers": "{worker}"}, "worker"),
    "worker/bulk/move/": ({"workers": "{worker}", "queue": "{other}"}, "worker"),
    "workerqueue/{queue}/change/": (
        {"name": "changed", "heartbeat_interval": "5", "duplicate_policy": "allow"},
        "queue",
    ),
    "apikey/{key}/rotate/": ({"grace_hours": "1"}, "key"),
    "apikey/{key}/revoke/": ({"reason": "leaked", "is_confirmed": "on"}, "key"),
    "apikey/add/": ({"name": "new", "days": "1", "scope": "worker", "worker": "{worker}"}, "worker"),
    "worker/add/": ({"name": "new", "queue": "{queue}", "is_key_issued": "on", "days": "1"}, "queue"),
}


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_whose_row_vanishes_is_refused_and_never_5xx(page: str, method: str, vanishing: Vanishing) -> None:
    fleet, problems = vanishing.fleet, []
    client = signed_in(person(is_staff=True, is_superuser=True))
    ids = {"worker": fleet.worker.pk, "queue": fleet.queue.pk, "key": fleet.api_key.pk, "other": UNKNOWN}
    sent, what = PAGES[page]
    data = {name: text.format(**ids) for name, text in sent.items()} if method == "post" else {}
    for number in itertools.count(1):
        with before_statement(number, lambda: vanishing.delete(what, leaves_key=False)) as statements:
            response = getattr(client, method)(f"/admin/workers/{page.format(**ids)}", data)
        vanishing.bring_back()
        if response.status_code >= 500:
            problems.append(f"{response.status_code} before statement {number} ({statements[number - 1 :][:1]})")
        if len(statements) < number:
            break
    assert problems == []
