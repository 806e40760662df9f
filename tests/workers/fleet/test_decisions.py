"""Reason and end of what is disabled or draining: in documents, in what is exported, in bulk, and over HTTP."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet, shared_client
from tests.support.documents import ACME, apply, apply_all, everything
from tests.support.factories import ACTOR, Fleet
from workers.fleet import FleetError, bulk
from workers.models import KeyRole, State, Worker, WorkerQueue
from workers.models.states import HAS_PASSED, STATE_FIELDS, WITHOUT_STATE

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db]

UNTIL = datetime(2100, 1, 31, 18, tzinfo=UTC)
HELD = ', is_disabled: true, state_reason: "no disk: ask Ann", state_ends_at: 2100-01-31T18:00:00Z'
W1 = "{name: w1, id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
ENABLED = (False, False, "", None)
NAMES = ("is_disabled", "is_draining", "state_reason", "state_ends_at")


def held(told: str = HELD, *, of_queue: str = "") -> str:
    queue = "- name: default\n"
    assert W1 in ACME
    assert queue in ACME
    return ACME.replace(W1, W1 + told).replace(queue, queue + of_queue)


def stored(name: str = "w1") -> tuple[Any, ...]:
    return Worker.objects.values_list(*NAMES).get(name=name)


def exported(*arguments: str) -> str:
    out = io.StringIO()
    call_command("export", *arguments, stdout=out)
    return out.getvalue()


def worker_in(text: str) -> dict[str, Any]:
    (organization,) = yaml.safe_load(text)["organizations"]
    worker: dict[str, Any] = organization["environments"][0]["worker_queues"][0]["workers"][0]
    return worker


# --- Documents -------------------------------------------------------------------------------------------------------------


def test_both_members_are_planned_applied_exported_and_applied_again() -> None:
    apply(ACME)
    of_queue = "            is_draining: true\n            state_ends_at: '2100-01-31 20:00:00+02:00'\n"
    (queue, worker) = apply(held(of_queue=of_queue), is_dry_run=True)
    end = '"2100-01-31 18:00:00+00:00"'
    assert str(worker) == (
        "updated worker acme/production/default/w1: "
        f'is_disabled false -> true, state_reason "" -> "no disk: ask Ann", state_ends_at null -> {end}'
    )
    assert str(queue).endswith(f"is_draining false -> true, state_ends_at null -> {end}")
    assert stored() == ENABLED
    apply(held(of_queue=of_queue))
    assert stored() == (True, False, "no disk: ask Ann", UNTIL)
    assert WorkerQueue.objects.values_list(*NAMES).get() == (False, True, "", UNTIL)
    event = AuditEvent.objects.filter(action="worker.updated").get()
    assert event.changes["state_ends_at"] == [None, "2100-01-31 18:00:00+00:00"]
    assert apply(held(of_queue=of_queue)) == []
    for arguments in ((), ("--format", "json")):
        text = exported(*arguments)
        told = worker_in(text)
        assert {**told, "state_ends_at": str(told["state_ends_at"])}.items() >= {
            "is_disabled": True,
            "state_reason": "no disk: ask Ann",
            "state_ends_at": "2100-01-31 18:00:00+00:00",
        }.items()
        assert apply(text) == []


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (", state_reason: because", WITHOUT_STATE),
        (", state_ends_at: 2100-01-31", WITHOUT_STATE),
        (", is_disabled: false, state_reason: because", WITHOUT_STATE),
        (", is_disabled: true, state_ends_at: tomorrow", "state_ends_at: expected a time such as 2027-01-31T18:00:00Z"),
        (
            ", is_disabled: true, state_ends_at: 2100-02-30",
            "state_ends_at: expected a time such as 2027-01-31T18:00:00Z",
        ),
        (", is_disabled: true, state_ends_at: 7", "state_ends_at: expected a time such as 2027-01-31T18:00:00Z"),
        (", is_disabled: true, state_ends_at: 0001-01-01T00:00:00+09:00", "state_ends_at: expected a time such as"),
        (", is_disabled: true, state_ends_at: [2100-01-31]", "state_ends_at: expected a text"),
        (
            ', is_disabled: true, state_reason: "a\\nb"',
            "state_reason: Use one line of text, without control characters.",
        ),
        (
            f", is_disabled: true, state_reason: {'x' * 201}",
            "state_reason: Ensure this value has at most 200 characters",
        ),
        (", is_disabled: true, state_reason: null", "state_reason: is empty; leave the field out to keep its value"),
    ],
)
def test_what_a_document_cannot_say_is_refused_whole(told: str, message: str) -> None:
    apply(ACME)
    before = everything()
    with pytest.raises(FleetError, match=r"fleet\.yaml:20") as refused:
        apply(held(told))
    assert message in str(refused.value)
    assert everything() == before


def test_a_document_goes_on_to_say_what_has_ended() -> None:
    """What ended is enabled, whether the row still has it, somebody enabled it, or it is new."""
    past = HELD.replace("2100", "2020")
    kept = ["kept worker acme/production/default/w1 (its state_ends_at has passed, so it is enabled)"]
    assert kept[0] in list(map(str, apply(held(past))))
    assert stored() == ENABLED
    assert list(map(str, apply(held(past)))) == kept
    Worker.objects.filter(name="w1").update(is_disabled=True, state_ends_at=timezone.now())
    assert list(map(str, apply(held(past)))) == kept
    assert "is_disabled" not in worker_in(exported())


@pytest.mark.parametrize(
    ("told", "after"),
    [
        ("", (True, False, "theirs", UNTIL)),
        (", is_disabled: false", ENABLED),
        (", state_ends_at: null", (True, False, "theirs", None)),
        (", state_reason: ours", (True, False, "ours", UNTIL)),
        (", is_disabled: false, is_draining: true", (False, True, "", None)),
        (", is_disabled: false, is_draining: true, state_reason: ours", (False, True, "ours", None)),
    ],
)
def test_what_a_document_leaves_out_is_kept_of_the_same_decision_and_none_of_another(
    told: str, after: tuple[Any, ...]
) -> None:
    apply(ACME)
    Worker.objects.filter(name="w1").update(is_disabled=True, state_reason="theirs", state_ends_at=UNTIL)
    apply(held(told))
    assert stored() == after


def test_what_ended_does_not_come_back_with_what_is_decided_next() -> None:
    """The row still has what ended: all of the decision is written, and told as it is beside what held before."""
    apply(ACME)
    Worker.objects.filter(name="w1").update(is_disabled=True, state_reason="old", state_ends_at=timezone.now())
    (change,) = apply(held(", is_draining: true"))
    assert change.fields == {"is_draining": [False, True]}
    assert stored() == (False, True, "", None)


def test_who_is_told_to_end_is_counted_by_what_holds() -> None:
    fleet = fresh_fleet()
    name = fleet.organization.pk
    path = f"/api/v1/workers/{fleet.worker.pk}/start"
    key = f"Bearer {fleet.token}"
    assert shared_client().post(path, b"{}", "application/json", HTTP_AUTHORIZATION=key).status_code == 200
    text = (
        f"organizations: [{{id: {name}, environments: [{{name: production, worker_queues: [{{name: default, workers: "
        "[{name: worker-1, is_disabled: true, state_ends_at: %s}]}]}]}]"
    )
    assert apply_all(text % "2020-01-01", is_dry_run=True).ending == []
    assert [found.processes for found in apply_all(text % "2100-01-01").ending] == [1]
    Worker.objects.update(state_ends_at=timezone.now())
    assert [found.processes for found in apply_all(text % "2100-01-01", is_dry_run=True).ending] == [1]


def test_what_pruning_disables_has_no_end() -> None:
    apply(ACME)
    worker = Worker.objects.get(name="w1")
    key = factories.issue_token(worker)
    path = f"/api/v1/workers/{worker.pk}/start"
    assert shared_client().post(path, b"{}", "application/json", HTTP_AUTHORIZATION=f"Bearer {key}").status_code == 200
    without = "\n".join(line for line in ACME.splitlines() if "w1" not in line)
    for until in (UNTIL, timezone.now()):
        Worker.objects.filter(name="w1").update(is_disabled=True, state_reason="old", state_ends_at=until)
        told = [str(change) for change in apply(without, prune=True)]
        assert told == ["disabled worker acme/production/default/w1 (it has starts on record)"]
        assert stored() == (True, False, "", None)
    assert "disabled before; it has starts on record" in str(apply(without, prune=True)[0])


# --- In bulk, and the database itself ----------------------------------------------------------------------------------------


def test_in_bulk_the_last_decision_holds_whole_and_is_on_record(fleet: Fleet) -> None:
    ids = [fleet.worker.pk]

    def decide(state: State, **why: Any) -> dict[str, Any]:
        assert bulk.set_states(ids, state, actor=ACTOR, now=timezone.now(), **why).changed == 1
        return dict(AuditEvent.objects.filter(object_id=ids[0]).latest("occurred_at").changes)

    told = decide(State.DISABLED, reason="no disk", until=UNTIL)
    assert told == {
        "is_disabled": [False, True],
        "state_reason": ["", "no disk"],
        "state_ends_at": [None, "2100-01-31 18:00:00+00:00"],
    }
    assert decide(State.DISABLED, reason="no disk")["state_ends_at"][1] is None
    assert set(decide(State.ENABLED)) == {"is_disabled", "state_reason"}
    decide(State.DRAINING, until=UNTIL)
    Worker.objects.update(state_ends_at=timezone.now())
    again = bulk.set_states(ids, State.ENABLED, actor=ACTOR, now=timezone.now())
    assert (again.changed, again.unchanged) == (0, 1), "it ended by itself"
    assert decide(State.DRAINING) == {"is_draining": [False, True]}
    assert Worker.objects.values_list(*NAMES).get() == (False, True, "", None)


@pytest.mark.parametrize("values", [{"state_reason": "x"}, {"state_ends_at": UNTIL}])
def test_the_database_takes_no_reason_and_no_end_of_nothing(fleet: Fleet, values: dict[str, Any]) -> None:
    for model in (Worker, WorkerQueue):
        with pytest.raises(IntegrityError), transaction.atomic():
            model.objects.update(**values)


# --- Over HTTP -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def send(fleet: Fleet) -> Any:
    key = f"Bearer {factories.issue_token(fleet.organization, role=KeyRole.MANAGER)}"

    def patch(**body: Any) -> tuple[int, Any]:
        path, data = f"/api/v1/worker-queues/{fleet.queue.pk}", json.dumps(body)
        response = shared_client().generic("PATCH", path, data, "application/json", HTTP_AUTHORIZATION=key)
        answer = response.json()
        names = ("status", "state_reason", "state_ends_at")
        return response.status_code, [answer[name] for name in names] if response.status_code == 200 else answer

    return patch


def test_a_manager_gives_a_queue_reason_and_end(fleet: Fleet, send: Any) -> None:
    end = "2100-01-31T18:00:00Z"
    given = {"state_reason": "no disk", "state_ends_at": end}
    assert send(status="inactive", **given) == (200, ["inactive", "no disk", end])
    assert send(status="inactive") == (200, ["inactive", "no disk", end]), "as Terraform sends it each time"
    assert send(state_ends_at=None) == (200, ["inactive", "no disk", None])
    assert send(status="paused") == (200, ["paused", None, None])
    assert send(state_reason=None, state_ends_at=end) == (200, ["paused", None, end])
    WorkerQueue.objects.update(state_ends_at=timezone.now())
    assert send(description="else") == (200, ["active", None, None])
    assert send(status="active") == (200, ["active", None, None])
    assert send(status="paused") == (200, ["paused", None, None])
    assert WorkerQueue.objects.values_list(*NAMES).get() == (False, True, "", None)
    assert send(status="active") == (200, ["active", None, None])


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ({"state_reason": "x"}, ["body"], WITHOUT_STATE),
        ({"status": "active", "state_ends_at": "2100-01-31T18:00:00Z"}, ["body"], WITHOUT_STATE),
        ({"status": "paused", "state_ends_at": "2020-01-31T18:00:00Z"}, ["body", "state_ends_at"], HAS_PASSED),
        ({"status": "paused", "state_ends_at": "soon"}, ["body", "state_ends_at"], "Input is not valid"),
        ({"status": "paused", "state_ends_at": 7}, ["body", "state_ends_at"], "Input is not valid"),
        (
            {"status": "paused", "state_ends_at": "0001-01-01T00:00:00+14:00"},
            ["body", "state_ends_at"],
            "Input is not valid",
        ),
        ({"status": "paused", "state_reason": "a\nb"}, ["body", "state_reason"], "Use one line of text"),
        ({"status": "paused", "state_reason": "x" * 201}, ["body", "state_reason"], "at most 200 characters"),
        ({"status": "paused", "state_reason": 7}, ["body", "state_reason"], "Input is not valid"),
    ],
)
def test_what_a_manager_cannot_give_is_refused_whole(
    fleet: Fleet, send: Any, body: dict[str, Any], place: list[str], message: str
) -> None:
    before = everything()
    status, answer = send(**body)
    (error,) = answer["detail"]
    assert (status, error["loc"]) == (422, place)
    assert message in error["msg"]
    assert everything() == before


def test_each_column_of_a_decision_is_one_that_is_written_along() -> None:
    assert frozenset(NAMES) == STATE_FIELDS
