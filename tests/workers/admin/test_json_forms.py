"""Tags and settings in the console: what is typed is kept exactly or explained, and a page that is sent as it is keeps all."""

from typing import Any

import pytest
from django.test import Client

from tests.support import factories
from tests.support.console import everything, form_of, person, post_confirmed, signed_in, url
from tests.support.factories import Fleet
from workers.models import WorkerQueue

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

TAGS: dict[str, tuple[str, list[str]]] = {
    "words": ("red, green,, blue sky ", ["red", "green", "blue sky"]),
    "twice": ("a, b, a", ["a", "b", "a"]),
    "none": ("", []),
    "in JSON": ('["a, b", "", " c "]', ["a, b", "", " c "]),
}
EXACT = [["a, b"], ["", "x"], [" outer "], ["[x"], ["a", "a"], ["ä", "日本"], []]
NO_OBJECTS = [
    "[1]",
    '"text"',
    "7",
    "{",
    "nonsense",
    "[" * 100_000,
    '{"a":' * 5_000,
    "1" * 5_000,
    '{"a": NaN}',
    '{"a": 1e-9999}',
    '{"a": [0.12345678901234567891]}',
    '{"a": "\\u0000"}',
]
NO_TAGS = ["[1]", "[", '["a"' * 3, "[" * 100_000, f"[{'1' * 5_000}]", '["\\ud800"]']


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person("root", is_staff=True, is_superuser=True))


def send(client: Client, queue: WorkerQueue, **values: Any) -> Any:
    address = url(WorkerQueue, "change", queue.pk)
    return post_confirmed(client, address, form_of(client, address) | values)


@pytest.mark.parametrize(("typed", "kept"), TAGS.values(), ids=TAGS)
def test_tags_are_typed_as_words_or_in_json(client: Client, fleet: Fleet, typed: str, kept: list[str]) -> None:
    assert send(client, fleet.queue, tags=typed).status_code == 302
    fleet.queue.refresh_from_db()
    assert fleet.queue.tags == kept


@pytest.mark.parametrize("tags", EXACT, ids=str)
def test_a_page_that_is_sent_as_it_is_keeps_tags_and_settings(client: Client, fleet: Fleet, tags: list[str]) -> None:
    settings = {"a": {"b": [1, 0.5, None, True, "ä\n"]}}
    queue = factories.create_queue(fleet.environment, "exact", tags=tags, settings=settings)
    before = WorkerQueue.objects.filter(pk=queue.pk).values()[0]
    assert send(client, queue, display_name="Another").status_code == 302
    assert WorkerQueue.objects.filter(pk=queue.pk).values()[0] == before | {"display_name": "Another"}


@pytest.mark.parametrize(("field", "texts"), [("settings", NO_OBJECTS), ("tags", NO_TAGS)])
def test_what_cannot_be_kept_is_explained(client: Client, fleet: Fleet, field: str, texts: list[str]) -> None:
    address = url(WorkerQueue, "change", fleet.queue.pk)
    form, before = form_of(client, address), everything()
    for typed in texts:
        response = client.post(address, form | {field: typed})
        assert response.status_code == 200, typed[:40]
        assert list(response.context["adminform"].form.errors) == [field], typed[:40]
        assert everything() == before
