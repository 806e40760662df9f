import io
import json
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from environments.models import AuditEvent
from tests.support import factories
from tests.support.factories import Fleet
from workers.models import Worker


@pytest.fixture
def fleet(db: None) -> Fleet:
    return factories.create_fleet()


def run(fleet: Fleet, **options: Any) -> str:
    stdout = io.StringIO()
    named = {"organization": fleet.organization.id, "environment": fleet.environment.name, "queue": fleet.queue.name}
    call_command("create_worker", stdout=stdout, **({**named, "name": "new-worker"} | options))
    return stdout.getvalue()


def test_prints_the_id_of_the_new_worker(fleet: Fleet) -> None:
    worker = Worker.objects.get(pk=run(fleet).removesuffix("\n"))
    assert (worker.name, worker.queue, worker.organization) == ("new-worker", fleet.queue, fleet.organization)


def test_takes_the_id_that_is_given(fleet: Fleet) -> None:
    worker_id = str(uuid.uuid4())
    assert run(fleet, id=worker_id) == f"{worker_id}\n"


def test_prints_the_worker_as_json(fleet: Fleet) -> None:
    shown = json.loads(run(fleet, format="json"))
    assert shown == {
        "id": str(Worker.objects.get(name="new-worker").pk),
        "name": "new-worker",
        "organization_id": fleet.organization.id,
        "environment": fleet.environment.name,
        "queue": fleet.queue.name,
        "queue_id": str(fleet.queue.pk),
        "task_queue_name": fleet.queue.task_queue_name,
    }


def test_is_on_record(fleet: Fleet) -> None:
    worker_id = run(fleet).strip()
    event = AuditEvent.objects.get(object_id=worker_id)
    assert (event.action, event.actor) == ("worker.created", "command:create_worker")
    assert event.changes["name"] == [None, "new-worker"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": "nowhere"}, "has no queue 'nowhere' in an environment "),
        ({"environment": "nowhere"}, "in an environment 'nowhere'"),
        ({"organization": "nobody"}, "Organization 'nobody' has no queue"),
        ({"queue": "\0"}, "has no queue"),
        ({"queue": "\udcff"}, "has no queue"),
        ({"name": "Not A Slug"}, "name: Use 1 to 63 lower-case letters"),
        ({"name": ""}, "name: This field cannot be blank"),
        ({"name": "\0"}, "name: Use 1 to 63 lower-case letters"),
        ({"name": "\udcff"}, "name: Use 1 to 63 lower-case letters"),
        ({"id": "x"}, "argument --id: invalid UUID value"),
    ],
)
def test_bad_input_is_refused_in_words(fleet: Fleet, options: dict[str, str], message: str) -> None:
    if "id" in options:
        named = ["--organization=o", "--environment=e", "--queue=q", "--name=n", f"--id={options['id']}"]
        with pytest.raises(CommandError, match=message):
            call_command("create_worker", *named)
        return
    with pytest.raises(CommandError, match=message):
        run(fleet, **options)
    assert Worker.objects.count() == 1


def test_a_name_or_id_that_is_taken_is_refused(fleet: Fleet) -> None:
    with pytest.raises(CommandError, match="already exists"):
        run(fleet, name=fleet.worker.name)
    other = factories.create_fleet()
    with pytest.raises(CommandError, match="already exists"):
        run(fleet, id=str(other.worker.pk))
    assert Worker.objects.count() == 2
