"""The same change made in the console, by `apply` and over HTTP makes the same row, record and impact."""

import json
import re
from typing import Any

import pytest

from environments.models import AuditEvent
from environments.models.connections import CONNECTION_POINTERS
from tests.support import documents, factories
from tests.support.factories import Fleet
from tests.support.managing import Manager
from tests.support.reading import call
from workers.fleet.kinds import CONNECTIONS, ENVIRONMENT, ORGANIZATION, WORKER, WORKER_QUEUE, Kind

SECRET = "another-secret-of-theirs"
LEVEL = {"display_name": "Shown", "description": "Told", "tags": ["a", "b"], "settings": {"a": {"b": [1]}}}
KINDS: dict[str, Kind] = {kind.name: kind for kind in (ORGANIZATION, ENVIRONMENT, WORKER_QUEUE, WORKER)}
KINDS |= {kind.name: kind for kind in CONNECTIONS.values()}
PATHS = {
    "organization": "/organization",
    "environment": "/environments/{}",
    "worker_queue": "/worker-queues/{}",
    "worker": "/registered-workers/{}",
    "temporal_connection": "/temporal-connections/{}",
    "litellm_connection": "/litellm-connections/{}",
    "telemetry_settings": "/telemetry-settings/{}",
}
CONSOLE = {"organization": "environments", "worker_queue": "workers", "worker": "workers"}
#: What changes of an object of each kind; of a pointer the name of a connection, or None.
CHANGES: dict[str, dict[str, Any]] = {
    "organization": {"name": "Renamed", "temporal_connection": "other"},
    "environment": LEVEL | {"temporal_connection": "other", "execution_environment": {"secrets": ["A"]}},
    "worker_queue": LEVEL | {"heartbeat_interval": 30, "max_workers": 5, "litellm_connection": "other"},
    "worker": {
        "description": "Told",
        "labels": "gpu, eu",
        "is_disabled": True,
        "state_reason": "Moved",
        "temporal_connection": "other",
    },
    "temporal_connection": {"namespace": "changed", "api_key_expires_on": "2030-01-31", "api_key": SECRET},
    "litellm_connection": {"api_url": "https://changed.example.com", "api_key": SECRET},
    "telemetry_settings": {"otel_enabled": False, "otel_traces_sampler_arg": 0.25, "otel_service_name": "changed"},
}
#: Members that differ from one organization or moment to the next: whether there is something is compared.
PARTICULAR = ("api_key_fingerprint", "api_key_set_at", *CONNECTION_POINTERS)


def fleet_with_others() -> Fleet:
    fleet = factories.create_fleet()
    factories.create_temporal(fleet.organization, "other")
    factories.create_litellm(fleet.organization, "other")
    factories.point(fleet.worker, telemetry_settings=factories.create_telemetry(fleet.organization))
    call(fleet, "start")
    return fleet


def row_of(fleet: Fleet, name: str) -> Any:
    attributes = {"worker_queue": "queue", "temporal_connection": "temporal", "litellm_connection": "litellm"}
    if name == "telemetry_settings":
        return fleet.worker.telemetry_settings
    return getattr(fleet, attributes.get(name, name))


def connection_id(fleet: Fleet, pointer: str, name: str) -> str:
    model = next(kind.model for kind in CONNECTIONS.values() if kind.name == pointer)
    return str(model.objects.get(organization=fleet.organization, name=name).pk)


def by_console(client: Any, fleet: Fleet, name: str, *, is_asked: bool = False) -> Any:
    """Saves the form as a browser would; with `is_asked` what the confirmation page tells of, and nothing is saved."""
    kind, row = KINDS[name], row_of(fleet, name)
    row.refresh_from_db()
    values = {field: getattr(row, field) for field in kind.fields} | {
        pointer: getattr(row, f"{pointer}_id") for pointer in kind.pointers
    }
    told = {**CHANGES[name]}
    told |= {field: connection_id(fleet, field, told[field]) for field in told if field in CONNECTION_POINTERS}
    values |= told | ({"queue": row.queue_id} if name == "worker" else {})
    form = {
        field: json.dumps(value) if isinstance(value, dict) else ", ".join(value) if isinstance(value, list) else value
        for field, value in values.items()
        if value is not None and value is not False
    }
    path = f"/admin/{CONSOLE.get(name, 'environments')}/{kind.model._meta.model_name}/{row.pk}/change/"
    response = client.post(path, form)
    if is_asked:
        return response.context["impact"] if response.status_code == 200 else []
    if response.status_code == 200:
        kept = {field: value for field, value in response.context["fields"] if field == "kept_api_key"}
        form.pop("api_key", None)
        response = client.post(path, form | kept | {"_confirmed": response.context["mark"]})
    assert response.status_code == 302, response.content
    return None


def by_document(fleet: Fleet, name: str, *, is_dry_run: bool = False) -> Any:
    row, values = row_of(fleet, name), {**CHANGES[name]}
    if "api_key" in values:
        values["api_key"] = {"env": "SECRET"}
    organization: dict[str, Any] = {"id": fleet.organization.pk}
    environment, queue = {"name": fleet.environment.name}, {"name": fleet.queue.name}
    match name:
        case "organization":
            organization |= values
        case "environment":
            organization["environments"] = [environment | values]
        case "worker_queue":
            organization["environments"] = [environment | {"worker_queues": [queue | values]}]
        case "worker":
            worker = {"name": row.name} | values
            organization["environments"] = [environment | {"worker_queues": [queue | {"workers": [worker]}]}]
        case _:
            listed = next(plural for plural, kind in CONNECTIONS.items() if kind.name == name)
            organization[listed] = [{"name": row.name} | values]
    document = json.dumps({"organizations": [organization]})
    return documents.apply_all(document, environ={"SECRET": SECRET}, is_dry_run=is_dry_run)


def over_http(fleet: Fleet, name: str, *, is_dry_run: bool = False) -> Any:
    row = row_of(fleet, name)
    values = {
        f"{field}_id" if field in CONNECTION_POINTERS else field: connection_id(fleet, field, value)
        if field in CONNECTION_POINTERS
        else value
        for field, value in CHANGES[name].items()
    }
    query = "?dry_run=true" if is_dry_run else ""
    return Manager(fleet.organization).told("PATCH", f"{PATHS[name].format(row.pk)}{query}", values)


def comparable(changes: dict[str, list[Any]]) -> dict[str, Any]:
    found = {
        field: [value is not None and value != "" for value in values] if field in PARTICULAR else values
        for field, values in changes.items()
    }
    return json.loads(re.sub(r"(?i)org-\d+", "org", json.dumps(found)))  # type: ignore[no-any-return]  # JSON


@pytest.mark.sqlite
@pytest.mark.parametrize("name", CHANGES)
def test_three_doors_make_the_same_row_and_the_same_record(db: None, admin_client: Any, name: str) -> None:
    found: dict[str, Any] = {}
    for door in ("console", "document", "HTTP"):
        fleet = fleet_with_others()
        if door == "console":
            by_console(admin_client, fleet, name)
        elif door == "document":
            by_document(fleet, name)
        else:
            answer = json.dumps(over_http(fleet, name))
            assert SECRET not in answer
            assert fleet.temporal_secret not in answer
        row = row_of(fleet, name)
        row.refresh_from_db()
        event = AuditEvent.objects.get(object_id=row.pk, action__endswith=".updated")
        told = {field: getattr(row, field) for field in CHANGES[name] if field not in {"api_key", *CONNECTION_POINTERS}}
        pointed = [str(getattr(row, pointer)).partition("/")[2] for pointer in KINDS[name].pointers]
        found[door] = (told, pointed, event.action, event.object_type, comparable(event.changes))
    assert found["console"] == found["document"] == found["HTTP"]


@pytest.mark.parametrize("name", CHANGES)
def test_three_doors_tell_the_same_impact(db: None, admin_client: Any, name: str) -> None:
    """Before it is made, and without making it."""
    fleet = fleet_with_others()
    told = over_http(fleet, name, is_dry_run=True)
    applied = by_document(fleet, name, is_dry_run=True)
    impact = [found.as_json() for found in by_console(admin_client, fleet, name, is_asked=True)]
    assert told["impact"] == [found.as_json() for found in applied.impact] == impact
    assert [found["workers"] for found in told["impact"]] == [1]
    assert told["workers"] == [fleet.worker.name]
    assert told["ending"] == [found.as_json() for found in applied.ending]
    assert [found["processes"] for found in told["ending"]] == [1] * (name == "worker")
    assert told["cannot_start"] == []
    assert AuditEvent.objects.filter(object_id=row_of(fleet, name).pk, action__endswith=".updated").count() == 0
