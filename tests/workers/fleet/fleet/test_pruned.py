"""A document is applied whole or not at all, prunes what it leaves out, and waits for another."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from environments.models import AuditEvent, DataKey, Environment, Organization, TemporalConnection
from tests.support.documents import ACME, ACME_SIZE, apply, everything, told
from tests.support.fleet_documents import ACTOR, begin, changed
from workers.api_keys.issuing import issue_api_key
from workers.fleet import Action, FleetError
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db]


def refusal(text: str, **options: Any) -> str:
    before = everything()
    with pytest.raises(FleetError) as caught:
        apply(text, **options)
    assert everything() == before
    return str(caught.value)


def test_an_error_in_the_last_object_leaves_nothing() -> None:
    assert "workers[1].name: " in refusal(ACME.replace("w2", "Not A Slug"))
    assert not Organization.objects.exists()
    assert not DataKey.objects.exists()


def test_all_problems_are_told_together_with_file_line_and_field() -> None:
    text = ACME.replace("acme.tmprl.cloud:7233", "https://acme").replace("https://llm", "ftp://llm")
    text = text.replace("heartbeat_interval: 30", "heartbeat_interval: 2").replace("w2", "W2")
    lines = refusal(text).splitlines()
    queue = "organizations[0].environments[0].worker_queues[0]"
    assert lines == [
        "fleet.yaml:8: organizations[0].temporal_connections[0].host: Leave out what stands before the host: write host:port.",
        "fleet.yaml:10: organizations[0].litellm_connections[0].api_url: Write an http(s) URL, such as https://service.example.com.",
        f"fleet.yaml:18: {queue}.heartbeat_interval: Ensure this value is greater than or equal to 5.",
    ]


def test_what_a_new_object_lacks_is_told_at_its_line() -> None:
    text = ACME.replace(", namespace: acme.prod", "").replace("    name: Acme\n", "")
    assert refusal(text) == "fleet.yaml:2: organizations[0].name: is required"
    text = ACME.replace(", namespace: acme.prod", "").replace(", api_key: {env: LITELLM_API_KEY}", "")
    first, second = refusal(text).splitlines()
    assert first == "fleet.yaml:8: organizations[0].temporal_connections[0].namespace: is required"
    assert second.startswith("fleet.yaml:10: organizations[0].litellm_connections[0].api_key: is required")


def test_a_connection_that_takes_no_key_needs_none() -> None:
    text = ACME.replace("api_key: {env: TEMPORAL_API_KEY}", "requires_api_key: false")
    assert len(apply(text)) == ACME_SIZE
    assert TemporalConnection.objects.get().sealed_api_key == ""


def test_an_unknown_connection_is_told_at_the_pointer() -> None:
    assert refusal(ACME.replace("temporal_connection: cloud", "temporal_connection: clod")) == (
        "fleet.yaml:4: organizations[0].temporal_connection: organization acme has no temporal connection of this name"
    )


def test_a_pointer_cannot_name_another_organizations_connection() -> None:
    apply(ACME)
    text = "organizations:\n  - id: other\n    name: Other\n    litellm_connection: gateway\n"
    assert refusal(text) == (
        "fleet.yaml:4: organizations[0].litellm_connection: organization other has no litellm connection of this name"
    )


def test_a_worker_of_another_organization_cannot_be_taken() -> None:
    apply(ACME)
    text = ACME.replace("id: acme", "id: other")
    assert refusal(text).endswith("workers[0].id: this id belongs to a worker of another organization")


def test_the_id_of_a_worker_does_not_change() -> None:
    apply(ACME)
    message = refusal(ACME.replace("6f9619ff", "00000000"))
    assert message.startswith("fleet.yaml:20: ")
    assert "workers[0].id: the worker of this name has the id 6f9619ff-8b86-4d01-b42d-00cf4fc964ff" in message


def test_one_worker_cannot_be_named_twice_by_name_and_by_id() -> None:
    apply(ACME)
    again = "              - {name: w1}\n              - {name: w9, id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff}\n"
    text = ACME.replace("              - {name: w1, id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff}\n", again)
    assert "workers[1]: is the same worker as in line 20" in refusal(text)


BARE = "organizations: [{id: acme, temporal_connection: null, litellm_connection: null, telemetry_settings: null}]"


def test_nothing_is_deleted_without_prune() -> None:
    apply(ACME)
    assert changed("organizations: [{id: acme}]") == []
    assert Worker.objects.count() == 2


def test_prune_deletes_what_nothing_refers_to() -> None:
    apply(ACME)
    assert sorted(changed(BARE, prune=True)) == [
        "deleted environment acme/production",
        "deleted litellm_connection acme/gateway",
        "deleted telemetry_settings acme/standard",
        "deleted temporal_connection acme/cloud",
        "deleted worker acme/production/default/w1",
        "deleted worker acme/production/default/w2",
        "deleted worker_queue acme/production/default",
        "updated organization acme",
    ]
    assert Organization.objects.count() == DataKey.objects.count() == 1
    assert not Environment.objects.exists()
    event = AuditEvent.objects.get(action="worker_queue.deleted")
    assert event.changes["heartbeat_interval"] == [30, None]


def test_prune_disables_a_worker_with_an_api_key_and_its_queue() -> None:
    apply(ACME)
    worker = Worker.objects.get(name="w1")
    issue_api_key(worker, name="key", actor=ACTOR, now=timezone.now())
    changes = apply("organizations: [{id: acme}]", prune=True)
    assert [str(change) for change in changes] == [
        "disabled worker acme/production/default/w1 (in use by 1 API key)",
        "deleted worker acme/production/default/w2",
        "disabled worker_queue acme/production/default (in use by 1 worker)",
        "kept environment acme/production (in use by 1 worker queue)",
        "kept temporal_connection acme/cloud (in use by 1 organization)",
        "kept litellm_connection acme/gateway (in use by 1 organization)",
        "kept telemetry_settings acme/standard (in use by 1 organization)",
    ]
    assert Worker.objects.get().is_disabled
    assert WorkerQueue.objects.get().is_disabled
    assert AuditEvent.objects.get(action="worker.disabled").changes == {"is_disabled": [False, True]}


def test_pruning_again_changes_nothing() -> None:
    apply(ACME)
    issue_api_key(Worker.objects.get(name="w1"), name="key", actor=ACTOR, now=timezone.now())
    apply("organizations: [{id: acme}]", prune=True)
    before = everything()
    assert {change.action for change in apply("organizations: [{id: acme}]", prune=True)} == {Action.KEPT}
    assert everything() == before


def test_prune_disables_a_worker_that_has_started_and_loses_no_record() -> None:
    apply(ACME)
    key = issue_api_key(Organization.objects.get(), name="all", actor=ACTOR, now=timezone.now()).row
    begin(Worker.objects.get(name="w1"), key)
    first = apply("organizations: [{id: acme}]", prune=True)[0]
    assert str(first) == "disabled worker acme/production/default/w1 (it has starts on record)"
    assert (WorkerStart.objects.count(), WorkerInstance.objects.count(), ApiKey.objects.count()) == (1, 1, 1)


@pytest.mark.parametrize(("model", "kept"), [(WorkerQueue, "worker_queue"), (Environment, "environment")])
def test_prune_keeps_what_an_api_key_is_for(model: Any, kept: str) -> None:
    apply(ACME)
    issue_api_key(model.objects.get(), name="key", actor=ACTOR, now=timezone.now())
    changes = {change.kind: change for change in apply("organizations: [{id: acme}]", prune=True)}
    assert changes[kept].action in {Action.KEPT, Action.DISABLED}
    assert changes[kept].reason == "in use by 1 API key"


def test_prune_stays_within_the_organizations_of_the_document() -> None:
    apply(ACME)
    other = ACME.replace("id: acme", "id: other").replace(", id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "")
    apply(other)
    apply(BARE, prune=True)
    assert Worker.objects.filter(organization="other").count() == 2
    assert apply(other, prune=True) == []


def test_prune_does_not_delete_what_this_run_creates() -> None:
    apply(ACME)
    new = "{name: w3, id: 11111111-8b86-4d01-b42d-00cf4fc964ff}"
    assert changed(ACME.replace("{name: w2, is_disabled: true}", new), prune=True) == [
        "created worker acme/production/default/w3",
        "deleted worker acme/production/default/w2",
    ]
    assert Worker.objects.filter(pk="11111111-8b86-4d01-b42d-00cf4fc964ff").exists()


def at_once(*texts: str) -> list[Any]:
    """The outcome of each document, applied by threads that begin together."""
    barrier = Barrier(len(texts))

    def run(text: str) -> Any:
        barrier.wait()
        try:
            return told(apply(text))
        except FleetError as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(run, texts))


def test_two_first_runs_at_once_create_one_fleet(transactional_db: None) -> None:
    outcomes = at_once(ACME, ACME)
    assert sum(isinstance(outcome, list) and len(outcome) == ACME_SIZE for outcome in outcomes) == 1
    # The other one either found everything made, or was told to run again.
    (other,) = [outcome for outcome in outcomes if not (isinstance(outcome, list) and outcome)]
    assert other == [] or "run it again" in str(other)
    assert apply(ACME) == []
    assert AuditEvent.objects.count() == ACME_SIZE


def test_two_updates_at_once_take_turns(transactional_db: None) -> None:
    text = "organizations: [{id: acme, name: Acme, environments: [{name: production, worker_queues: [%s]}]}]"
    thirty, forty, fifty = [text % f"{{name: default, heartbeat_interval: {seconds}}}" for seconds in (30, 40, 50)]
    apply(thirty)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            apply(forty)
            other = pool.submit(at_once, fifty)
            # Without a lock the other would read the old interval now, and record a change from 30.
            time.sleep(0.5)
        assert other.result() == [["updated worker_queue acme/production/default"]]
    events = AuditEvent.objects.filter(action="worker_queue.updated").order_by("occurred_at")
    assert [event.changes["heartbeat_interval"] for event in events] == [[30, 40], [40, 50]]


def test_a_worker_starts_while_a_fleet_is_applied(transactional_db: None) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite lets one transaction write at a time")
    apply(ACME)
    key = issue_api_key(Organization.objects.get(), name="all", actor=ACTOR, now=timezone.now()).row
    worker = Worker.objects.get(name="w1")

    def start_elsewhere() -> None:
        begin(worker, key)
        connection.close()

    with transaction.atomic():
        apply(ACME.replace("acme.prod", "acme.test").replace("heartbeat_interval: 30", "heartbeat_interval: 45"))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(start_elsewhere).result(timeout=10)
    assert WorkerStart.objects.count() == 1
