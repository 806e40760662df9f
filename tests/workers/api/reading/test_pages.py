"""How a worker is started, pages of lists, and what they cost."""

from typing import Any
from uuid import uuid4

import pytest
import yaml
from django.utils import timezone
from pytest_django import Settings

from environments.models import Environment
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import Fleet
from tests.support.reading import DEPLOYMENT_TYPES, LISTS, SHAPES, WORKER, ask, assert_shape, read, statements
from workers.models import WorkerInstance, WorkerQueue, WorkerStart


@pytest.mark.parametrize("kind", DEPLOYMENT_TYPES)
def test_the_install_script_is_text_that_names_the_queue(fleet: Fleet, settings: Settings, kind: str) -> None:
    response = ask(fleet, f"worker-queues/{{queue}}/install-script?deployment_type={kind}")
    assert response.status_code == 200, response.content[:500]
    assert response["Content-Type"].startswith("text/plain")
    text = response.content.decode()
    assert str(fleet.queue.pk) in text
    assert settings.CONTROL_PLANE_URL in text
    if kind in {"kubernetes", "openshift"}:
        assert any(isinstance(document, dict) for document in yaml.safe_load_all(text))


def test_the_install_script_is_a_local_one_by_default(fleet: Fleet) -> None:
    local = ask(fleet, "worker-queues/{queue}/install-script?deployment_type=local").content
    assert ask(fleet, "worker-queues/{queue}/install-script").content == local


@pytest.mark.parametrize("kind", ["LOCAL", "podman", "local,docker", "%00", "local%20"])
def test_an_unknown_deployment_type_is_a_validation_error(fleet: Fleet, kind: str) -> None:
    response = ask(fleet, f"worker-queues/{{queue}}/install-script?deployment_type={kind}")
    assert_query_refused(response, "deployment_type")


def test_the_command_names_the_queue(fleet: Fleet) -> None:
    row = read(fleet, "worker-queues/{queue}/worker-command")
    assert str(fleet.queue.pk) in row["command"]
    assert row["command_parts"]
    assert all(isinstance(part, str) for part in row["command_parts"].values())


def assert_query_refused(response: Any, name: str) -> None:
    assert response.status_code == 422, response.content[:500]
    body = response.json()
    assert list(body) == ["detail"]
    assert body["detail"]
    for error in body["detail"]:
        assert set(error) == {"loc", "msg", "type"}
        assert error["loc"] == ["query", name]
        assert error["msg"]
        assert error["type"]


@pytest.mark.sqlite
@pytest.mark.parametrize("path", sorted(LISTS))
def test_a_list_is_told_in_pages(many: Fleet, path: str) -> None:
    everything = read(many, path)
    total = 9 if path in {"worker-queues", "workers"} else 5
    assert len(everything) == total
    for limit, offset in ((2, 0), (2, 2), (2, 4), (1000, 1), (1, total - 1), (5, total), (5, 2**31)):
        response = ask(many, f"{path}?limit={limit}&offset={offset}")
        assert response.json() == everything[offset : offset + limit]
        assert response["X-Total-Count"] == str(total)
    assert ask(many, path)["X-Total-Count"] == str(total)


@pytest.mark.parametrize("path", sorted(LISTS))
def test_of_a_repeated_parameter_the_last_counts_and_unknown_ones_are_passed_over(many: Fleet, path: str) -> None:
    assert read(many, f"{path}?limit=4&limit=2&sort=name&page=9") == read(many, path)[:2]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "1e3", "1%200", "0x10", "nulls", "%00", "9" * 400, "%F0%9F%98%80"])
@pytest.mark.parametrize("name", ["limit", "offset"])
def test_nonsense_is_a_validation_error(many: Fleet, name: str, value: str) -> None:
    for path in sorted(LISTS):
        assert_query_refused(ask(many, f"{path}?{name}={value}"), name)


@pytest.mark.parametrize("path", sorted(LISTS))
def test_a_query_string_without_end_is_refused(many: Fleet, path: str) -> None:
    response = ask(many, f"{path}?{'&'.join(f'a{number}=1' for number in range(2_000))}")
    assert (response.status_code, response.json()) == (400, {"detail": "The query string has too many parameters."})


@pytest.mark.parametrize("nothing", ["", "null"])
def test_a_parameter_without_a_value_has_its_default(many: Fleet, nothing: str) -> None:
    for path in sorted(LISTS):
        assert read(many, f"{path}?limit={nothing}&offset={nothing}") == read(many, path)
    script = f"worker-queues/{many.queue.pk}/install-script"
    assert ask(many, f"{script}?deployment_type={nothing}").content == ask(many, script).content


@pytest.mark.parametrize(("name", "value"), [("limit", 0), ("limit", 1001), ("offset", 2**31 + 1)])
def test_what_is_out_of_range_is_a_validation_error(many: Fleet, name: str, value: int) -> None:
    for path in sorted(LISTS):
        assert_query_refused(ask(many, f"{path}?{name}={value}"), name)


def test_the_value_of_a_refused_parameter_is_not_repeated(many: Fleet) -> None:
    assert b"do-not-echo-me" not in ask(many, "worker-queues?limit=do-not-echo-me").content


@pytest.mark.parametrize("path", sorted(SHAPES))
def test_the_statements_of_an_answer_do_not_grow_with_the_rows(many: Fleet, path: str) -> None:
    before = statements(many, path)
    for number in range(10, 30):
        environment = factories.create_environment(many.organization, f"e{number}")
        factories.create_queue(environment)
        factories.create_queue(many.environment, f"q{number}")
        start(many, worker_id=factories.create_worker(many.queue, f"w{number}").pk)
    assert statements(many, path) == before
    assert before <= 8


def test_a_worker_whose_start_is_no_longer_on_record_is_still_shown(fleet: Fleet) -> None:
    """The ledger may be pruned."""
    now = timezone.now()
    WorkerInstance.objects.create(
        id=uuid4(), organization=fleet.organization, worker=fleet.worker, started_at=now, last_heartbeat_at=now
    )
    assert not WorkerStart.objects.exists()
    (row,) = read(fleet, "worker-queues/{queue}/workers")
    assert_shape(row, WORKER)


@pytest.mark.sqlite
def test_lists_are_in_a_fixed_order(many: Fleet) -> None:
    for path, model in (("worker-queues", WorkerQueue), ("environments", Environment)):
        rows = read(many, path)
        assert [row["name"] == "default" for row in rows] == sorted(
            (row["name"] == "default" for row in rows), reverse=True
        )
        for part in ([row for row in rows if (row["name"] == "default") is is_default] for is_default in (True, False)):
            assert [row["created_at"] for row in part] == sorted(row["created_at"] for row in part)
        assert len(rows) == model.objects.count()
