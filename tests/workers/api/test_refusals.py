"""Each refused start of a genuine key leaves one row that says why, and the answer does not show it."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from tests.support import factories
from tests.support.calls import assert_error_shape, fresh_fleet, shared_client, start, told_by
from tests.support.factories import ACTOR, Fleet
from workers.api_keys.issuing import revoke_api_key
from workers.models import ApiKey, Refusal, Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite

HOSTILE = "<script>alert(1)</script>"


def refusal() -> Refusal:
    return Refusal.objects.get()


def expired_token(fleet: Fleet) -> str:
    return factories.issue_token(fleet.worker, age=timedelta(days=2), lifetime=timedelta(days=1))


# --- What is noted -----------------------------------------------------------------------------------------------------------


def disable(fleet: Fleet) -> None:
    Worker.objects.update(is_disabled=True)


def drain(fleet: Fleet) -> None:
    Worker.objects.update(is_draining=True)


def disable_queue(fleet: Fleet) -> None:
    WorkerQueue.objects.update(is_disabled=True)


def drain_queue(fleet: Fleet) -> None:
    WorkerQueue.objects.update(is_draining=True)


def take_the_connection(fleet: Fleet) -> None:
    factories.point(fleet.organization, temporal_connection=None)


def fill_the_queue(fleet: Fleet) -> None:
    WorkerQueue.objects.update(max_workers=1)
    other = factories.create_worker(fleet.queue, "other")
    assert start(fleet, worker_id=other.pk, token=factories.issue_token(other)).status_code == 200


def be_another_process(fleet: Fleet) -> None:
    WorkerQueue.objects.update(duplicate_policy="reject")
    assert start(fleet).status_code == 200


def damage_the_secret(fleet: Fleet) -> None:
    type(fleet.temporal).objects.update(sealed_api_key="cp1.x.y")


def revoke(fleet: Fleet) -> None:
    revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=timezone.now())


def expire_the_row(fleet: Fleet) -> None:
    ApiKey.objects.update(expires_at=timezone.now())


@pytest.mark.parametrize(
    ("arrange", "status", "reason"),
    [
        (disable, 403, "This worker is disabled."),
        (drain, 409, "This worker is draining: it does not start again."),
        (disable_queue, 409, "This worker's queue is disabled."),
        (drain_queue, 409, "This worker's queue is draining: nothing new starts."),
        (
            take_the_connection,
            409,
            (
                "The configuration is incomplete: no Temporal connection at any of these levels: "
                "worker, worker queue, environment, organization."
            ),
        ),
        (fill_the_queue, 409, "This worker's queue is full: it takes 1 live workers."),
        (be_another_process, 409, "Another process of this worker is online, and its queue rejects a second one."),
        (damage_the_secret, 503, "A stored credential cannot be opened at the moment."),
        (revoke, 401, "This API key is revoked."),
        (expire_the_row, 401, "This API key has expired."),
    ],
)
def test_a_refused_start_leaves_its_reason(
    fleet: Fleet, arrange: Callable[[Fleet], None], status: int, reason: str
) -> None:
    arrange(fleet)
    before = timezone.now()
    response = start(fleet, REMOTE_ADDR="127.0.0.9")
    assert response.status_code == status
    row = refusal()
    assert (row.id, row.api_key_id, row.organization_id) == (fleet.api_key.pk, fleet.api_key.pk, fleet.organization.id)
    assert (row.worker_id, row.status, row.reason) == (fleet.worker.pk, status, reason)
    assert row.client_address == "127.0.0.9"
    assert before <= row.occurred_at <= timezone.now()


@pytest.mark.parametrize(
    ("body", "environ", "status", "reason"),
    [
        (b"{", {}, 422, "The body was refused: JSON decode error: Expecting property name enclosed in double quotes."),
        (b"", {}, 422, "The body was refused: Field required."),
        ({"system_info": 1}, {}, 422, "The body was refused: Input should be a valid dictionary."),
        (b"{}", {"content_type": "text/plain"}, 415, "The body must be application/json in UTF-8."),
        (b"x" * 70_000, {}, 413, "The body is larger than 65536 bytes."),
        (b"{}", {"CONTENT_LENGTH": "two"}, 400, "The body could not be read."),
    ],
)
def test_a_refused_body_leaves_its_reason(fleet: Fleet, body: Any, environ: Any, status: int, reason: str) -> None:
    assert start(fleet, body, **environ).status_code == status
    assert (refusal().status, refusal().reason) == (status, reason)


def test_a_key_whose_token_has_expired_leaves_its_reason(fleet: Fleet) -> None:
    assert start(fleet, token=expired_token(fleet)).status_code == 401
    assert (refusal().status, refusal().reason) == (401, "This API key has expired.")
    assert refusal().api_key_id != fleet.api_key.pk


def test_a_key_that_does_not_cover_the_worker_leaves_that(fleet: Fleet) -> None:
    other = factories.create_worker(fleet.queue, "other")
    assert start(fleet, worker_id=other.pk).status_code == 403
    assert (refusal().worker_id, refusal().status) == (other.pk, 403)
    assert "scope" in refusal().reason


def test_a_key_of_another_organization_is_noted_in_its_own(fleet: Fleet) -> None:
    foreign = factories.create_fleet()
    assert start(fleet, token=foreign.token).status_code == 404
    row = refusal()
    assert (row.organization_id, row.api_key_id) == (foreign.organization.id, foreign.api_key.pk)
    assert (row.worker_id, row.status) == (fleet.worker.pk, 404)


def test_queue_starts_and_registrations_are_noted_without_a_worker(fleet: Fleet) -> None:
    token = factories.issue_token(fleet.queue)
    calls = {
        f"/api/v1/worker-queues/{fleet.queue.pk}/start": b"{}",
        "/api/v1/workers/register": b'{"environment_name": "production"}',
    }
    WorkerQueue.objects.update(is_disabled=True)
    for path, body in calls.items():
        Refusal.objects.all().delete()
        cache.clear()
        response = shared_client().generic("POST", path, body, "application/json", HTTP_AUTHORIZATION=f"Bearer {token}")
        assert response.status_code == 409
        assert (refusal().worker_id, refusal().reason) == (None, "This worker's queue is disabled.")


@pytest.mark.parametrize("worker_id", ["nonsense", "%00", "a" * 2_000, UUID(int=0xABC << 80).hex])
def test_what_is_no_id_is_noted_as_none(fleet: Fleet, worker_id: str) -> None:
    assert start(fleet, worker_id=worker_id).status_code == 404
    assert (refusal().worker_id, refusal().status) == (None, 404)


def test_nothing_that_the_caller_sent_is_noted(fleet: Fleet) -> None:
    token = factories.issue_token(fleet.organization)
    for body, environ in (
        ({"system_info": HOSTILE}, {}),
        (f'{{"system_info": {{}}, "{HOSTILE}": 2'.encode(), {}),
        (HOSTILE.encode(), {"content_type": HOSTILE}),
        (b"{}", {"HTTP_CONTENT_ENCODING": HOSTILE}),
        (b"{}", {"worker_id": "%3Cscript%3E"}),
        (b"{}", {"HTTP_USER_AGENT": HOSTILE, "worker_id": uuid4()}),
    ):
        assert start(fleet, body, token=token, **environ).status_code >= 400
        assert "script" not in str(Refusal.objects.values())
    assert token not in str(Refusal.objects.values())


# --- What is not ----------------------------------------------------------------------------------------------------------------


def test_a_key_that_is_not_genuine_leaves_nothing(fleet: Fleet) -> None:
    revoke(fleet)
    header, payload, signature = fleet.token.split(".")
    expired = expired_token(fleet)
    ApiKey.objects.filter(token_hash__isnull=False).exclude(pk=fleet.api_key.pk).update(token_hash="0" * 64)
    for token in ("x.y.z", f"{header}.{payload}.{signature[::-1]}", f"{expired[:-4]}AAAA", expired):
        assert start(fleet, token=token).status_code == 401
    assert start(fleet, authorization=None).status_code == 401
    assert not Refusal.objects.exists()


def test_a_forged_expired_key_costs_no_statement(fleet: Fleet, django_assert_num_queries: Any) -> None:
    header, payload, signature = expired_token(fleet).split(".")
    with django_assert_num_queries(0):
        assert start(fleet, token=f"{header}.{payload}.{signature[::-1]}").status_code == 401


def test_a_throttled_start_leaves_nothing(fleet: Fleet, settings: Settings) -> None:
    settings.WORKER_STARTS_PER_MINUTE = settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 0
    assert start(fleet).status_code == 429
    assert start(fleet, token=expired_token(fleet)).status_code == 429
    assert not Refusal.objects.exists()


def test_another_method_and_another_call_leave_nothing(fleet: Fleet) -> None:
    revoke(fleet)
    headers = {"Authorization": f"Bearer {fleet.token}"}
    path = f"/api/v1/workers/{fleet.worker.pk}"
    assert Client().get(f"{path}/start", headers=headers).status_code == 401
    assert Client().post(f"{path}/heartbeat", b"{}", "application/json", headers=headers).status_code == 401
    assert not Refusal.objects.exists()


def test_a_start_that_is_answered_leaves_nothing_and_a_former_reason_stays(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    assert not Refusal.objects.exists()
    assert start(fleet, b"{").status_code == 422
    assert start(fleet).status_code == 200
    assert refusal().status == 422


# --- One row, current, and cheap ------------------------------------------------------------------------------------------------


def test_a_key_has_one_row_with_its_latest_reason(fleet: Fleet) -> None:
    token = factories.issue_token(fleet.organization)
    asked = [uuid4() for _ in range(3)]
    for worker_id, body in itertools.product(asked, (b"{", b"{}")):
        start(fleet, body, token=token, worker_id=worker_id)
        assert refusal().worker_id == worker_id
        assert refusal().status == (422 if body == b"{" else 404)


def test_the_same_refusal_again_writes_nothing_for_a_moment(fleet: Fleet) -> None:
    costs = []
    for _ in range(3):
        with CaptureQueriesContext(connection) as captured:
            assert start(fleet, b"{").status_code == 422
        costs.append([query["sql"].split()[0] for query in captured.captured_queries])
    assert costs[0][:2] == ["SELECT", "INSERT"]
    assert costs[1:] == [["SELECT"]] * 2
    cache.clear()
    start(fleet, b"{")
    assert Refusal.objects.count() == 1


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_a_refusal_costs_a_statement_for_the_key_and_one_for_a_worker_that_may_be_there(
    transactional_db: None, status: int
) -> None:
    fleet = fresh_fleet()
    token, worker_id = fleet.token, fleet.worker.pk
    if status == 401:
        token = expired_token(fleet)
    elif status == 403:
        worker_id = factories.create_worker(fleet.queue, "other").pk
    elif status == 404:
        worker_id = uuid4()
    else:
        WorkerQueue.objects.update(is_disabled=True)
    with CaptureQueriesContext(connection) as captured:
        assert start(fleet, token=token, worker_id=worker_id).status_code == status
    verbs = [query["sql"].split()[0] for query in captured.captured_queries]
    own = ["SELECT", "SELECT"] if status == 404 else ["SELECT"]  # the key, where no worker leads to it
    if connection.vendor == "sqlite":
        own = ["BEGIN", *own, "ROLLBACK"]
    assert verbs == [*own, "INSERT", *([] if status == 404 else ["INSERT"])]


def test_a_foreign_an_unknown_and_a_malformed_id_cost_the_same_notes(fleet: Fleet) -> None:
    foreign = factories.create_fleet()
    for worker_id in (uuid4(), foreign.worker.pk, "nonsense"):
        with CaptureQueriesContext(connection) as captured:
            assert start(fleet, worker_id=worker_id).status_code == 404
        assert sum(query["sql"].startswith("INSERT") for query in captured.captured_queries) == 1


def test_a_refusal_that_cannot_be_noted_is_the_ordinary_503(fleet: Fleet) -> None:
    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "workers_refusal" in sql:
            raise OperationalError
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        response = start(fleet, b"{")
    assert response.status_code == 503
    assert_error_shape(response)
    assert response.json() == {"detail": "The database took too long for this call: try again."}
    assert response["Retry-After"]
    assert not Refusal.objects.exists()


def test_the_answer_is_the_same_whether_it_is_noted_or_not(fleet: Fleet) -> None:
    first, again = (start(fleet, b"{") for _ in range(2))
    assert told_by(first) == told_by(again)
    forged, expired = (start(fleet, token=token) for token in (f"{fleet.token[:-4]}AAAA", expired_token(fleet)))
    del forged["Connection"]  # it is refused before its body is read
    assert told_by(forged) == told_by(expired)


def test_no_start_and_no_instance_is_left(fleet: Fleet) -> None:
    for arrange in (disable, take_the_connection, damage_the_secret):
        arrange(fleet)
        start(fleet)
    assert not WorkerStart.objects.exists()
    assert not WorkerInstance.objects.exists()
