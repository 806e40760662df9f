"""A dry run tells exactly what the run does, and what either tells is what the database then says."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.models import Organization
from tests.support import factories
from tests.support.documents import ACME, apply, apply_all
from tests.support.quick import examples
from tests.support.yaml_documents import documents
from workers.configuration.impact import compare, look
from workers.fleet import Action, Applied, FleetError
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue


@dataclass
class Told:
    """What a run told, without what is made anew each time: new ids, and fingerprints under new keys."""

    lines: list[Any]
    impact: list[Any]
    cannot_start: list[Any]
    cut_off: list[Any]
    ending: list[Any]

    @classmethod
    def of(cls, applied: Applied) -> "Told":
        changes = [change.as_json() for change in applied.changes]
        for change in changes:
            if change["action"] == Action.CREATED:
                del change["id"]
                for name in ("id", "api_key"):
                    change["fields"].pop(name, None)
        return cls(
            changes,
            *(
                [replace(each, queue_id=None) if hasattr(each, "queue_id") else each for each in found]
                for found in effects_of(applied)
            ),
        )


def effects_of(applied: Applied) -> list[list[Any]]:
    return [applied.impact, applied.cannot_start, applied.cut_off, applied.ending]


def outcome_of(text: str, **options: Any) -> Told | str:
    try:
        return Told.of(apply_all(text, **options))
    except FleetError as error:
        return str(error)


def run_all_workers() -> None:
    """A process of each worker, with a key for its queue."""
    for worker in Worker.objects.all():
        key = factories.issue_key(worker.queue).row
        run_process(worker, key)


def run_process(worker: Worker, key: ApiKey) -> None:
    now = timezone.now()
    WorkerInstance.objects.create(
        id=uuid4(),
        organization_id=worker.organization_id,
        worker=worker,
        queue=worker.queue,
        api_key_id=key.pk,
        started_at=now,
        last_heartbeat_at=now,
    )


@pytest.mark.django_db
def test_a_dry_run_tells_what_the_run_does_and_both_tell_what_workers_are_given() -> None:
    apply(ACME)
    run_all_workers()

    @given(text=st.one_of(documents(may_be_wrong=False), moved()), prune=st.booleans())
    @settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
    def check(text: str, prune: bool) -> None:
        with transaction.atomic():
            before = look(Organization.objects.values_list("pk", flat=True))
            told_before = told_to_end()
            dry = outcome_of(text, prune=prune, is_dry_run=True)
            real = outcome_of(text, prune=prune)
            assert dry == real
            if isinstance(real, Told):
                after = look(Organization.objects.values_list("pk", flat=True))
                done = [replace(each, queue_id=None) for each in compare(before, after, now=timezone.now())]
                assert real.impact == done
                again = apply(text, prune=prune)
                assert {change.action for change in again} <= {Action.KEPT}
                assert sum(found.processes for found in real.cut_off) == unreachable()
                assert sum(found.processes for found in real.ending) == len(told_to_end() - told_before)
            transaction.set_rollback(True)

    check()


def unreachable() -> int:
    """Running processes whose usable key does not cover their worker as it is stored."""
    keys = ApiKey.objects.usable(timezone.now()).in_bulk()
    live = WorkerInstance.objects.live(timezone.now()).select_related("worker__queue")
    return sum(not keys[process.api_key_id].covers(process.worker) for process in live if process.api_key_id in keys)


def told_to_end() -> set[Any]:
    """The running processes whose worker, or its queue, is disabled."""
    is_disabled = Q(worker__is_disabled=True) | Q(worker__queue__is_disabled=True)
    return set(WorkerInstance.objects.live(timezone.now()).filter(is_disabled).values_list("pk", flat=True))


def moved() -> st.SearchStrategy[str]:
    """The workers by their ids or names in some of two queues, renamed, and new ones with names that are given up."""
    ids = {"w1": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"}
    worker = st.sampled_from(["w1", "w2", "w3"]).flatmap(
        lambda name: st.sampled_from([f"{{name: {name}}}", *(f"{{name: {name}, id: {pk}}}" for pk in ids.values())])
    )
    listed = st.lists(worker, max_size=3).map(lambda workers: f"[{', '.join(workers)}]")
    queue = st.tuples(st.sampled_from(["default", "other"]), listed, st.sampled_from([30, 60]), st.booleans()).map(
        lambda drawn: (
            f"{{name: {drawn[0]}, workers: {drawn[1]}, heartbeat_interval: {drawn[2]}, is_disabled: {str(drawn[3]).lower()}}}"
        )
    )
    return st.lists(queue, max_size=2).map(
        lambda queues: (
            f"organizations: [{{id: acme, environments: [{{name: production, worker_queues: [{', '.join(queues)}]}}]}}]"
        )
    )


@pytest.mark.django_db
def test_names_that_workers_give_up_can_be_taken_in_the_same_run() -> None:
    apply(ACME)
    first = Worker.objects.get(name="w1").pk
    text = "organizations: [{id: acme, environments: [{name: production, worker_queues: [%s]}]}]"
    moved_away = f"{{name: other, workers: [{{name: w1, id: {first}}}]}}, {{name: default, workers: [{{name: w1}}]}}"
    changes = apply(text % moved_away)
    assert [(change.action, change.name) for change in changes] == [
        (Action.CREATED, "acme/production/other"),
        (Action.UPDATED, "acme/production/other/w1"),
        (Action.CREATED, "acme/production/default/w1"),
    ]
    assert Worker.objects.get(queue=WorkerQueue.objects.get(name="other")).pk == first


# --- Whose key no longer reaches ---------------------------------------------------------------------------------------------

ELSEWHERE = """\
organizations:
  - id: acme
    environments:
      - {name: production, worker_queues: [{name: right, workers: [%s]}]}
      - {name: staging, worker_queues: [{name: right, workers: [%s]}]}
"""
W1 = "{name: w1, id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff}"
REFUSED = "running process uses an API key that does not reach acme"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("scope", "text", "told"),
    [
        ("worker", ELSEWHERE % (W1, ""), []),
        ("queue", ELSEWHERE % (W1, ""), [f"1 {REFUSED}.production.right"]),
        ("environment", ELSEWHERE % (W1, ""), []),
        ("organization", ELSEWHERE % ("", W1), []),
        ("environment", ELSEWHERE % ("", W1), [f"1 {REFUSED}.staging.right"]),
        ("queue", ELSEWHERE % ("", W1), [f"1 {REFUSED}.staging.right"]),
        ("queue", ACME.replace("Where it counts", "Elsewhere"), []),
        ("revoked", ELSEWHERE % (W1, ""), []),
        ("silent", ELSEWHERE % (W1, ""), []),
    ],
)
@pytest.mark.parametrize("is_dry_run", [True, False])
def test_a_run_names_the_processes_whose_key_no_longer_reaches_them(
    scope: str, text: str, told: list[str], is_dry_run: bool
) -> None:
    apply(ACME)
    worker = Worker.objects.get(name="w1")
    targets = {"worker": worker, "environment": worker.queue.environment, "organization": worker.organization}
    key = factories.issue_key(targets.get(scope, worker.queue)).row
    run_process(worker, key)
    if scope == "revoked":
        ApiKey.objects.update(revoked_at=timezone.now())
    if scope == "silent":
        WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(days=1))
    applied = apply_all(text, is_dry_run=is_dry_run)
    assert [str(found) for found in applied.cut_off] == told
    assert [found.as_json()["processes"] for found in applied.cut_off] == [1] * len(told)


@pytest.mark.django_db
def test_each_process_of_a_worker_counts_by_the_key_that_it_used_last() -> None:
    apply(ACME)
    worker = Worker.objects.get(name="w1")
    for key in (factories.issue_key(worker.queue).row, factories.issue_key(worker.queue).row):
        WorkerInstance.objects.update(is_current=False, queue=None)
        run_process(worker, key)
    WorkerInstance.objects.update(is_current=False, queue=None)
    run_process(worker, factories.issue_key(worker).row)
    (found,) = apply_all(ELSEWHERE % (W1, ""), is_dry_run=True).cut_off
    assert str(found) == "2 running processes use an API key that does not reach acme.production.right"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("document", "prune"),
    [
        (ACME.replace("{name: w1,", "{name: w1, is_disabled: true,"), False),
        (ACME.replace("heartbeat_interval: 30", "is_disabled: true"), False),
        (ACME.replace("- {name: w1, id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff}", "- {name: w3}"), True),
    ],
    ids=["worker", "queue", "pruned"],
)
def test_a_run_names_the_processes_that_are_told_to_end(document: str, prune: bool) -> None:
    apply(ACME)
    run_all_workers()
    applied = apply_all(document, prune=prune)
    assert [str(found) for found in applied.ending] == ["1 running process is told to end in acme.production.default"]
    assert apply_all(document, prune=prune).ending == []


@pytest.mark.django_db
def test_who_could_not_start_any_more_is_told_before_and_after() -> None:
    apply(ACME)
    run_all_workers()
    without = ACME.replace("    litellm_connection: gateway\n", "    litellm_connection: null\n")
    lost = "2 workers in 1 queue could not start any more: no LiteLLM connection at any level (2 of them run now)"
    for is_dry_run in (True, False):
        applied = apply_all(without, is_dry_run=is_dry_run)
        assert [str(found) for found in applied.cannot_start] == [lost]
        (impact,) = applied.impact
        assert "would get no configuration" in str(impact)
        assert impact.as_json()["missing"] == "no LiteLLM connection at any level"
    assert apply_all(without).cannot_start == []
