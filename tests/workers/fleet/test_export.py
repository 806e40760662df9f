import io
import json
from datetime import date
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from environments.models import (
    DataKey,
    Environment,
    LiteLLMConnection,
    Organization,
    TelemetrySettings,
    TemporalConnection,
)
from tests.support.documents import ACME, ENVIRON, LITELLM_SECRET, TEMPORAL_SECRET, apply, everything
from workers.fleet import FleetError
from workers.models import Worker, WorkerQueue

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db]


def run(*arguments: str) -> str:
    stdout = io.StringIO()
    call_command("export", *arguments, stdout=stdout)
    return stdout.getvalue()


def without_secrets(text: str) -> Any:
    document = yaml.safe_load(text)
    for organization in document["organizations"]:
        for connection in organization["temporal_connections"] + organization["litellm_connections"]:
            del connection["api_key"]
    return document


def test_writes_what_was_applied_without_secrets() -> None:
    apply(ACME)
    expected = without_secrets(ACME)
    expected["organizations"][0]["environments"][0]["worker_queues"][0]["workers"][1]["id"] = str(
        Worker.objects.get(name="w2").pk
    )
    assert yaml.safe_load(run()) == expected


def test_has_no_secret_no_sealed_text_and_no_fingerprint() -> None:
    apply(ACME)
    for text in (run(), run("--format", "json")):
        for hidden in (TEMPORAL_SECRET, LITELLM_SECRET, "cp1.", TemporalConnection.objects.get().api_key_fingerprint):
            assert hidden not in text


def test_is_in_block_style_with_names_first() -> None:
    apply(ACME)
    text = run()
    assert text.startswith("organizations:\n- id: acme\n  name: Acme\n")
    assert "\n  temporal_connections:\n  - name: cloud\n    host: acme.tmprl.cloud:7233\n" in text
    assert "requires_api_key" not in text, "defaults are left out"


def test_applied_to_the_same_database_it_changes_nothing() -> None:
    apply(ACME)
    Environment.objects.update(description="no: 'yes'\n# not a comment\t\x07 é 😀\n")
    WorkerQueue.objects.update(description="007")
    Worker.objects.update(labels="gpu, 007, no")
    TemporalConnection.objects.update(api_key_expires_on=date(2027, 1, 31))
    before = everything()
    assert apply(run(), environ={}, prune=True) == []
    assert apply(run("--format", "json"), environ={}, prune=True) == []
    assert everything() == before


def test_applied_to_an_empty_database_it_asks_for_each_api_key() -> None:
    apply(ACME)
    text = run()
    empty()
    with pytest.raises(FleetError) as caught:
        apply(text)
    lines = text.splitlines()
    messages = str(caught.value).splitlines()
    assert [message.split(": ")[1] for message in messages] == [
        "organizations[0].temporal_connections[0].api_key",
        "organizations[0].litellm_connections[0].api_key",
    ]
    assert lines[int(messages[0].split(":")[1]) - 1] == "  - name: cloud"


def test_with_api_keys_added_it_makes_the_same_fleet_again() -> None:
    apply(ACME)
    text = run()
    ids = set(Worker.objects.values_list("pk", flat=True))
    empty()
    for name, variable in (("cloud", "TEMPORAL_API_KEY"), ("gateway", "LITELLM_API_KEY")):
        text = text.replace(f"  - name: {name}\n", f"  - name: {name}\n    api_key: {{env: {variable}}}\n")
    apply(text, environ=ENVIRON)
    assert set(Worker.objects.values_list("pk", flat=True)) == ids
    assert run().splitlines() == [line for line in text.splitlines() if "api_key:" not in line]


def test_can_be_limited_to_one_organization() -> None:
    apply(ACME)
    Organization.objects.create(id="other", name="Other")
    document = json.loads(run("--organization", "other", "--format", "json"))
    assert document == {"organizations": [{"id": "other", "name": "Other"}]}


@pytest.mark.parametrize("name", ["nobody", "Nobody", "", "\0", "\udcff"])
def test_an_unknown_organization_is_an_error(name: str) -> None:
    with pytest.raises(CommandError, match="There is no organization "):
        run("--organization", name)


def test_an_empty_database_makes_an_empty_document() -> None:
    assert run() == "organizations: []\n"
    assert apply(run()) == []


def test_needs_as_many_queries_for_many_workers_as_for_few(django_assert_num_queries: Any) -> None:
    apply(ACME)
    queue = WorkerQueue.objects.get()
    names = [f"more-{number}" for number in range(50)]
    Worker.objects.bulk_create(Worker(organization_id="acme", queue=queue, name=name) for name in names)
    with django_assert_num_queries(7):
        run()


def empty() -> None:
    Organization.objects.update(temporal_connection=None, litellm_connection=None, telemetry_settings=None)
    for model in (Worker, WorkerQueue, Environment, TemporalConnection, LiteLLMConnection, TelemetrySettings, DataKey):
        model.objects.all().delete()
    Organization.objects.update(name="Changed")
