import logging
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import SuspiciousOperation
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import path
from django.views.debug import get_exception_reporter_filter
from pytest_django import Settings
from rest_framework.request import Request
from rest_framework.views import APIView

from controlplane import urls
from controlplane.engines.circuit import Circuit
from tests.support.calls import assert_error_shape, assert_refused, start
from tests.support.factories import Fleet

pytestmark = pytest.mark.sqlite

SECRET = "secret-in-a-local-variable"


def fail(_request: HttpRequest) -> HttpResponse:
    local = SECRET
    raise RuntimeError(len(local))


def suspicious(_request: HttpRequest) -> HttpResponse:
    raise SuspiciousOperation(SECRET)


class FailingView(APIView):
    authentication_classes = ()

    def get(self, request: Request) -> HttpResponse:
        return fail(request)  # type: ignore[arg-type]  # it only fails


class AskingView(APIView):
    """Asks the database what the header says."""

    authentication_classes = ()

    def get(self, request: Request) -> HttpResponse:
        ask(request)  # type: ignore[arg-type]  # it has the header, too
        return HttpResponse()


def ask(request: HttpRequest) -> HttpResponse:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(request.headers["X-Statement"])
    return HttpResponse()


#: This module is the URL configuration of the tests below that need a view which fails.
urlpatterns = [
    path("api/fail", fail),
    path("api/fail-in-drf", FailingView.as_view()),
    path("api/suspicious", suspicious),
    path("api/ask", AskingView.as_view()),
    path("admin/ask", ask),
    *urls.urlpatterns,
]
handler400, handler404, handler500 = urls.handler400, urls.handler404, urls.handler500


@pytest.fixture
def failing(settings: Settings) -> Client:
    settings.ROOT_URLCONF = __name__
    return Client(raise_request_exception=False)


def assert_is_closed(response: HttpResponse) -> None:
    """JSON, of no use to a browser, kept by no cache."""
    assert_error_shape(response)
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert response["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("url", ["/api/fail", "/api/fail-in-drf"])
def test_an_unexpected_error_is_500_without_a_reason(failing: Client, url: str) -> None:
    response = failing.get(url)
    assert response.status_code == 500
    assert response.json() == {"detail": "Internal error."}
    assert_is_closed(response)


@pytest.mark.parametrize("url", ["/api/fail", "/api/fail-in-drf"])
def test_an_unexpected_error_is_logged_without_local_variables(
    failing: Client, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    failing.get(url)
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_djangos_own_400_is_json(failing: Client) -> None:
    response = failing.get("/api/suspicious")
    assert response.status_code == 400
    assert response.json() == {"detail": "Bad request."}
    assert_is_closed(response)


@pytest.mark.parametrize(
    "host", ["evil.example.com", "127.0.0.1.evil.example.com", "a b", "localhost:x", "a" * 300, "[::1"]
)
def test_a_host_that_is_not_allowed_is_400(fleet: Fleet, host: str) -> None:
    response = start(fleet, HTTP_HOST=host)
    assert_refused(response, 400)
    assert "default-src 'none'" in response["Content-Security-Policy"]


@pytest.mark.parametrize(
    "url", ["/api/", "/api/x", "/api/v1", "/api/v2/workers", "/api/openapi", "/api/v1/../../admin"]
)
def test_an_unknown_path_below_api_is_a_json_404(url: str) -> None:
    response = Client().get(url)
    assert response.status_code == 404
    assert response.json() == {"detail": "Not found."}
    assert_is_closed(response)


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 204), ("POST", 405), ("DELETE", 405), ("TRACE", 405)])
@pytest.mark.parametrize("url", ["/api/docs", "/api/openapi.json", "/api/health"])
def test_another_method_than_a_pages_is_answered_like_all_of_the_api(url: str, method: str, status: int) -> None:
    response = Client().generic(method, url)
    assert (response.status_code, "GET" in response["Allow"]) == (status, True)
    if status == 405:
        assert_error_shape(response)


def test_every_refusal_of_the_worker_api_is_closed(fleet: Fleet) -> None:
    for request in ({"token": "x"}, {"worker_id": "x"}, {"body": b"[]"}, {"content_type": "text/plain"}):
        assert_is_closed(start(fleet, request.pop("body", b"{}"), **request))


def test_the_answer_with_secrets_is_closed(fleet: Fleet) -> None:
    response = start(fleet)
    assert response["Cache-Control"] == "no-store"
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert "Set-Cookie" not in response


#: Statements of a caller, with the status for programs and for people.
ASKED = {
    "postgresql": {
        "SET LOCAL statement_timeout = 10; SELECT pg_sleep(1)": (503, 503),
        "DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40P01'; END $$": (503, 503),
        "SELECT 'x'::int": (400, 400),
        "DO $$ BEGIN RAISE EXCEPTION SQLSTATE '54001'; END $$": (400, 400),
        "DO $$ BEGIN RAISE EXCEPTION SQLSTATE '23503'; END $$": (404, 409),
        "DO $$ BEGIN RAISE EXCEPTION SQLSTATE '23505'; END $$": (409, 409),
        "SELECT 1 FROM unknown": (500, 500),
    },
    "sqlite": {
        f"SELECT {'+'.join('1' * 1_200)}": (400, 400),
        "SELECT json('{')": (400, 400),
        "INSERT INTO workers_pulse VALUES (1, 'x'), (1, 'y')": (409, 409),
        "SELECT 1 FROM unknown": (500, 500),
    },
}


@pytest.mark.django_db
@pytest.mark.parametrize(("statement", "statuses"), ASKED[connection.vendor].items())
def test_an_error_of_a_callers_statement_is_no_failure_of_ours_for_ever(
    failing: Client, used: Circuit, statement: str, statuses: tuple[int, int]
) -> None:
    program, person = (failing.get(path, headers={"X-Statement": statement}) for path in ("/api/ask", "/admin/ask"))
    assert (program.status_code, person.status_code) == statuses
    assert_error_shape(program)
    for response in (program, person):
        assert ("Retry-After" in response) == (response.status_code == 503)
    assert not used.is_open()


# --- Error reports -----------------------------------------------------------------------------------------------------------


def test_reports_hide_what_was_typed_and_what_functions_held() -> None:
    request = RequestFactory().post("/admin/", {"api_key": SECRET, "name": "x"})
    reporter = get_exception_reporter_filter(request)
    assert reporter.is_active(request)
    shown: Any = dict(reporter.get_post_parameters(request))
    assert set(shown) == {"api_key", "name"}
    assert SECRET not in str(shown)
    try:
        fail(request)
    except RuntimeError as error:
        frame = error.__traceback__.tb_next.tb_frame  # type: ignore[union-attr]  # it was raised one call down
        variables = dict(reporter.get_traceback_frame_variables(request, frame))
    assert "local" in variables
    assert SECRET not in str(variables)


def test_reports_hide_every_secret_setting() -> None:
    shown = str(get_exception_reporter_filter(None).get_safe_settings())
    rings = (django_settings.ENCRYPTION_KEYS, django_settings.API_KEY_SIGNING_KEYS)
    for secret in (django_settings.SECRET_KEY, *(repr(key.material) for ring in rings for key in ring.values())):
        assert secret not in shown
    password = django_settings.DATABASES["default"].get("PASSWORD")
    assert not password or password not in shown


def test_no_handler_mails_a_report() -> None:
    loggers = [
        logging.getLogger(),
        logging.getLogger("django"),
        logging.getLogger("django.request"),
        logging.getLogger("django.security"),
    ]
    names = [type(handler).__name__ for logger in loggers for handler in logger.handlers]
    assert "AdminEmailHandler" not in names
