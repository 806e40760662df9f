"""`manage.py explain_config`: which level gives a worker each field, without a secret."""

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.configuration.effective import revision_for
from workers.models import Worker

pytestmark = pytest.mark.django_db


@pytest.fixture
def fleet() -> Fleet:
    return fresh_fleet()


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("explain_config", *arguments, stdout=out)
    return out.getvalue()


def run_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--format=json"))
    return found


def field(fleet: Fleet, name: str) -> dict[str, Any]:
    (found,) = [each for each in run_json(str(fleet.worker.pk))["fields"] if each["name"] == name]
    return found


def test_tells_the_17_fields_of_the_contract_as_a_start_gives_them(fleet: Fleet) -> None:
    given = start(fleet).json()
    document = run_json(str(fleet.worker.pk))
    assert [each["name"] for each in document["fields"]] == list(given)
    values = {each["name"]: each["value"] for each in document["fields"] if not each["is_fingerprint"]}
    assert values == {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in given.items()
        if name not in {"temporal_api_key", "litellm_api_key"}
    }
    assert document["worker_id"] == str(fleet.worker.pk)
    assert document["revision"] == revision_for(Worker.objects.with_chain().get(pk=fleet.worker.pk))
    assert document["refusal"] is None


def test_a_secret_is_a_fingerprint_in_both_formats(fleet: Fleet) -> None:
    found = field(fleet, "temporal_api_key")
    assert (found["value"], found["is_fingerprint"]) == (fleet.temporal.api_key_fingerprint, True)
    for text in (run(str(fleet.worker.pk)), run(str(fleet.worker.pk), "--format=json")):
        assert fleet.temporal_secret not in text
        assert fleet.litellm_secret not in text
        assert fleet.temporal.sealed_api_key not in text


def test_names_the_level_that_wins_and_those_that_it_shadows(fleet: Fleet) -> None:
    of_queue = factories.create_temporal(fleet.organization, "of-queue")
    of_worker = factories.create_temporal(fleet.organization, "of-worker")
    factories.point(fleet.queue, temporal_connection=of_queue)
    factories.point(fleet.worker, temporal_connection=of_worker)
    found = field(fleet, "temporal_host")
    assert found["set_by"] == {
        "level": "worker",
        "holder": str(fleet.worker),
        "connection": str(of_worker),
        "value": of_worker.host,
    }
    assert [(each["level"], each["value"]) for each in found["shadowed"]] == [
        ("worker queue", of_queue.host),
        ("organization", fleet.temporal.host),
    ]
    lines = run(str(fleet.worker.pk)).splitlines()
    at = lines.index(f"temporal_host: {of_worker.host}  <- worker {fleet.worker}, by {of_worker}")
    assert lines[at + 1] == f"    shadowed: {of_queue.host}  <- worker queue {fleet.queue}, by {of_queue}"


def test_takes_a_path_for_the_worker(fleet: Fleet) -> None:
    path = f"{fleet.organization.pk}/production/default/worker-1"
    assert run_json(path)["worker_id"] == str(fleet.worker.pk)


def test_fails_and_says_what_is_missing_when_a_start_would_be_refused(fleet: Fleet) -> None:
    factories.point(fleet.organization, temporal_connection=None)
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"would be refused.*no Temporal connection at any of these levels"):
        call_command("explain_config", str(fleet.worker.pk), "--format=json", stdout=out)
    document = json.loads(out.getvalue())
    assert document["revision"] is None
    assert "no Temporal connection" in document["refusal"]
    assert {each["name"] for each in document["fields"] if each["value"] is None} == {
        "temporal_namespace",
        "temporal_host",
        "temporal_api_key",
    }


def test_puts_nothing_on_record(fleet: Fleet) -> None:
    before = AuditEvent.objects.count()
    run(str(fleet.worker.pk))
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("worker", ["", "x", "a/b/c", "a/b/c/d", "\0/b/c/d", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"])
def test_a_worker_that_is_not_there(fleet: Fleet, worker: str) -> None:
    with pytest.raises(CommandError, match="There is no such worker"):
        run(worker)
