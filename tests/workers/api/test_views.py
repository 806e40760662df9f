import itertools
from io import BytesIO
from uuid import uuid4

import pytest
from django.test import Client

from tests.support.calls import assert_error_shape, assert_nothing_recorded, assert_refused, start
from tests.support.factories import Fleet
from tests.support.shared_fleet import *  # noqa: F403  # the fixtures
from workers.api.requests import printable, uuid_of
from workers.api_keys.access import UnknownObjectError
from workers.models import WorkerStart

LIMITED = 300


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "post"])
def test_any_other_method_is_405(fleet: Fleet, method: str) -> None:
    path = f"/api/v1/workers/{fleet.worker.pk}/start"
    response = Client().generic(method, path, b"{}", "application/json", HTTP_AUTHORIZATION=f"Bearer {fleet.token}")
    if method == "post":  # Django's request takes the method in any case
        assert response.status_code == 200
        return
    assert_refused(response, 405)
    assert response["Allow"] == "POST, OPTIONS"


def test_head_is_405_without_a_body(fleet: Fleet) -> None:
    response = Client().head(f"/api/v1/workers/{fleet.worker.pk}/start", HTTP_AUTHORIZATION=f"Bearer {fleet.token}")
    assert response.status_code == 405
    assert_nothing_recorded()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_any_other_method_without_key_is_401(fleet: Fleet, method: str) -> None:
    assert_refused(Client().generic(method, f"/api/v1/workers/{fleet.worker.pk}/start"), 401)


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Method-Override"])
def test_the_method_cannot_be_overridden(fleet: Fleet, header: str) -> None:
    response = Client().get(
        f"/api/v1/workers/{fleet.worker.pk}/start",
        headers={header: "POST", "Authorization": f"Bearer {fleet.token}"},
    )
    assert_refused(response, 405)


@pytest.mark.parametrize(
    "accept", ["", "text/html", "application/xml", "image/*;q=0", "nonsense", "*/*", "application/json;q=0"]
)
def test_answers_json_whatever_is_accepted(fleet: Fleet, accept: str) -> None:
    response = start(fleet, HTTP_ACCEPT=accept)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"


def test_the_query_string_changes_nothing(fleet: Fleet) -> None:
    path = f"/api/v1/workers/{fleet.worker.pk}/start?format=xml&worker_id={uuid4()}&_method=GET"
    response = Client().post(path, b"{}", "application/json", HTTP_AUTHORIZATION=f"Bearer {fleet.token}")
    assert response.status_code == 200


def test_a_browsers_cookies_and_origin_play_no_part(fleet: Fleet) -> None:
    client = Client(enforce_csrf_checks=True)
    response = start(
        fleet, client=client, HTTP_ORIGIN="https://evil.example.com", HTTP_REFERER="https://evil.example.com"
    )
    assert response.status_code == 200
    assert not response.cookies
    assert "Access-Control-Allow-Origin" not in response


@pytest.mark.parametrize("body", [b"", b'{"system_info": {"a', b'{"system_info": {}'])
def test_a_body_shorter_than_its_length_is_refused(fleet: Fleet, body: bytes) -> None:
    assert_refused(start(fleet, CONTENT_LENGTH="40", **{"wsgi.input": BytesIO(body)}), 422)


def test_no_more_than_the_declared_length_is_read(fleet: Fleet) -> None:
    rest = BytesIO(b"{}" + b"GET / HTTP/1.1")
    assert start(fleet, CONTENT_LENGTH="2", **{"wsgi.input": rest}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "executions",
        "executions/1",
        "analytics/x",
        "workers/",
        "workers/x/start/",
        "workers/x/stop",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_this_control_plane_does_not_have_is_a_clean_404(fleet: Fleet, method: str, path: str) -> None:
    response = Client().generic(method, f"/api/v1/{path}", HTTP_AUTHORIZATION=f"Bearer {fleet.token}")
    assert response.status_code == 404
    assert_error_shape(response)


@pytest.mark.parametrize(("slashes", "status"), [("/", 200), ("//", 200), ("///", 404), ("/./", 404), ("//../", 404)])
def test_the_slash_may_be_doubled_and_no_more(fleet: Fleet, slashes: str, status: int) -> None:
    path = f"{slashes}api/v1/workers/{fleet.worker.pk}/start"
    assert start(fleet, PATH_INFO=path).status_code == status
    assert WorkerStart.objects.count() == (status == 200)
    if status == 200:
        assert start(fleet, PATH_INFO=path, authorization=None).status_code == 401


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "{c5d2b1a0-9f8e-4d7c-8b6a-0123456789ab}",
        "c5d2b1a0-9f8e-4d7c-8b6a-0123456789ab\n",
    ],
)
def test_an_id_is_taken_in_rfc_9562s_spelling_only(text: str) -> None:
    with pytest.raises(UnknownObjectError):
        uuid_of(text)


def test_printable_text_has_no_control_characters_and_a_limit() -> None:
    every = "".join(map(chr, itertools.chain(range(0x300), range(0xD800, 0xD810), range(0x2000, 0x2100))))
    shown = printable(every, limit=len(every))
    assert len(shown) == len(every)
    assert shown.isprintable()
    assert printable("x" * 1_000) == "x" * LIMITED
