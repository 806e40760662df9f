"""The document tells what an answer has beside its body."""

from typing import Any

import pytest
from django.test import Client

VERSION, LIST = {"ETag"}, {"X-Total-Count", "X-Next-Cursor"}
MADE = {"ETag", "Idempotency-Replayed"}
TOLD = {
    "get_worker_queue": VERSION,
    "update_worker_queue": VERSION,
    "create_worker_queue": MADE,
    "list_worker_queues": LIST,
    "list_worker_queue_workers": {"X-Total-Count"},
    "start_worker_api_v1_workers__worker_id__start_post": set(),
}


@pytest.mark.parametrize("name", TOLD)
def test_headers_of_an_answer_are_told(name: str, client: Client) -> None:
    paths: dict[str, Any] = client.get("/api/openapi.json").json()["paths"]
    operations = {each["operationId"]: each for path in paths.values() for each in path.values()}
    answers = operations[name]["responses"]
    answer = answers.get("201") or answers["200"]
    assert set(answer.get("headers", {})) == TOLD[name]
