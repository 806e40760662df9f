"""Lists go on after a cursor, without end, and are narrowed by what their rows are."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments.models import Membership, Role
from tests.support import factories
from tests.support.console import person
from tests.support.factories import Fleet
from tests.support.managing import Manager
from tests.support.reading import call
from workers.models import ApiKey, KeyRole

#: Those with a member `next_cursor`, and those that are a list of JSON with a header.
PAGES = (
    "/registered-workers",
    "/api-keys",
    "/temporal-connections",
    "/litellm-connections",
    "/telemetry-settings",
    "/members",
)
LISTS = ("/environments", "/worker-queues", "/environments/{environment}/worker-queues", "/workers")


def with_five_of_each(fleet: Fleet) -> Fleet:
    for number in range(5):
        queue = factories.create_queue(fleet.environment, f"q{4 - number}")
        factories.create_environment(fleet.organization, f"e{4 - number}")
        factories.create_worker(queue, "same")
        factories.issue_key(queue, name="same")
        for make in (factories.create_temporal, factories.create_litellm, factories.create_telemetry):
            make(fleet.organization, f"c{4 - number}")  # type: ignore[operator]  # each takes these
        Membership.objects.create(
            organization=fleet.organization,
            user=person(f"p{number}-{fleet.organization.pk}", is_staff=True),
            role=Role.VIEWER,
        )
    return fleet


def rows_of(manager: Manager, path: str, limit: int) -> list[dict[str, Any]]:
    """All rows, page by page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        response = manager.ask("GET", f"{path}?limit={limit}&cursor={quote(cursor)}")
        assert response.status_code == 200, response.content
        answer = response.json()
        is_list = isinstance(answer, list)
        found += answer if is_list else answer["items"]
        assert len(answer if is_list else answer["items"]) <= limit
        cursor = response.get("X-Next-Cursor") if is_list else answer["next_cursor"]
        assert len(found) < 100
    return found


@pytest.mark.sqlite
def test_each_row_is_in_one_part_in_the_order_of_the_whole(fleet: Fleet) -> None:
    manager, foreign = Manager(with_five_of_each(fleet).organization), with_five_of_each(factories.create_fleet())
    for path in (*PAGES, *LISTS):
        path = path.format(environment=fleet.environment.pk)  # noqa: PLW2901  # the same with its id
        whole = rows_of(manager, path, 1000)
        assert len(whole) >= 5, path
        for limit in (1, 2, len(whole) - 1, len(whole)):
            assert rows_of(manager, path, limit) == whole, (path, limit)
        assert {row.get("organization_id", fleet.organization.pk) for row in whole} == {fleet.organization.pk}
        assert str(foreign.organization.pk) not in json.dumps(whole)


def test_the_order_is_as_it_was(fleet: Fleet) -> None:
    with_five_of_each(fleet)
    names = [row["name"] for row in Manager(fleet.organization).told("GET", "/worker-queues?limit=3")]
    assert names == ["default", "q4", "q3"]
    manager = Manager(fleet.organization)
    assert [row["name"] for row in rows_of(manager, "/environments", 2)] == ["production", "e4", "e3", "e2", "e1", "e0"]
    assert [row["name"] for row in rows_of(manager, "/temporal-connections", 2)] == [
        "c0",
        "c1",
        "c2",
        "c3",
        "c4",
        "temporal",
    ]


def test_rows_that_come_and_go_meanwhile_let_none_be_left_out(fleet: Fleet) -> None:
    manager = Manager(with_five_of_each(fleet).organization)
    first = manager.told("GET", "/temporal-connections?limit=2")
    factories.create_temporal(fleet.organization, "a")
    manager.told("DELETE", f"/temporal-connections/{first['items'][1]['id']}", status=204)
    rest = manager.told("GET", f"/temporal-connections?limit=10&cursor={quote(first['next_cursor'])}")
    assert [row["name"] for row in rest["items"]] == ["c2", "c3", "c4", "temporal"]


def test_a_cursor_of_another_list_or_of_nobody_is_refused(fleet: Fleet) -> None:
    manager = Manager(with_five_of_each(fleet).organization)
    cursor = manager.told("GET", "/registered-workers?limit=1")["next_cursor"]
    for path in ("/api-keys", "/worker-queues", "/members"):
        for text in (cursor, cursor[:-1], "x", "a:b:c", "%00", "ä", "x" * 3001):
            refused = manager.ask("GET", f"{path}?cursor={quote(text, safe='%')}")
            assert refused.status_code == 422, (path, text)
            assert refused.json()["detail"][0]["loc"] == ["query", "cursor"]
    assert manager.ask("GET", "/registered-workers?limit=1001").status_code == 422


def test_a_cursor_that_was_handed_out_is_taken_however_long_its_row_is_named(fleet: Fleet) -> None:
    for letter in "ab":
        user = person(f"{letter}{chr(0x20000) * 149}", is_staff=True)
        Membership.objects.create(organization=fleet.organization, user=user, role=Role.VIEWER)
    assert len(rows_of(Manager(fleet.organization), "/members", 1)) == 2


def test_a_narrower_key_lists_what_it_reaches(fleet: Fleet) -> None:
    with_five_of_each(fleet)
    other = factories.create_queue(factories.create_environment(fleet.organization, "staging"), "default")
    factories.issue_key(factories.create_worker(other, "far"), name="far")
    manager = Manager(fleet.queue)
    assert [row["name"] for row in rows_of(manager, "/registered-workers", 10)] == ["worker-1"]
    assert {row["scope"] for row in rows_of(manager, "/api-keys", 10)} == {"worker", "queue"}
    manager = Manager(fleet.environment)
    assert {row["name"] for row in rows_of(manager, "/registered-workers", 10)} == {"worker-1", "same"}
    assert "far" not in {row["name"] for row in rows_of(manager, "/api-keys", 10)}


FILTERS = {
    "/worker-queues?name=q1": ["q1"],
    "/worker-queues?tag=gpu": ["q0"],
    "/worker-queues?tag=gp": [],
    "/worker-queues?tag=%27%22%5D": ["q1"],
    "/worker-queues?tag=%C3%A4": ["q1"],
    "/worker-queues?status=paused": ["q2"],
    "/worker-queues?status=inactive": ["q3"],
    "/worker-queues?status=active&environment_id={environment}": ["default", "q4", "q1", "q0"],
    "/worker-queues?environment_id={queue}": [],
    "/environments?tag=gpu": ["e0"],
    "/environments?name=e1": ["e1"],
    "/registered-workers?name=worker-1": ["worker-1"],
    "/registered-workers?queue_id={queue}": ["worker-1"],
    "/registered-workers?environment_id={environment}&state=Disabled": ["worker-1"],
    "/registered-workers?liveness=Online": ["worker-1"],
    "/registered-workers?state=Draining": [],
    "/registered-workers?is_ephemeral=false&limit=1": ["same"],
    "/api-keys?role=manager": ["key"],
    "/api-keys?state=revoked": ["revoked"],
    "/api-keys?state=expired": ["expired"],
    "/api-keys?state=usable&worker_id={worker}": ["key"],
    "/api-keys?scope=queue&queue_id={queue}": ["revoked", "expired"],
    "/temporal-connections?name=c1": ["c1"],
}


@pytest.mark.sqlite
def test_lists_are_narrowed(fleet: Fleet) -> None:
    call(with_five_of_each(fleet), "start")
    queues = {queue.name: queue for queue in fleet.environment.worker_queues.all()}
    queues["q0"].tags, queues["q1"].tags = ["gpu", "gpu"], ["'\"]", "ä", "gpux"]
    queues["q2"].is_draining = queues["q3"].is_disabled = queues["q3"].is_draining = fleet.worker.is_disabled = True
    for row in (*queues.values(), fleet.worker):
        row.save()
    environment = type(fleet.environment).objects.get(organization=fleet.organization, name="e0")
    environment.tags = ["gpu"]
    environment.save()
    now = timezone.now()
    for name, values in (("revoked", {"revoked_at": now}), ("expired", {"expires_at": now - timedelta(days=1)})):
        key = factories.issue_key(fleet.queue, name=name).row
        ApiKey.objects.filter(pk=key.pk).update(**values)
    manager = Manager(fleet.organization)
    ids = {"environment": fleet.environment.pk, "queue": fleet.queue.pk, "worker": fleet.worker.pk}
    for path, names in FILTERS.items():
        answer = manager.told("GET", path.format(**ids))
        rows = answer if isinstance(answer, list) else answer["items"]
        assert [row["name"] for row in rows] == names, path


@pytest.mark.parametrize(
    "path",
    [
        "/worker-queues?status=archived",
        "/worker-queues?environment_id=x",
        "/worker-queues?name=%00",
        "/environments?tag=%00",
        "/registered-workers?liveness=online",
        "/registered-workers?queue_id={}",
        "/api-keys?state=x",
        "/api-keys?limit=0",
        "/members?limit=x",
    ],
)
def test_a_filter_that_says_nothing_is_refused(fleet: Fleet, path: str) -> None:
    response = Manager(fleet.organization).ask("GET", path)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"][0] == "query"


def test_the_statements_of_a_list_do_not_grow_with_its_rows(fleet: Fleet) -> None:
    manager = Manager(fleet.organization)

    def spent(path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            manager.told("GET", path)
        return len(captured)

    paths = (*PAGES, "/worker-queues", "/environments", "/organization")
    before = {path: spent(path) for path in paths}
    with_five_of_each(fleet)
    assert {path: spent(path) for path in paths if path != "/members"} == {
        path: count for path, count in before.items() if path != "/members"
    }
    assert max(before.values()) <= 6


def test_a_workers_key_lists_no_keys_connections_and_people(fleet: Fleet) -> None:
    """They tell whom to attack, and no worker needs them."""
    reader = Manager(fleet.organization, role=KeyRole.WORKER)
    assert {
        path: reader.ask("GET", path).status_code for path in PAGES if path != "/registered-workers"
    } == dict.fromkeys(PAGES[1:], 403)
