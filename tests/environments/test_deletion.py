"""What is deleted is on record with all that goes along, whatever deletes it, and what is not deleted is not."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection, models
from django.db.models.deletion import ProtectedError
from django.test import Client
from django.utils import timezone

from environments import audit
from environments.database.removal import ENDED_ALONG
from environments.deletion import delete
from environments.models import AuditEvent, Environment, Membership, Organization, Role, TelemetrySettings
from tests.support import factories
from tests.support.calls import fresh_fleet, heartbeat, start
from tests.support.console import REGISTERED, member, person, row_of, signed_in, url
from tests.support.factories import ACTOR, Fleet
from workers.api_keys.issuing import rotate_api_key
from workers.lifecycle.update_locks import acquire_update_lock
from workers.models import ApiKey, InstanceReport, Refusal, UpdateLock, Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

#: Kinds that a cascade may take, since the event of what they are part of tells how many there were.
PARTS = {
    "workers.incident",
    "workers.notificationdelivery",
    "workers.workerinstance",
    "workers.instancereport",
    "workers.keptanswer",
    "workers.processobservation",
    "workers.queueobservation",
    "workers.refusal",
    "workers.refusedstart",
    "workers.updatelock",
}
#: What belongs to a person in the tables of others.
OF_PEOPLE = {
    "account.emailaddress",
    "account.emailconfirmation",
    "admin.logentry",
    "auth.user_groups",
    "auth.user_user_permissions",
    "mfa.authenticator",
    "socialaccount.socialaccount",
    "socialaccount.socialtoken",
}


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def press_delete(client: Client, row: models.Model) -> Any:
    return client.post(url(type(row), "delete", row.pk), {"post": "yes", "_typed_name": str(row)})


def choose_and_delete(client: Client, *rows: models.Model) -> Any:
    """What the list does with a selection whose page was confirmed."""
    data = {"action": "delete_selected", "_selected_action": [row.pk for row in rows], "post": "yes"}
    data["_typed_name"] = str(rows[0]) if len(rows) == 1 else f"{len(rows)} workers"
    return client.post(url(type(rows[0]), "changelist"), data)


#: The console's two ways to delete.
each_way = pytest.mark.parametrize("way", [press_delete, choose_and_delete])


def told() -> dict[tuple[str, str], str | None]:
    """The deletions on record: what and which, with the organization whose trail tells it."""
    rows = AuditEvent.objects.filter(action__endswith=".deleted").values_list("action", "object_id", "organization")
    return {(action, object_id): organization for action, object_id, organization in rows}


def lost_with(row_id: Any) -> dict[str, Any]:
    """What the event of a deletion tells of rows that went along."""
    changes = AuditEvent.objects.get(action__endswith=".deleted", object_id=str(row_id)).changes
    return {name: values for name, values in changes.items() if values[1] == 0}


# --- Nothing is forgotten --------------------------------------------------------------------------------------------------


def test_no_cascade_takes_what_has_a_record_of_its_own() -> None:
    """A kind that is audited is ended along, which records it; only parts of an audited row cascade with it."""
    cascades = {
        field.model._meta.label_lower
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.get_fields()
        if getattr(field, "many_to_one", False) or getattr(field, "one_to_one", False)
        if getattr(field, "concrete", False) and field.remote_field.on_delete is models.CASCADE
        if field.remote_field.model in REGISTERED or field.model._meta.app_label in {"workers", "environments"}
    }
    audited = {model._meta.label_lower for model in REGISTERED}
    assert cascades <= PARTS | OF_PEOPLE, "Say where its deletion is recorded."
    of_the_lookout = {"workers.incident", "workers.notificationdelivery"}  # which nobody made, and which go in time
    known = {"workers.workerinstance"} | of_the_lookout
    assert cascades & audited == known, "An instance is on record by its start, which stays."


def test_what_has_a_record_of_its_own_is_not_taken_silently(fleet: Fleet) -> None:
    """From a shell or a command that goes past the records."""
    user = member(fleet.organization, Role.VIEWER)
    for row in (user, fleet.worker, User.objects.filter(pk=user.pk), Worker.objects.filter(pk=fleet.worker.pk)):
        with pytest.raises(ProtectedError):
            row.delete()
    pointers = [Membership._meta.get_field("user"), *map(ApiKey._meta.get_field, ("worker", "queue", "environment"))]
    assert {field.remote_field.on_delete for field in pointers} == {ENDED_ALONG}


# --- People ----------------------------------------------------------------------------------------------------------------


@each_way
def test_a_person_s_roles_end_on_record_in_each_organization(
    way: Callable[..., Any], fleet: Fleet, client: Client
) -> None:
    other = factories.create_organization("other")
    user = member(fleet.organization, Role.ADMINISTRATOR, "leaver")
    Membership.objects.create(organization=other, user=user, role=Role.VIEWER)
    ended = {str(row.pk): row.organization_id for row in Membership.objects.filter(user=user)}
    user_id = user.pk
    assert way(client, user).status_code == 302
    assert not User.objects.filter(pk=user_id).exists()
    expected: dict[tuple[str, str], str | None] = {("member.deleted", pk): place for pk, place in ended.items()}
    assert told() == expected | {("user.deleted", str(user_id)): None}
    event = AuditEvent.objects.get(action="member.deleted", organization=fleet.organization)
    assert (event.object_name, event.changes["role"]) == (f"leaver in {fleet.organization.pk}", ["administrator", None])
    assert event.actor == "user:ada"


def test_what_a_person_signed_in_with_ends_on_record(fleet: Fleet, client: Client) -> None:
    user = person("leaver", is_staff=True)
    passkey = {"name": "laptop", "credential": {}}
    Authenticator.objects.create(user=user, type=Authenticator.Type.WEBAUTHN, data=passkey)
    SocialAccount.objects.create(user=user, provider="oidc", uid="subject-1")
    user_id = user.pk
    assert press_delete(client, user).status_code == 302
    events = AuditEvent.objects.filter(object_id=str(user_id)).exclude(action="user.deleted")
    assert {(row.action, str(row.changes)) for row in events} == {
        ("user.second_factor_removed", "{'second_factor': ['passkey: laptop', None]}"),
        ("user.identity_unlinked", "{'identity': ['subject-1', None]}"),
    }
    assert lost_with(user_id) == {"authenticators": [1, 0], "social_accounts": [1, 0]}


# --- Workers ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ran(fleet: Fleet) -> Worker:
    """A worker with all that one leaves behind: two processes, a report, a refusal, and a key that was rotated."""
    start(fleet)
    start(fleet, {"system_info": {"hostname": "second"}})
    heartbeat(fleet, logs=["a line"])
    Refusal.objects.create(
        id=fleet.api_key.pk,
        api_key=fleet.api_key,
        organization=fleet.organization,
        occurred_at=timezone.now(),
        status=403,
    )
    rotate_api_key(fleet.api_key.pk, actor=ACTOR, now=timezone.now())
    return fleet.worker


@each_way
@pytest.mark.parametrize("role", [Role.OPERATOR, None])
def test_a_worker_that_ran_is_deleted_by_whoever_may_delete_workers(
    role: Role | None, way: Callable[..., Any], ran: Worker, fleet: Fleet, client: Client
) -> None:
    client = signed_in(member(fleet.organization, role)) if role else client
    starts, worker_id, processes = WorkerStart.objects.count(), ran.pk, WorkerInstance.objects.count()
    keys = {("api_key.deleted", str(pk)) for pk in ApiKey.objects.filter(worker=ran).values_list("pk", flat=True)}
    assert starts == processes == len(keys) == 2
    assert way(client, ran).status_code == 302
    for model in (Worker, WorkerInstance, InstanceReport, Refusal, ApiKey):
        assert not model._default_manager.exists(), model
    assert WorkerStart.objects.filter(worker=worker_id).count() == starts
    assert told().keys() == keys | {("worker.deleted", str(worker_id))}
    assert set(told().values()) == {fleet.organization.pk}
    assert lost_with(worker_id) == {"worker_instances": [2, 0], "instance_reports": [1, 0], "refusals": [1, 0]}


@pytest.mark.parametrize("many", [False, True])
def test_the_page_tells_what_goes_along(many: bool, ran: Worker, client: Client) -> None:
    data = {"action": "delete_selected", "_selected_action": [ran.pk], "index": "0"}
    response = client.post(url(Worker, "changelist"), data) if many else client.get(url(Worker, "delete", ran.pk))
    text = response.content.decode()
    for part in ("2 worker instances of it", "2 API keys of it", "Running now: 2.", "The ledger keeps"):
        assert part in text, part
    assert "have permission" not in text
    assert told() == {}


def test_a_viewer_deletes_no_worker_that_ran(ran: Worker, fleet: Fleet) -> None:
    viewer = signed_in(member(fleet.organization, Role.VIEWER))
    assert viewer.get(url(Worker, "delete", ran.pk)).status_code == 403
    assert press_delete(viewer, ran).status_code == 403
    assert Worker.objects.filter(pk=ran.pk).exists()


def test_a_process_of_a_deleted_worker_is_refused(ran: Worker, fleet: Fleet, client: Client) -> None:
    key = factories.issue_key(fleet.queue)
    press_delete(client, ran)
    assert start(fleet, worker_id=ran.pk, token=key.token.reveal()).status_code == 404
    assert start(fleet, worker_id=ran.pk).status_code == 401


# --- Queues, environments, organizations -----------------------------------------------------------------------------------


def test_a_queue_s_keys_and_lock_end_on_record(fleet: Fleet, client: Client) -> None:
    queue = factories.create_queue(fleet.environment, "spare")
    key = factories.issue_key(queue).row
    acquire_update_lock(
        queue.pk,
        holder="worker-1",
        duration=timedelta(minutes=1),
        api_key=factories.issue_key(fleet.organization).row,
        now=timezone.now(),
    )
    queue_id = queue.pk
    assert press_delete(client, queue).status_code == 302
    assert not UpdateLock.objects.exists()
    assert told().keys() == {("api_key.deleted", str(key.pk)), ("worker_queue.deleted", str(queue_id))}
    assert lost_with(queue_id) == {"update_locks": [1, 0]}


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (WorkerQueue, "1 worker: "),
        (Environment, "1 worker queue: "),
        (Organization, "on record for good, so this cannot be deleted"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@each_way
def test_what_stands_in_the_way_is_named(
    way: Callable[..., Any], model: type[models.Model], named: str, fleet: Fleet, client: Client
) -> None:
    row = row_of(model)
    for response in (client.get(url(model, "delete", row.pk)), way(client, row)):
        assert response.status_code == 200
        assert named in response.content.decode()
    assert model._default_manager.filter(pk=row.pk).exists()
    assert told() == {}
    assert not LogEntry.objects.exists()


@each_way
def test_an_organization_of_which_nothing_is_on_record_is_deleted(
    way: Callable[..., Any], fleet: Fleet, client: Client
) -> None:
    assert way(client, factories.create_organization("spare")).status_code == 302
    assert not Organization.objects.filter(pk="spare").exists()
    assert told() == {("organization.deleted", "spare"): None}


# --- All or nothing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(another: Any) -> Any:
    """The other session, for whose locks nobody waits longer than a moment."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = 50")
    yield another
    connection.close()


def kinds_of_rows(fleet: Fleet, kind: str) -> list[Any]:
    """Three rows of a kind, in the order in which a selection comes to them."""
    makers: dict[str, Callable[[str], Any]] = {
        "worker": lambda name: factories.create_worker(fleet.queue, name),
        "queue": lambda name: factories.create_queue(fleet.environment, name),
        "environment": lambda name: factories.create_environment(fleet.organization, name),
        "telemetry": lambda name: factories.create_telemetry(fleet.organization, name),
        "membership": lambda name: Membership.objects.create(
            organization=fleet.organization, user=person(name), role=Role.VIEWER
        ),
        "user": lambda name: person(name, is_staff=True),
    }
    return [makers[kind](f"spare-{number}") for number in range(3)]


@pytest.mark.parametrize("kind", ["worker", "queue", "environment", "telemetry", "membership", "user"])
def test_a_row_that_is_held_keeps_the_whole_selection(kind: str, impatient: Any) -> None:
    """Held by another session in the middle of the selection; nothing is deleted and nothing is told."""
    fleet = fresh_fleet()
    client = signed_in(person(is_staff=True, is_superuser=True))
    rows = kinds_of_rows(fleet, kind)
    table, pk = rows[1]._meta.db_table, rows[1].pk
    impatient.execute(f"SELECT id FROM {table} WHERE id = %s FOR UPDATE", [pk])  # noqa: S608
    response = choose_and_delete(client, *rows)
    impatient.rollback()
    assert (response.status_code, "Nothing was changed" in response.content.decode()) == (503, True)
    assert type(rows[0])._default_manager.filter(pk__in=[row.pk for row in rows]).count() == 3
    assert told() == {}
    assert not LogEntry.objects.exists()
    assert "Successfully" not in client.get("/admin/").content.decode()
    assert choose_and_delete(client, *rows).status_code == 302
    assert len(told()) == LogEntry.objects.count() == 3


def test_a_part_that_is_held_keeps_the_whole_selection(impatient: Any) -> None:
    """The row itself is free; what goes along with one in the middle is not."""
    fleet = fresh_fleet()
    client = signed_in(person(is_staff=True, is_superuser=True))
    start(fleet)
    rows = [fleet.worker, *kinds_of_rows(fleet, "worker")]
    impatient.execute("SELECT id FROM workers_workerinstance FOR UPDATE")
    response = choose_and_delete(client, *rows)
    impatient.rollback()
    assert response.status_code == 503
    assert Worker.objects.count() == 4
    assert told() == {}
    assert not LogEntry.objects.exists()


def test_a_barrier_keeps_the_whole_selection(fleet: Fleet, client: Client) -> None:
    spare = factories.create_queue(fleet.environment, "spare")
    response = choose_and_delete(client, spare, fleet.queue)
    assert response.status_code == 200
    assert WorkerQueue.objects.count() == 2
    assert told() == {}


def test_of_two_who_delete_at_once_one_is_on_record(fleet: Fleet, client: Client) -> None:
    """The other's page was loaded when the row was still there."""
    row = factories.create_telemetry(fleet.organization, "spare")
    delete(row, actor=ACTOR, now=timezone.now())
    assert press_delete(client, row).status_code == 302
    assert choose_and_delete(client, row).status_code == 302
    assert AuditEvent.objects.filter(action="telemetry_settings.deleted").get().actor == ACTOR.name
    assert not LogEntry.objects.exists()


def test_the_last_values_of_a_deleted_row_are_on_record(fleet: Fleet) -> None:
    row = factories.create_telemetry(fleet.organization, "spare", otel_service_name="kept")
    before = audit.snapshot(TelemetrySettings.objects.get(pk=row.pk))
    delete(row, actor=ACTOR, now=timezone.now())
    assert AuditEvent.objects.get(action="telemetry_settings.deleted").changes == {
        name: [value, None] for name, value in before.items() if value is not None
    }
