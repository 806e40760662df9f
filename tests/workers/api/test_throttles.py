import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.http import HttpResponse
from pytest_django import Settings

from environments.limits import count, seconds_left
from tests.support import factories
from tests.support.calls import assert_error_shape, fresh_fleet, start
from tests.support.factories import Fleet
from workers.models import WorkerStart

LIMIT = 3


@pytest.fixture
def fleet(db: None, settings: Settings) -> Iterator[Fleet]:
    if seconds_left() < 3:
        time.sleep(seconds_left())  # a test must not straddle two windows
    yield fresh_fleet()
    cache.clear()


def assert_throttled(response: HttpResponse) -> None:
    assert response.status_code == 429
    assert_error_shape(response)
    assert 1 <= int(response["Retry-After"]) <= 60


def test_one_worker_is_held_up_after_its_limit_and_others_are_not(fleet: Fleet, settings: Settings) -> None:
    settings.WORKER_STARTS_PER_MINUTE = LIMIT
    sibling = factories.create_worker(fleet.queue, "sibling")
    token = factories.issue_token(fleet.organization)
    assert [start(fleet).status_code for _ in range(LIMIT)] == [200] * LIMIT
    assert_throttled(start(fleet))
    assert_throttled(start(fleet, token=token))
    assert start(fleet, token=token, worker_id=sibling.pk).status_code == 200
    assert WorkerStart.objects.filter(worker=fleet.worker).count() == LIMIT


def test_one_key_is_held_up_after_its_limit_and_others_are_not(fleet: Fleet, settings: Settings) -> None:
    settings.API_KEY_REQUESTS_PER_MINUTE = LIMIT
    second = factories.issue_token(fleet.worker)
    assert [start(fleet).status_code for _ in range(LIMIT)] == [200] * LIMIT
    assert_throttled(start(fleet))
    assert start(fleet, token=second).status_code == 200
    assert WorkerStart.objects.count() == LIMIT + 1


def test_a_key_is_held_up_whatever_it_asks_for(fleet: Fleet, settings: Settings) -> None:
    settings.API_KEY_REQUESTS_PER_MINUTE = LIMIT
    for worker_id in ("nonsense", uuid4(), fleet.worker.pk):
        start(fleet, b"nonsense", worker_id=worker_id)
    assert_throttled(start(fleet))
    assert not WorkerStart.objects.exists()


def test_another_organization_cannot_use_up_a_workers_limit(fleet: Fleet, settings: Settings) -> None:
    settings.WORKER_STARTS_PER_MINUTE = LIMIT
    other = factories.create_fleet()
    for _ in range(LIMIT + 2):
        start(other, worker_id=fleet.worker.pk)
    assert start(fleet).status_code == 200


def test_failed_authentication_is_held_up_per_address_and_a_valid_key_never(fleet: Fleet, settings: Settings) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = LIMIT
    failures = [
        start(fleet, token="x.y.z", REMOTE_ADDR="203.0.113.7", **{"wsgi.url_scheme": "https"}) for _ in range(LIMIT)
    ]
    assert [failure.status_code for failure in failures] == [401] * LIMIT
    https = {"REMOTE_ADDR": "203.0.113.7", "wsgi.url_scheme": "https"}
    assert_throttled(start(fleet, token="x.y.z", **https))
    assert_throttled(start(fleet, authorization=None, **https))
    assert start(fleet, **https).status_code == 200
    elsewhere = start(fleet, token="x.y.z", REMOTE_ADDR="203.0.113.8", **{"wsgi.url_scheme": "https"})
    assert elsewhere.status_code == 401


def test_an_invented_forwarded_address_does_not_escape_the_limit(fleet: Fleet, settings: Settings) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = LIMIT
    for number in range(LIMIT + 1):
        last = start(
            fleet,
            token="x.y.z",
            REMOTE_ADDR="203.0.113.7",
            HTTP_X_FORWARDED_FOR=f"198.51.100.{number}",
            **{"wsgi.url_scheme": "https"},
        )
    assert_throttled(last)


def test_successes_do_not_count_as_failures(fleet: Fleet, settings: Settings) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = LIMIT
    for _ in range(LIMIT + 2):
        start(fleet)
    assert start(fleet, token="x.y.z").status_code == 401


def test_the_defaults_are_generous(settings: Settings) -> None:
    assert settings.WORKER_STARTS_PER_MINUTE == 300
    assert settings.API_KEY_REQUESTS_PER_MINUTE >= 300
    assert settings.FAILED_AUTHENTICATIONS_PER_MINUTE >= 100


def test_counts_each_subject_by_itself(fleet: Fleet) -> None:
    assert [count("a"), count("a"), count("b"), count("a")] == [1, 2, 1, 3]
