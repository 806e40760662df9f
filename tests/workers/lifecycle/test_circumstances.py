"""What a start reads in one statement is what the ORM and the domain's rule say."""

from typing import Any

from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.connections.levels import Section
from tests.support import factories
from tests.support.factories import Fleet
from tests.support.quick import examples
from workers.configuration.effective import sections_of
from workers.lifecycle.circumstances import circumstances_of_queue, circumstances_of_worker
from workers.models import Worker, WorkerInstance

POINTERS = ("temporal_connection", "litellm_connection", "telemetry_settings")
LEVELS = ("worker", "queue", "environment", "organization")
DATABASE: dict[str, Any] = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


def plain(row: Any) -> dict[str, Any]:
    """The columns of a row that were read."""
    return {name: value for name, value in vars(row).items() if name != "_state"}


def assert_same(read: Section[Any], resolved: Section[Any]) -> None:
    assert (read.name, read.searched) == (resolved.name, resolved.searched)
    if resolved.row is None:
        assert read.row is None
        return
    known = plain(read.row)
    assert known == {name: value for name, value in plain(resolved.row).items() if name in known}


@given(pointing=st.lists(st.tuples(*[st.booleans()] * 3), min_size=4, max_size=4))
@settings(max_examples=examples(40), **DATABASE)
def test_the_connections_that_the_statement_chooses_are_those_of_the_rule(
    fleet: Fleet, pointing: list[tuple[bool, ...]]
) -> None:
    make = (factories.create_temporal, factories.create_litellm, factories.create_telemetry)
    for level, points in zip(LEVELS, pointing, strict=True):
        made = f"{level}-{timezone.now().timestamp():.6f}".replace(".", "-")
        rows = [
            create(fleet.organization, made) if is_set else None for create, is_set in zip(make, points, strict=True)
        ]
        factories.point(getattr(fleet, level), **dict(zip(POINTERS, rows, strict=True)))
    worker = Worker.objects.with_chain().get(pk=fleet.worker.pk)
    key = factories.presented(fleet.api_key)
    found = circumstances_of_worker(worker.pk, key, timezone.now())
    for read, resolved in zip(found.sections, sections_of(worker), strict=True):
        assert_same(read, resolved)


def test_a_queue_s_connections_are_those_of_a_worker_without_its_own(fleet: Fleet) -> None:
    factories.point(fleet.queue, temporal_connection=factories.create_temporal(fleet.organization, "of-queue"))
    factories.point(fleet.worker, litellm_connection=factories.create_litellm(fleet.organization, "of-worker"))
    key = factories.presented(factories.issue_key(fleet.queue).row)
    found = circumstances_of_queue(fleet.queue.pk, key, timezone.now())
    assert found.sections.temporal.require().host == "of-queue.example.com:7233"
    assert found.sections.litellm.require().pk == fleet.litellm.pk
    assert found.worker is found.process is None


def test_every_column_that_is_read_is_as_the_orm_reads_it(fleet: Fleet) -> None:
    instance = WorkerInstance.objects.create(
        id=fleet.worker.pk,
        organization=fleet.organization,
        worker=fleet.worker,
        queue=fleet.queue,
        hostname="h",
        pid=2**62,
        client_address="2001:db8::1",
        started_at=timezone.now(),
        last_heartbeat_at=timezone.now(),
    )
    key = factories.presented(fleet.api_key)
    found = circumstances_of_worker(fleet.worker.pk, key, timezone.now())
    for read, stored in (
        (found.worker, Worker.objects.get(pk=fleet.worker.pk)),
        (found.queue, type(fleet.queue).objects.get(pk=fleet.queue.pk)),
        (found.process, WorkerInstance.objects.get(pk=instance.pk)),
        (key.row, type(fleet.api_key).objects.get(pk=fleet.api_key.pk)),
    ):
        known = plain(read)
        assert known == {name: value for name, value in plain(stored).items() if name in known}
