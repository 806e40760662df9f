"""A worker's call leaves nothing that only a collection finds, so that no other call has to wait for one."""

import gc
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import RequestFactory

from tests.support import factories
from tests.support.calls import INVALID_TOKEN, start
from tests.support.factories import Fleet

BODY = {"system_info": {"hostname": "worker-1", "pid": 4711}}
BEAT = {"status": "active", "tasks_processed": 1}
#: Name, path, body and whether the key is good, and the answer.
CALLS: dict[str, tuple[str, Any, bool, int]] = {
    "start": ("workers/{worker}/start", BODY, True, 200),
    "start in a queue": ("worker-queues/{queue}/start", BODY, True, 200),
    "heartbeat": ("workers/{worker}/heartbeat", BEAT, True, 204),
    "goodbye": ("workers/{worker}/disconnect", {"reason": "done"}, True, 204),
    "bad body": ("workers/{worker}/start", "[", True, 422),
    "unknown worker": ("workers/{organization}/start", BODY, True, 404),
    "bad key": ("workers/{worker}/start", BODY, False, 401),
}


@pytest.fixture
def by_hand(fleet: Fleet) -> Iterator[None]:
    """Python collects when it is told to alone; a worker runs, and the test's connection stays."""
    start(fleet)
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()
    gc.unfreeze()
    for signal in signals:
        signal.connect(close_old_connections)


def call(handler: WSGIHandler, environ: dict[str, Any]) -> int:
    """As a server calls the application; the test's own client would leave garbage itself."""
    statuses: list[str] = []
    answer: Any = handler(environ, lambda status, _headers: statuses.append(status))
    b"".join(answer)
    answer.close()
    return int(statuses[0].split()[0])


@pytest.mark.parametrize("name", CALLS)
def test_a_workers_call_leaves_no_garbage(name: str, fleet: Fleet, by_hand: None) -> None:
    path, body, has_key, status = CALLS[name]
    ids = {"worker": fleet.worker.pk, "queue": fleet.queue.pk, "organization": fleet.organization.pk}
    token = factories.issue_token(fleet.organization) if has_key else INVALID_TOKEN
    content = body if isinstance(body, str) else json.dumps(body)
    handler = WSGIHandler()

    def made() -> dict[str, Any]:
        url, headers = f"/api/v1/{path.format(**ids)}", {"Authorization": f"Bearer {token}"}
        request = RequestFactory().post(url, content, content_type="application/json", headers=headers)
        return request.environ

    environ = [made() for _ in range(3)]
    for each in environ[:2]:  # the first ones compile statements
        assert call(handler, each) == status
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    assert call(handler, environ[2]) == status
    gc.collect()
    left = Counter(type(each).__name__ for each in gc.garbage)
    assert left == Counter()
