"""What is disabled or draining until a moment: every door and every place before that moment, and from it on."""

import csv
import io
import json
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.doctor.workers import examine_incomplete, examine_workers
from environments.roles import EVERYWHERE
from tests.support import factories
from tests.support.calls import start
from tests.support.console import person, signed_in
from tests.support.factories import Fleet
from tests.support.heartbeats import heartbeat
from tests.support.queue_starts import boot, register
from tests.support.reading import call, read
from tests.support.worker_pages import html, words
from workers.fleet import bulk
from workers.lifecycle.decisions import refusal_of_start
from workers.models import Refusal, State, Worker, WorkerInstance, WorkerQueue, WorkerStart
from workers.reports.dashboard import look_at_fleet
from workers.reports.incomplete import told_of
from workers.reports.monitoring import count_refused

pytestmark = [pytest.mark.sqlite, pytest.mark.filterwarnings("ignore:Overriding get_action_choices")]

REASON = "the database moves"
HOUR = timedelta(hours=1)
#: What is held, and the status and sentence with which a start of the worker is refused, and a start in its queue.
CASES: dict[str, tuple[type[Worker | WorkerQueue], str, tuple[int, str], tuple[int, str]]] = {
    "worker disabled": (Worker, "is_disabled", (403, "This worker is disabled."), (200, "")),
    "worker draining": (Worker, "is_draining", (409, "This worker is draining: it does not start again."), (200, "")),
    "queue disabled": (WorkerQueue, "is_disabled", *[(409, "This worker's queue is disabled.")] * 2),
    "queue draining": (
        WorkerQueue,
        "is_draining",
        *[(409, "This worker's queue is draining: nothing new starts.")] * 2,
    ),
}
case = pytest.mark.parametrize("name", CASES)


def hold(fleet: Fleet, name: str, until: datetime | None, reason: str = REASON) -> None:
    """As it is stored; nothing else is ever written when the end comes."""
    model, flag, *_ = CASES[name]
    model.objects.update(**{flag: True}, state_reason=reason, state_ends_at=until)


def why(until: datetime | None, reason: str = REASON) -> str:
    end = f" This ends by itself at {until:%Y-%m-%d %H:%M:%S} UTC." if until else ""
    return f"{end} The reason: {reason}" if reason else end


def answer(response: Any) -> tuple[int, str]:
    return response.status_code, "" if response.status_code < 300 else response.json()["detail"]


@case
@pytest.mark.parametrize("reason", [REASON, ""])
@pytest.mark.parametrize("ends_in", [None, HOUR])
def test_what_is_held_refuses_and_says_why_and_until_when(
    fleet: Fleet, name: str, reason: str, ends_in: timedelta | None
) -> None:
    until = timezone.now() + ends_in if ends_in else None
    hold(fleet, name, until, reason)
    _, flag, of_worker, of_queue = CASES[name]
    organization_key = factories.issue_token(fleet.organization)
    for response, (status, sentence) in (
        (start(fleet), of_worker),
        (boot(fleet, token=organization_key), of_queue),
        (register(fleet, token=organization_key), of_queue),
    ):
        assert answer(response) == (status, sentence + why(until, reason) if sentence else "")
    noted = Refusal.objects.get(worker_id=fleet.worker.pk)
    assert noted.reason == of_worker[1] + why(until, reason)
    type(fleet.worker).objects.update(is_disabled=False, is_draining=False, state_reason="", state_ends_at=None)
    WorkerQueue.objects.update(is_disabled=False, is_draining=False, state_reason="", state_ends_at=None)
    assert start(fleet).status_code == 200
    hold(fleet, name, until, reason)
    beaten = of_worker[1] + why(until, reason) if flag == "is_disabled" else ""
    assert answer(heartbeat(fleet)) == ((409, beaten) if beaten else (204, ""))


@case
def test_from_its_end_on_nothing_is_refused_though_nothing_was_written(fleet: Fleet, name: str) -> None:
    organization_key = factories.issue_token(fleet.organization)
    assert start(fleet).status_code == 200
    with CaptureQueriesContext(connection) as usual:
        assert heartbeat(fleet).status_code == 204
    hold(fleet, name, timezone.now())
    with CaptureQueriesContext(connection) as ended:
        assert heartbeat(fleet).status_code == 204
    assert len(ended) == len(usual), "no other statement is needed"
    for response in (start(fleet), boot(fleet, token=organization_key), register(fleet, token=organization_key)):
        assert answer(response) == (200, "")
    assert WorkerStart.objects.count() == 4
    assert not refusal_of_start(Worker.objects.select_related("queue").get(pk=fleet.worker.pk), timezone.now())


def test_a_start_reads_the_end_where_it_reads_the_rest(fleet: Fleet, transactional_db: None) -> None:
    start(fleet)
    counts = []
    for until in (None, timezone.now() - HOUR):
        Worker.objects.update(is_disabled=until is not None, state_ends_at=until)
        with CaptureQueriesContext(connection) as captured:
            assert start(fleet).status_code == 200
        counts.append([query["sql"].split()[0] for query in captured.captured_queries])
    assert counts[0] == counts[1]


# --- Wherever the state is shown or counted ------------------------------------------------------------------------------


def shown(fleet: Fleet, client: Client, label: str) -> dict[str, Any]:
    """What each place tells, of the worker and of its queue alike, `label` being what is looked for in the lists."""
    now = timezone.now()
    out, explained = io.StringIO(), io.StringIO()
    call_command("list_workers", "--format=json", stdout=out)
    listed = json.loads(out.getvalue())
    with suppress(CommandError):
        call_command("explain_config", str(fleet.worker.pk), "--format=json", stdout=explained)
    ids = [fleet.worker.pk]
    exported = client.post("/admin/workers/worker/", {"action": "export", "_selected_action": ids})
    (row,) = csv.DictReader(io.StringIO(exported.getvalue().decode()))
    states = {model: f"/admin/workers/{model}/?state={label}" for model in ("worker", "workerqueue")}
    return {
        "start": refusal_of_start(Worker.objects.select_related("queue").get(), now),
        "explain_config": json.loads(explained.getvalue())["refusal"] or "",
        "list_workers": [listed[name] for name in ("is_disabled", "is_draining", "state_reason", "state_ends_at")],
        "workers": client.get(states["worker"]).context["cl"].result_count,
        "queues": client.get(states["workerqueue"]).context["cl"].result_count,
        "csv": row["state"],
        "worker's page": "The reason:" in words(html(client, fleet.worker)),
        "queue's page": "The reason:"
        in words(client.get(f"/admin/workers/workerqueue/{fleet.queue.pk}/change/").content.decode()),
        "api": [read(fleet, "worker-queues/{queue}")[name] for name in ("status", "state_reason", "state_ends_at")],
        "api config": read(fleet, "worker-queues/{queue}/config")["status"],
        "api command": read(fleet, "worker-queues/{queue}/worker-command")["can_register"],
        "incomplete": look_at_fleet(EVERYWHERE, hours=1, now=now).attention.incomplete_queues,
        "metrics": [figure.is_incomplete for figure in count_refused(now)],
        "incomplete page": bool(told_of(fleet.queue, now)),
        "incomplete workers": client.get("/admin/workers/worker/?attention=incomplete").context["cl"].result_count,
        "doctor incomplete": len(list(examine_incomplete(now))),
        "doctor workers": len(list(examine_workers(now))),
        "bulk": [share.unchanged for share in bulk.shares_of(ids, now, state=State(label))],
    }


@case
def test_every_place_tells_what_holds_and_nothing_of_it_from_its_end_on(fleet: Fleet, name: str) -> None:
    """The queue lacks a connection, and the worker was made long ago: each is told only of what may start."""
    fleet.token = factories.issue_token(fleet.organization)
    client = signed_in(person(is_staff=True, is_superuser=True))
    factories.point(fleet.organization, temporal_connection=None)
    Worker.objects.update(created_at=timezone.now() - timedelta(days=30))
    model, flag, (_, sentence), _ = CASES[name]
    label = "Disabled" if flag == "is_disabled" else "Draining"
    usual = shown(fleet, client, label)
    until = (timezone.now() + HOUR).replace(microsecond=0)
    hold(fleet, name, until)
    held = shown(fleet, client, label)
    is_worker, is_disabled = model is Worker, flag == "is_disabled"
    status = "active" if is_worker else "inactive" if is_disabled else "paused"
    told = [REASON, until.isoformat().replace("+00:00", "Z")]
    assert held == usual | {
        "start": sentence + why(until),
        "explain_config": sentence + why(until),
        "worker's page": True,
        "doctor workers": 0,
        **({"incomplete workers": 0} if is_disabled else {}),
        **(
            {
                "list_workers": [is_disabled, not is_disabled, REASON, until.isoformat()],
                "workers": 1,
                "csv": label.lower(),
                "bulk": [1],
            }
            if is_worker
            else {
                "queues": 1,
                "queue's page": True,
                "api": [status, *told],
                "api config": status,
                "api command": False,
                **(
                    dict.fromkeys(("incomplete", "doctor incomplete"), 0)
                    | {"incomplete page": False, "metrics": [False]}
                    if is_disabled
                    else {}
                ),
            }
        ),
        **({"incomplete": 1} if is_worker else {}),
    }
    hold(fleet, name, timezone.now() - HOUR)
    assert shown(fleet, client, label) == usual


def test_the_line_of_list_workers_tells_end_and_reason(fleet: Fleet) -> None:
    out = io.StringIO()
    hold(fleet, "worker draining", datetime(2100, 1, 2, 3, 4, 5, tzinfo=timezone.get_current_timezone()))
    call_command("list_workers", stdout=out)
    assert out.getvalue().rstrip().endswith(f"draining until 2100-01-02T03:04:05Z: {REASON}")


def test_a_process_that_was_told_to_end_is_not_told_so_after_the_end(fleet: Fleet) -> None:
    call(fleet, "start")
    hold(fleet, "worker disabled", timezone.now() + HOUR)
    assert heartbeat(fleet).status_code == 409
    hold(fleet, "worker disabled", timezone.now())
    assert heartbeat(fleet).status_code == 204
    assert not WorkerInstance.objects.get().is_superseded
