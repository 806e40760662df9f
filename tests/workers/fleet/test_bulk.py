"""Many workers changed at once: all or none, each on record, and what is told before is what happens."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from environments import audit
from environments.audit import Actor
from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.configuration.effective import revision_for
from workers.fleet import bulk
from workers.fleet.bulk import BulkError, Outcome
from workers.models import ApiKey, Scope, State, Worker, WorkerQueue

pytestmark = pytest.mark.sqlite

ACTOR = Actor("user:ann", "203.0.113.7")


def now() -> Any:
    return timezone.now()


def ids_of(*workers: Worker) -> list[Any]:
    return [worker.pk for worker in workers]


def three(fleet: Fleet) -> list[Worker]:
    """The fleet's worker and two more."""
    return [fleet.worker, *(factories.create_worker(fleet.queue, name) for name in ("worker-2", "worker-3"))]


def states() -> dict[str, tuple[bool, bool]]:
    return {name: states for name, *states in Worker.objects.values_list("name", "is_disabled", "is_draining")}  # type: ignore[misc]


def set_states(workers: list[Worker], state: State) -> Outcome:
    return bulk.set_states(ids_of(*workers), state, actor=ACTOR, now=now())


# --- Disable, drain, enable ------------------------------------------------------------------------------------------------


def test_each_changed_worker_is_on_record_as_if_it_had_been_changed_alone(fleet: Fleet) -> None:
    workers = three(fleet)
    assert set_states(workers[:2], State.DISABLED) == Outcome(changed=2, unchanged=0)
    assert set_states(workers, State.DISABLED) == Outcome(changed=1, unchanged=2)
    events = AuditEvent.objects.filter(action="worker.updated")
    assert {event.object_id for event in events} == {str(worker.pk) for worker in workers}
    for event in events:
        assert (event.actor, event.client_address) == (ACTOR.name, ACTOR.client_address)
        assert (event.object_type, event.organization_id) == ("worker", fleet.organization.pk)
        assert event.object_name == str(Worker.objects.get(pk=event.object_id))
        assert event.changes == {"is_disabled": [False, True]}


def test_enabling_takes_back_disabled_and_draining(fleet: Fleet) -> None:
    workers = three(fleet)
    set_states(workers[:1], State.DISABLED)
    factories.point(workers[1], is_disabled=True, is_draining=True)
    assert set_states(workers, State.ENABLED) == Outcome(changed=2, unchanged=1)
    assert set(map(tuple, states().values())) == {(False, False)}
    changes = AuditEvent.objects.filter(object_id=workers[1].pk).latest("occurred_at").changes
    assert changes == {"is_disabled": [True, False], "is_draining": [True, False]}


def test_what_is_disabled_does_not_become_draining(fleet: Fleet) -> None:
    """When its end comes, it would run again in the midst of those that drain; and it runs no more already."""
    workers = three(fleet)
    set_states(workers[:1], State.DISABLED)
    assert set_states(workers, State.DRAINING) == Outcome(changed=2, unchanged=0, disabled=1)
    assert states() == {"worker-1": [True, False], "worker-2": [False, True], "worker-3": [False, True]}


def test_what_is_set_holds_for_starts(fleet: Fleet) -> None:
    for state, status in ((State.DISABLED, 403), (State.ENABLED, 200), (State.DRAINING, 409)):
        set_states([fleet.worker], state)
        assert start(fleet).status_code == status


def test_workers_that_are_gone_are_passed_over(fleet: Fleet) -> None:
    outcome = bulk.set_states([fleet.worker.pk, uuid4()], State.DISABLED, actor=ACTOR, now=now())
    assert outcome == Outcome(changed=1, unchanged=0)


def test_thousands_of_workers_take_a_handful_of_statements(fleet: Fleet, django_assert_max_num_queries: Any) -> None:
    count = 3 * audit.BATCH
    rows = [
        Worker(organization=fleet.organization, queue=fleet.queue, name=f"many-{number}") for number in range(count)
    ]
    ids = ids_of(*Worker.objects.bulk_create(rows))
    with django_assert_max_num_queries(9):
        assert bulk.set_states(ids, State.DISABLED, actor=ACTOR, now=now()).changed == count
    assert AuditEvent.objects.filter(action="worker.updated").count() == count


# --- What is told before ---------------------------------------------------------------------------------------------------


def test_the_shares_count_workers_live_ones_and_those_that_are_so_already(
    fleet: Fleet, django_assert_num_queries: Any
) -> None:
    other = factories.create_queue(fleet.environment, "other")
    workers = [*three(fleet), factories.create_worker(other)]
    set_states(workers[1:2], State.DISABLED)
    assert start(fleet).status_code == 200
    with django_assert_num_queries(2):
        shares = bulk.shares_of(ids_of(*workers), now(), state=State.DISABLED)
    assert [(share.queue.name, share.workers, share.live, share.unchanged) for share in shares] == [
        ("default", 3, 1, 1),
        ("other", 1, 0, 0),
    ]


def test_a_move_tells_the_revisions_that_starts_will_have(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other", heartbeat_interval=5)
    workers = three(fleet)
    assert start(fleet).status_code == 200
    move = bulk.look_at_move(ids_of(*workers), other, now())
    (impact,) = move.impact
    told = (impact.queue, impact.workers, impact.online, move.workers, move.live, move.cut_off, move.live_there)
    assert told == (fleet.queue.task_queue_name, 3, 1, 3, 1, 0, 0)
    assert impact.old_revision == revision_for(Worker.objects.with_chain().get(pk=workers[0].pk))
    bulk.move_workers(ids_of(*workers), other, actor=ACTOR, now=now())
    assert impact.new_revision == revision_for(Worker.objects.with_chain().get(pk=workers[0].pk))


def test_a_move_tells_whose_api_key_does_not_reach_the_other_queue(fleet: Fleet) -> None:
    other = factories.create_queue(factories.create_environment(fleet.organization, "staging"))
    assert start(fleet, token=factories.issue_token(fleet.queue)).status_code == 200
    move = bulk.look_at_move([fleet.worker.pk], other, now())
    assert (move.live, move.cut_off, move.leaves_environment) == (1, 1, True)
    second = factories.create_worker(fleet.queue, "worker-2")
    assert start(fleet, token=factories.issue_token(fleet.organization), worker_id=second.pk).status_code == 200
    move = bulk.look_at_move(ids_of(fleet.worker, second), other, now())
    assert (move.live, move.cut_off) == (2, 1)


def test_a_worker_that_is_there_already_is_no_part_of_a_move(fleet: Fleet) -> None:
    move = bulk.look_at_move([fleet.worker.pk], fleet.queue, now())
    assert (move.impact, move.workers, move.live) == ([], 0, 0)


# --- Moving ----------------------------------------------------------------------------------------------------------------


def test_moved_workers_keep_all_but_their_queue(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    workers = three(fleet)
    assert bulk.move_workers(ids_of(*workers), other, actor=ACTOR, now=now()) == Outcome(changed=3, unchanged=0)
    assert bulk.move_workers(ids_of(*workers), other, actor=ACTOR, now=now()) == Outcome(changed=0, unchanged=3)
    assert set(Worker.objects.values_list("queue", flat=True)) == {other.pk}
    event = AuditEvent.objects.get(action="worker.updated", object_id=fleet.worker.pk)
    assert event.changes == {"queue": [str(fleet.queue.pk), str(other.pk)]}
    assert start(fleet).json()["task_queue_name"] == other.task_queue_name


def moved_nowhere(workers: list[Worker], queue: WorkerQueue) -> str:
    """Tries to move them and returns why nothing was moved."""
    before = dict(Worker.objects.values_list("pk", "queue"))
    with pytest.raises(BulkError) as refused:
        bulk.move_workers(ids_of(*workers), queue, actor=ACTOR, now=now())
    assert dict(Worker.objects.values_list("pk", "queue")) == before
    assert not AuditEvent.objects.filter(action="worker.updated").exists()
    return str(refused.value)


def test_a_name_that_is_taken_there_moves_nothing(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    factories.create_worker(other, "worker-2")
    assert "would be called worker-2." in moved_nowhere(three(fleet), other)


def test_two_workers_of_one_name_are_not_moved_together(fleet: Fleet) -> None:
    second, other = (factories.create_queue(fleet.environment, name) for name in ("second", "other"))
    twins = [fleet.worker, factories.create_worker(second, "worker-1")]
    assert "would be called worker-1." in moved_nowhere(twins, other)
    assert "would be called worker-1." in moved_nowhere(twins, second)


def test_many_taken_names_are_counted(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    workers = [factories.create_worker(fleet.queue, f"taken-{number:02}") for number in range(12)]
    for worker in workers:
        factories.create_worker(other, worker.name)
    assert "taken-09 and 2 more." in moved_nowhere(workers, other)


def test_no_worker_leaves_its_organization(fleet: Fleet) -> None:
    assert "another organization" in moved_nowhere([fleet.worker], fresh_fleet().queue)


# --- Keys ------------------------------------------------------------------------------------------------------------------


def test_each_worker_gets_a_key_for_itself_alone(fleet: Fleet) -> None:
    workers = three(fleet)
    issued = bulk.issue_api_keys(ids_of(*workers), name="fleet", lifetime=timedelta(days=7), actor=ACTOR, now=now())
    assert [key.row.worker_id for key in issued] == ids_of(*workers)
    assert {(key.row.scope, key.row.name, key.row.created_by) for key in issued} == {
        (Scope.WORKER, "fleet", ACTOR.name)
    }
    assert start(fleet, token=issued[0].token.reveal()).status_code == 200
    assert start(fleet, token=issued[1].token.reveal()).status_code == 403
    assert AuditEvent.objects.filter(action="api_key.issued", actor=ACTOR.name).count() == 3


def test_a_repeated_request_makes_no_second_set_of_keys(fleet: Fleet) -> None:
    workers = three(fleet)
    bulk.issue_api_keys(ids_of(*workers[:1]), name="fleet", actor=ACTOR, now=now())
    count = ApiKey.objects.count()
    with pytest.raises(BulkError, match="Of these workers 1 has a key of this name already"):
        bulk.issue_api_keys(ids_of(*workers), name="fleet", actor=ACTOR, now=now())
    assert ApiKey.objects.count() == count


def test_no_more_keys_than_fit_one_answer_are_issued(fleet: Fleet) -> None:
    ids = [uuid4() for _ in range(bulk.MOST_KEYS + 1)]
    with pytest.raises(BulkError, match="At most 500"):
        bulk.issue_api_keys(ids, name="fleet", actor=ACTOR, now=now())


# --- Somebody else meanwhile -----------------------------------------------------------------------------------------------


def test_a_change_meanwhile_is_recorded_as_what_was_there_and_kept(transactional_db: None) -> None:
    """What is recorded is made before the workers are locked, so it is made anew when they are no longer so."""
    fleet = fresh_fleet()
    is_done = False

    def meddle(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal is_done
        result = execute(sql, params, many, context)
        if sql.startswith("SELECT") and 'FROM "workers_worker"' in sql and not is_done:
            is_done = True
            with ThreadPoolExecutor(1) as pool:
                pool.submit(drain).result(30)
        return result

    def drain() -> None:
        Worker.objects.update(is_draining=True, description="theirs")
        connection.close()

    with connection.execute_wrapper(meddle):
        assert set_states([fleet.worker], State.ENABLED) == Outcome(changed=1, unchanged=0)
    assert is_done
    assert AuditEvent.objects.get(action="worker.updated").changes == {"is_draining": [True, False]}
    worker = Worker.objects.get()
    assert (worker.is_draining, worker.description) == (False, "theirs")
