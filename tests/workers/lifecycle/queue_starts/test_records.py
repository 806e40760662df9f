"""A start in a queue or by environment: what is recorded, and what is refused."""

import json
from typing import Any

import pytest
from pytest_django import Settings

from environments.models import TemporalConnection
from tests.support import factories
from tests.support.documents import everything
from tests.support.factories import Fleet
from tests.support.queue_starts import BODY, assert_refused, boot, change, made, post, register
from workers.models import WorkerInstance, WorkerQueue, WorkerStart
from workers.models.instances import CUT

pytestmark = pytest.mark.sqlite


def test_a_queue_start_is_recorded_in_the_ledger(fleet: Fleet) -> None:
    boot(fleet, BODY, HTTP_USER_AGENT="worker/1.0.2")
    worker, row, instance = made(), WorkerStart.objects.get(), WorkerInstance.objects.get()
    assert row.system_info == json.loads(BODY)["system_info"]
    assert len(row.system_info) == 21
    assert (row.worker_id, row.worker_name, row.organization_id) == (worker.pk, worker.name, fleet.organization.pk)
    assert row.task_queue_name == f"{fleet.organization.pk}.production.default"
    assert (row.user_agent, row.client_address) == ("worker/1.0.2", "127.0.0.1")
    assert row.temporal_connection_id == fleet.temporal.pk
    assert row.litellm_connection_id == fleet.litellm.pk
    assert (instance.pk, instance.worker_id, instance.is_current) == (row.pk, worker.pk, True)
    assert (instance.hostname, instance.pid) == ("build-7", 4711)


def test_no_secret_is_recorded(fleet: Fleet, either: Any) -> None:
    token = fleet.token
    assert either(fleet).status_code == 200
    recorded = repr(everything())
    for secret in (fleet.temporal_secret, fleet.litellm_secret, token):
        assert secret not in recorded


@pytest.mark.parametrize("state", ["is_disabled", "is_draining"])
def test_a_closed_queue_refuses(fleet: Fleet, either: Any, state: str) -> None:
    change(fleet.queue, **{state: True})
    before = everything()
    assert_refused(either(fleet), 409)
    assert everything() == before


@pytest.mark.parametrize(("section", "word"), [("temporal_connection", "Temporal"), ("litellm_connection", "LiteLLM")])
def test_an_incomplete_configuration_refuses_and_says_what_is_missing(
    fleet: Fleet, either: Any, section: str, word: str
) -> None:
    factories.point(fleet.organization, **{section: None})
    before = everything()
    response = either(fleet)
    assert_refused(response, 409)
    assert word in response.json()["detail"]
    assert everything() == before


def test_a_credential_that_does_not_open_refuses(fleet: Fleet, either: Any) -> None:
    TemporalConnection.objects.update(sealed_api_key="cp1.x.y")
    before = everything()
    response = either(fleet)
    assert_refused(response, 503)
    assert response["Retry-After"]
    assert everything() == before


def test_a_full_queue_refuses(fleet: Fleet, either: Any) -> None:
    change(fleet.queue, max_workers=1)
    assert either(fleet).status_code == 200
    before = everything()
    assert_refused(either(fleet), 409)
    assert everything() == before


def test_the_connections_of_the_queue_win(fleet: Fleet) -> None:
    own = factories.create_temporal(fleet.organization, "own", secret="own-secret")
    factories.point(fleet.queue, temporal_connection=own)
    answer = boot(fleet).json()
    assert (answer["temporal_host"], answer["temporal_api_key"]) == ("own.example.com:7233", "own-secret")


def test_register_answers_what_existing_workers_read(fleet: Fleet, settings: Settings) -> None:
    body = {"environment_name": "production", "hostname": "build-7", "worker_metadata": {"team": "x"}}
    response = register(fleet, body)
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert response.json() == {
        "worker_id": str(made().pk),
        "worker_token": fleet.token,
        "environment_name": f"{fleet.organization.pk}.production",
        "temporal_namespace": f"{fleet.organization.pk}-temporal",
        "temporal_host": "temporal.example.com:7233",
        "temporal_api_key": fleet.temporal_secret,
        "organization_id": fleet.organization.pk,
        "control_plane_url": settings.CONTROL_PLANE_URL,
    }


def test_register_takes_its_own_answers_environment_name(fleet: Fleet) -> None:
    name = register(fleet).json()["environment_name"]
    assert register(fleet, {"environment_name": name}).json()["environment_name"] == name


def test_register_makes_no_other_key(fleet: Fleet) -> None:
    before = len(everything()["workers.ApiKey"])
    register(fleet)
    assert len(everything()["workers.ApiKey"]) == before


def test_the_token_that_register_answers_goes_on(fleet: Fleet) -> None:
    answer = register(fleet, HTTP_USER_AGENT="x").json()
    path = f"workers/{answer['worker_id']}/heartbeat"
    assert post(fleet, path, {}, token=answer["worker_token"]).status_code == 204


def test_register_uses_the_queue_named_default(fleet: Fleet) -> None:
    factories.create_queue(fleet.environment, "another")
    register(fleet)
    assert made().queue == fleet.queue


def test_register_records_host_and_metadata(fleet: Fleet) -> None:
    register(fleet, {"environment_name": "production", "hostname": "build-7", "worker_metadata": {"team": "x"}})
    assert made().name.startswith("build-7-")
    assert WorkerStart.objects.get().system_info == {"hostname": "build-7", "worker_metadata": {"team": "x"}}
    assert WorkerInstance.objects.get().hostname == "build-7"


@pytest.mark.parametrize(
    "rest", [{}, {"hostname": None, "worker_metadata": None}, {"hostname": "", "worker_metadata": {}}]
)
def test_register_needs_only_the_environment(fleet: Fleet, rest: dict[str, Any]) -> None:
    assert register(fleet, {"environment_name": "production", **rest}).status_code == 200
    assert WorkerStart.objects.get().system_info == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"environment_name":null}',
        b'{"environment_name":""}',
        b'{"environment_name":[]}',
        b'{"environment_name":1e999}',
        b'{"environment_name":"production","environment_name":"staging"}',
    ],
)
def test_a_malformed_registration_is_a_validation_error(fleet: Fleet, body: bytes) -> None:
    before = everything()
    assert_refused(register(fleet, body), 422)
    assert everything() == before


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (b'"hostname":["a"]', {"hostname": '["a"]'}),
        (b'"hostname":"' + b"h" * 5_000 + b'"', {"hostname": "h" * 4_096}),
        (b'"worker_metadata":["a"]', {"worker_metadata": {CUT: ["all of it: it is no object"]}}),
        (
            b'"worker_metadata":{"load":NaN}',
            {"worker_metadata": {"load": None, CUT: ["numbers that are not finite or too long"]}},
        ),
    ],
)
def test_what_is_free_costs_no_worker_its_registration(fleet: Fleet, member: bytes, expected: dict[str, Any]) -> None:
    assert register(fleet, b'{"environment_name":"production",' + member + b"}").status_code == 200
    assert WorkerStart.objects.get().system_info == expected


def test_register_makes_no_environment(fleet: Fleet) -> None:
    fleet.token = factories.issue_token(fleet.organization)
    before = everything()
    assert_refused(register(fleet, {"environment_name": "staging"}), 404)
    assert everything() == before


def test_a_key_of_another_queue_does_not_learn_whether_there_is_a_default_one(fleet: Fleet) -> None:
    staging = factories.create_environment(fleet.organization, "staging")
    other = factories.create_queue(staging, "other")
    token = factories.issue_token(other)
    without = register(fleet, {"environment_name": "staging"}, token=token)
    factories.create_queue(staging)
    with_default = register(fleet, {"environment_name": "staging"}, token=token)
    assert (without.status_code, without.content) == (with_default.status_code, with_default.content)
    assert_refused(without, 403)
    assert WorkerQueue.objects.count() == 3
