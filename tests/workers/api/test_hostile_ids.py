"""An unknown id, another tenant's and a malformed one cannot be told apart, byte for byte."""

from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from tests.support import factories
from tests.support.calls import assert_refused, fresh_fleet, start, told_by
from tests.support.factories import Fleet
from workers.models import WorkerStart

WORKER = UUID("c5d2b1a0-9f8e-4d7c-8b6a-0123456789ab")

#: Spellings of the worker's own id, and other things in its place; as they stand in the URL.
IDS = {
    "a letter of another script": str(WORKER).replace("c", "\u0421"),
    "braces": f"%7B{WORKER}%7D",
    "urn": f"urn:uuid:{WORKER}",
    "no dashes": WORKER.hex,
    "dashes elsewhere": f"{WORKER.hex[:4]}-{WORKER.hex[4:]}",
    "full-width digits": str(WORKER).replace("0", "%EF%BC%90"),
    "Arabic digits": str(WORKER).replace("0", "%D9%A0"),
    "leading space": f"%20{WORKER}",
    "trailing space": f"{WORKER}%20",
    "trailing newline": f"{WORKER}%0A",
    "NUL": f"{WORKER}%00",
    "only a NUL": "%00",
    "escape sequence": "%1B[31m",
    "not UTF-8": "%FF%FE",
    "encoded surrogate": "%ED%A0%80",
    "percent": "%25",
    "one digit short": str(WORKER)[:-1],
    "one digit long": f"{WORKER}0",
    "no hexadecimal digit": str(WORKER)[:-1] + "g",
    "integer": str(WORKER.int),
    "zero": "0",
    "minus one": "-1",
    "null": "null",
    "dots": "..",
    "one dot": ".",
    "encoded dots": "%2e%2e",
    "asterisk": "*",
    "SQL": "'%20OR%20'1'='1",
    "template": "{{7*7}}",
    "markup": "%3Cscript%3E",
    "semicolon": f"{WORKER};x=1",
    "comma": f"{WORKER},{WORKER}",
    "2,000 characters": "a" * 2_000,
    "60,000 characters": "0" * 60_000,
    "encoded slash": f"{WORKER}%2F",
    "encoded slash within": "a%2Fb",
    "path": "..%2F..%2Fetc%2Fpasswd",
    "backslash": "..%5C..",
    "nil": str(UUID(int=0)),
    "max": str(UUID(int=2**128 - 1)),
}


@pytest.fixture
def fleet(db: None) -> Fleet:
    fleet = fresh_fleet()
    fleet.worker = factories.create_worker(fleet.queue, "second", id=WORKER)
    fleet.token = factories.issue_token(fleet.organization)
    return fleet


def seen_by_the_client(response: HttpResponse) -> tuple[int, bytes, str]:
    return response.status_code, *told_by(response)


@pytest.mark.parametrize("worker_id", IDS.values(), ids=IDS)
def test_a_malformed_id_is_answered_as_an_unknown_one(fleet: Fleet, worker_id: str) -> None:
    unknown, malformed = (start(fleet, worker_id=identifier) for identifier in (uuid4(), worker_id))
    assert_refused(malformed, 404)
    assert seen_by_the_client(malformed) == seen_by_the_client(unknown)


def test_another_tenants_id_is_answered_as_an_unknown_one(fleet: Fleet) -> None:
    other = factories.create_fleet()
    unknown, foreign = (start(fleet, worker_id=identifier) for identifier in (uuid4(), other.worker.pk))
    assert_refused(foreign, 404)
    assert seen_by_the_client(foreign) == seen_by_the_client(unknown)
    assert unknown.json() == {"detail": "Not found."}


@pytest.mark.parametrize("state", ["disabled", "queue disabled", "incomplete", "damaged"])
def test_the_state_of_another_tenants_worker_does_not_show(fleet: Fleet, state: str) -> None:
    other = factories.create_fleet()
    if state == "disabled":
        type(other.worker).objects.filter(pk=other.worker.pk).update(is_disabled=True)
    elif state == "queue disabled":
        type(other.queue).objects.filter(pk=other.queue.pk).update(is_disabled=True)
    elif state == "incomplete":
        factories.point(other.organization, temporal_connection=None)
    else:
        type(other.temporal).objects.filter(pk=other.temporal.pk).update(sealed_api_key="cp1.x.y")
    unknown, foreign = (start(fleet, worker_id=identifier) for identifier in (uuid4(), other.worker.pk))
    assert_refused(foreign, 404)
    assert seen_by_the_client(foreign) == seen_by_the_client(unknown)


@pytest.mark.parametrize("level", ["worker", "queue", "environment", "organization"])
def test_keys_of_every_scope_see_no_other_tenant(fleet: Fleet, level: str) -> None:
    other = factories.create_fleet()
    token = factories.issue_token(getattr(fleet, level))
    assert_refused(start(other, token=token), 404)


def test_ids_of_other_things_are_unknown(fleet: Fleet) -> None:
    for thing in (fleet.queue, fleet.environment, fleet.temporal, fleet.api_key):
        assert_refused(start(fleet, worker_id=thing.pk), 404)


def test_an_unknown_id_costs_the_same_statements_as_a_foreign_one(fleet: Fleet) -> None:
    other = factories.create_fleet()
    statements = []
    for identifier in (uuid4(), other.worker.pk):
        with CaptureQueriesContext(connection) as captured:
            start(fleet, worker_id=identifier)
        statements.append([query["sql"].split()[0] for query in captured.captured_queries])
    assert statements[0] == statements[1]
    assert statements[0].count("SELECT") == 2


@pytest.mark.parametrize("spelling", [str(WORKER), str(WORKER).upper(), str(WORKER).replace("c5", "C5")])
def test_the_id_is_taken_in_any_case(fleet: Fleet, spelling: str) -> None:
    assert start(fleet, worker_id=spelling).status_code == 200
    assert WorkerStart.objects.get().worker_id == WORKER


def test_another_case_is_no_further_worker_to_the_throttle(fleet: Fleet, settings: Settings) -> None:
    settings.WORKER_STARTS_PER_MINUTE = 1
    assert [start(fleet, worker_id=text).status_code for text in (str(WORKER), str(WORKER).upper())] == [200, 429]
