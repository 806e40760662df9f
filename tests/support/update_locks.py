"""Takes and gives back update locks."""

import json
from typing import Any
from urllib.parse import quote

from django.test import Client

from tests.support import factories
from tests.support.calls import assert_error_shape, shared_client
from tests.support.factories import Fleet


def with_the_queues_key(fleet: Fleet) -> Fleet:
    issued = factories.issue_key(fleet.queue)
    fleet.token, fleet.api_key = issued.token.reveal(), issued.row
    return fleet


def call(  # noqa: PLR0913  # the parts of a request that tests vary
    method: str,
    fleet: Fleet,
    holder: str,
    body: Any = None,
    *,
    token: str = "",
    queue_id: Any = None,
    client: Client | None = None,
) -> Any:
    path = f"/api/v1/worker-queues/{queue_id or fleet.queue.pk}/workers/{quote(holder, safe='/')}/update-lock"
    data = b"" if method == "DELETE" else body if isinstance(body, bytes) else json.dumps(body).encode()
    authorization = f"Bearer {token or fleet.token}"
    return (client or shared_client()).generic(
        method, path, data, "application/json" if data else "", HTTP_AUTHORIZATION=authorization
    )


def acquire(fleet: Fleet, holder: str = "build-7", seconds: Any = None, **options: Any) -> Any:
    body = {"worker_id": holder} | ({} if seconds is None else {"lock_duration_seconds": seconds})
    return call("POST", fleet, holder, options.pop("body", body), **options)


def release(fleet: Fleet, holder: str = "build-7", **options: Any) -> Any:
    return call("DELETE", fleet, holder, **options)


def status(fleet: Fleet, *, token: str = "", queue_id: Any = None) -> Any:
    return shared_client().get(
        f"/api/v1/worker-queues/{queue_id or fleet.queue.pk}/update-lock-status",
        HTTP_AUTHORIZATION=f"Bearer {token or fleet.token}",
    )


def assert_refused(response: Any, expected: int) -> None:
    assert response.status_code == expected, response.content[:500]
    assert_error_shape(response)


def assert_released(response: Any) -> None:
    assert response.status_code == 204, response.content[:500]
    assert response.content == b""
