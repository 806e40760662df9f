"""Pages that read workers in one statement and their queues in the next do not fail when both are deleted between."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from tests.support import factories
from tests.support.factories import Fleet
from workers.models import Worker, WorkerInstance, WorkerQueue

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

CHOSEN = {"action": "drain", "select_across": "1", "index": "0"}
#: What is asked, with the form that is sent, if any.
PAGES: dict[str, tuple[str, dict[str, str] | None]] = {
    "dashboard": ("/admin/", None),
    "workers": ("/admin/workers/worker/", None),
    "outdated": ("/admin/workers/worker/?attention=outdated", None),
    "online": ("/admin/workers/worker/?liveness=Online", None),
    "drain": ("/admin/workers/worker/", CHOSEN),
    "move": ("/admin/workers/worker/", CHOSEN | {"action": "move"}),
    "delete": ("/admin/workers/worker/", CHOSEN | {"action": "delete_selected"}),
    "export": ("/admin/workers/worker/", CHOSEN | {"action": "export"}),
}


@pytest.fixture
def client(fleet: Fleet) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(get_user_model().objects.create_superuser("ada"))
    return client


@contextmanager
def deleted_before(number: int, queue: WorkerQueue) -> Iterator[list[str]]:
    """Deletes the queue and its workers, as somebody else's commit would, before a page's statement of this number."""
    seen: list[str] = []

    def wrap(execute: Any, sql: str, *arguments: Any) -> Any:
        seen.append(sql)
        if len(seen) == number:
            WorkerInstance.objects.filter(worker__queue=queue)._raw_delete("default")
            Worker.objects.filter(queue=queue)._raw_delete("default")
            WorkerQueue.objects.filter(pk=queue.pk)._raw_delete("default")
        return execute(sql, *arguments)

    with connection.execute_wrapper(wrap):
        yield seen


@pytest.mark.parametrize("page", PAGES)
def test_a_queue_that_goes_between_two_statements_of_a_page_is_no_error(
    fleet: Fleet, client: Client, page: str
) -> None:
    path, form = PAGES[page]
    number = 0
    while True:
        number += 1
        queue = factories.create_queue(fleet.environment, f"gone-{number}")
        worker = factories.create_worker(queue, f"w-{number}")
        with deleted_before(number, queue) as seen:
            response = client.post(path, {**form, "_selected_action": str(worker.pk)}) if form else client.get(path)
            assert response.status_code < 500, (number, seen[-1])
            b"".join(response.streaming_content) if response.streaming else None
        if len(seen) < number:
            break
    assert number > 4, "statements were met"
