"""Every pointer of every table is found from the model registry, so that a new model cannot be forgotten."""

from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, models, transaction

from environments.database.tenancy import SameAs, SameOrganization, TenantOwned
from environments.fields import SealedField
from environments.models import DataKey, Organization
from environments.sealing.data_keys import create_data_key
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from tests.support.notifications import tell
from workers.lifecycle.update_locks import acquire_update_lock
from workers.models import (
    ApiKey,
    InstanceReport,
    KeptAnswer,
    ProcessObservation,
    QueueObservation,
    Refusal,
    RefusedStart,
    UpdateLock,
    Worker,
    WorkerInstance,
    WorkerStart,
)

pytestmark = pytest.mark.sqlite

OURS = [model for app in ("environments", "workers", "controlplane") for model in apps.get_app_config(app).get_models()]
#: A ledger row states facts and outlives what it names; it is written once, from rows that were checked.
FACTS = {"workers_workerstart.worker_id", "workers_workerstart.api_key_id"}
#: What the row pointed to has, so that its own foreign key is this one's, too.
COPIED = {"workers_workerinstance.queue_id"}
#: Those that the tenant's constraint checks alone.
TENANTS = {
    "workers_worker.queue_id",
    "workers_workerinstance.worker_id",
    "workers_queueobservation.queue_id",
    "workers_processobservation.instance_id",
    "workers_processobservation.queue_id",
}


def pointers() -> dict[str, models.ForeignKey[Any, Any]]:
    """Every foreign key to a tenant's row, and every second one to an organization, by table and column."""
    return {
        f"{model._meta.db_table}.{field.column}": field
        for model in OURS
        for field in model._meta.concrete_fields
        if isinstance(field, models.ForeignKey)
        and (issubclass(field.related_model, TenantOwned) or field.related_model is Organization)
        and field.name != "organization"
    }


POINTERS = {name: field for name, field in pointers().items() if name not in FACTS}


@pytest.fixture
def fleets(db: None) -> tuple[Fleet, Fleet]:
    """Two organizations with a row in every table."""
    return tuple(_complete(fresh_fleet()) for _ in range(2))  # type: ignore[return-value]


def _complete(fleet: Fleet) -> Fleet:
    telemetry = factories.create_telemetry(fleet.organization)
    for holder in (fleet.organization, fleet.environment, fleet.queue, fleet.worker):
        factories.point(
            holder, temporal_connection=fleet.temporal, litellm_connection=fleet.litellm, telemetry_settings=telemetry
        )
    assert start(fleet).status_code == 200
    instance = fleet.worker.instances.get()
    InstanceReport.objects.create(
        id=instance.pk, organization=fleet.organization, instance=instance, reported_at=instance.started_at
    )
    tell(fleet.organization)
    seen = {"organization": fleet.organization}
    queue = QueueObservation.objects.create(id=fleet.queue.pk, queue=fleet.queue, asked_at=instance.started_at, **seen)
    ProcessObservation.objects.create(
        id=instance.pk, instance=instance, queue=queue, is_polling=True, changed_at=instance.started_at, **seen
    )
    acquire_update_lock(
        fleet.queue.pk,
        holder="w",
        duration=timedelta(minutes=5),
        api_key=factories.issue_key(fleet.organization).row,
        now=instance.started_at,
    )
    key = fleet.api_key
    told = {"organization": fleet.organization, "api_key": key, "occurred_at": instance.started_at, "status": 403}
    Refusal.objects.create(id=key.pk, **told)
    RefusedStart.objects.create(id=fleet.worker.pk, first_at=instance.started_at, times=1, **told)
    KeptAnswer.objects.create(
        organization=fleet.organization, api_key=key, key_hash=str(key.pk), expires_at=instance.started_at
    )
    successor = factories.issue_key(fleet.queue).row
    ApiKey.objects.filter(pk=fleet.api_key.pk).update(replaced_by=successor)
    factories.issue_key(fleet.environment)
    return fleet


def own_row(model: type[models.Model], fleet: Fleet) -> Any:
    if model is Organization:
        return fleet.organization.pk
    return model._default_manager.filter(organization=fleet.organization).values_list("pk", flat=True)[0]


def test_the_registry_knows_the_pointers_that_matter() -> None:
    assert {"workers_worker.queue_id", "environments_datakey.active_for_id", "workers_apikey.worker_id"} < set(POINTERS)
    assert len(POINTERS) >= 20


def test_the_ledgers_facts_are_the_only_pointers_without_a_constraint() -> None:
    assert {name for name, field in pointers().items() if not field.db_constraint} == FACTS | COPIED | TENANTS
    copied = {
        f"{model._meta.db_table}.{model._meta.get_field(constraint.column).column}"
        for model in OURS
        for constraint in model._meta.constraints
        if isinstance(constraint, SameAs)
    }
    assert copied == COPIED


@pytest.mark.parametrize("name", POINTERS)
def test_a_row_cannot_be_pointed_to_another_organization(fleets: tuple[Fleet, Fleet], name: str) -> None:
    field, (mine, other) = POINTERS[name], fleets
    model, target = field.model, field.related_model
    foreign = own_row(target, other)
    for pk in _pks(model, field, mine):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {model._meta.db_table} SET {field.column} = %s WHERE {model._meta.pk.column} = %s",  # noqa: S608
                [_raw(target, foreign), _raw(model, pk)],
            )
            assert cursor.rowcount == 1
            connection.check_constraints()


#: Other constraints fix which row these point to.
FREE = [
    name for name, field in POINTERS.items() if field.model not in {ApiKey, WorkerInstance, InstanceReport, UpdateLock}
]


@pytest.mark.parametrize("name", FREE)
def test_a_row_can_be_pointed_within_its_organization(fleets: tuple[Fleet, Fleet], name: str) -> None:
    """The counterpart: the same statement with an own row passes, so that the refusal above is for the organization."""
    field, (mine, _) = POINTERS[name], fleets
    model = field.model
    (pk, *_rest) = _pks(model, field, mine)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {model._meta.db_table} SET {field.column} = %s WHERE {model._meta.pk.column} = %s",  # noqa: S608
            [_raw(field.related_model, own_row(field.related_model, mine)), _raw(model, pk)],
        )
        assert cursor.rowcount == 1
        connection.check_constraints()


@pytest.mark.parametrize("name", POINTERS)
def test_a_row_pointing_to_another_organization_cannot_be_inserted(fleets: tuple[Fleet, Fleet], name: str) -> None:
    field, (mine, other) = POINTERS[name], fleets
    if field.model is Organization:
        row = Organization(id="new-org", name="New")
    else:
        row = field.model._default_manager.get(pk=_pks(field.model, field, mine)[0])
        row.pk = factories.create_worker(mine.queue, "w").pk
        row = _unique_copy(row, mine)
    setattr(row, field.attname, own_row(field.related_model, other))
    with pytest.raises(IntegrityError), transaction.atomic():
        row.save(force_insert=True)
        connection.check_constraints()


def _unique_copy(row: Any, fleet: Fleet) -> Any:
    """A copy that breaks no constraint of uniqueness, so that only the tenant's can refuse it."""
    values = {
        field.attname: field.value_from_object(row) for field in row._meta.concrete_fields if not field.primary_key
    }
    for name, value in (("name", "copy"), ("is_current", False), ("token_hash", "0" * 64)):
        if name in values:
            values[name] = value
    copy = type(row)(**values)
    if copy.pk is None:
        copy.pk = row.pk
    return copy


def test_the_copy_of_a_row_can_be_inserted_within_its_organization(fleets: tuple[Fleet, Fleet]) -> None:
    mine, _ = fleets
    for row in (mine.environment, mine.queue, mine.worker, mine.temporal):
        copy = _unique_copy(row, mine)
        copy.save(force_insert=True)
    connection.check_constraints()


def _pks(model: type[models.Model], field: models.ForeignKey[Any, Any], fleet: Fleet) -> list[Any]:
    if model is Organization:
        return [fleet.organization.pk]
    rows = model._default_manager.filter(organization=fleet.organization)
    if model is ApiKey and field.name != "replaced_by":
        rows = rows.filter(**{f"{field.name}__isnull": False})  # the one with that scope
    pks = list(rows.values_list("pk", flat=True))
    assert pks
    return pks


def _raw(model: type[models.Model], pk: Any) -> Any:
    return model._meta.pk.get_db_prep_value(pk, connection)


def test_every_tenant_owned_pointer_is_declared_to_forms_too() -> None:
    for name, field in POINTERS.items():
        if not issubclass(field.related_model, TenantOwned) or name in COPIED:
            continue
        declared = {c.pointer for c in field.model._meta.constraints if isinstance(c, SameOrganization)}
        assert field.name in declared, name


def test_a_form_says_which_field_belongs_to_another_organization(fleets: tuple[Fleet, Fleet]) -> None:
    mine, other = fleets
    mine.worker.temporal_connection = other.temporal
    with pytest.raises(ValidationError) as caught:
        mine.worker.validate_constraints()
    assert list(caught.value.message_dict) == ["temporal_connection"]
    assert other.organization.id not in str(caught.value)


def test_a_form_cannot_tell_a_foreign_row_from_one_that_does_not_exist(fleets: tuple[Fleet, Fleet]) -> None:
    mine, other = fleets
    messages = []
    for pk in (other.queue.pk, mine.worker.pk):
        worker = Worker.objects.get(pk=mine.worker.pk)
        worker.queue_id = pk
        with pytest.raises(ValidationError) as caught:
            worker.validate_constraints()
        messages.append(caught.value.message_dict["queue"])
    assert messages[0] == messages[1]


def test_every_row_with_a_sealed_column_belongs_to_an_organization() -> None:
    sealed = [model for model in OURS if any(isinstance(field, SealedField) for field in model._meta.concrete_fields)]
    assert len(sealed) >= 3
    assert all(issubclass(model, TenantOwned) for model in sealed)


def test_a_parent_cannot_leave_its_organization_under_its_children(fleets: tuple[Fleet, Fleet]) -> None:
    mine, other = fleets
    for row in (mine.temporal, mine.environment, mine.queue, mine.worker):
        with pytest.raises(IntegrityError), transaction.atomic():
            type(row)._default_manager.filter(pk=row.pk).update(organization=other.organization)
            connection.check_constraints()


def test_a_data_key_cannot_be_made_active_for_another_organization(fleets: tuple[Fleet, Fleet]) -> None:
    mine, other = fleets
    DataKey.objects.update(active_for=None)
    row, _ = create_data_key(mine.organization.id)
    with pytest.raises(IntegrityError), transaction.atomic():
        DataKey.objects.filter(pk=row.pk).update(active_for=other.organization)


def test_another_organizations_worker_is_unknown_to_a_key(fleets: tuple[Fleet, Fleet]) -> None:
    mine, other = fleets
    before = WorkerStart.objects.count()
    response = start(mine, worker_id=other.worker.pk)
    assert response.status_code == 404
    assert response.json() == {"detail": "Not found."}
    assert WorkerStart.objects.count() == before
