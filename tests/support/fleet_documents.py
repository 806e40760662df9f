"""Documents of a small fleet."""

from typing import Any

from django.utils import timezone

from environments.audit import Actor
from tests.support.documents import apply, told
from tests.support.factories import presented
from workers.lifecycle import Client, start_worker
from workers.lifecycle.starts import Attempt
from workers.models import ApiKey, Worker

ACTOR = Actor("command:tests")


def changed(text: str, **options: Any) -> list[str]:
    return told(apply(text, **options))


def begin(worker: Worker, key: ApiKey) -> Any:
    client = Client(address="127.0.0.1", user_agent="tests")
    return start_worker(worker.pk, Attempt(presented(key), {}, client, timezone.now()))
