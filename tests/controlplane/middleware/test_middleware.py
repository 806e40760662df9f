import pytest
from django.test import Client
from pytest_django import Settings

from tests.support.calls import assert_nothing_recorded, in_chunks, start
from tests.support.factories import Fleet

HTTPS = {"wsgi.url_scheme": "https"}
PROXY = "127.0.0.1"


# --- Plain HTTP --------------------------------------------------------------------------------------------------------------

PLAIN: dict[str, tuple[dict[str, str], bool]] = {
    "this machine": ({"REMOTE_ADDR": "127.0.0.1"}, True),
    "this machine over IPv6": ({"REMOTE_ADDR": "::1"}, True),
    "another machine": ({"REMOTE_ADDR": "203.0.113.7"}, False),
    "the private network": ({"REMOTE_ADDR": "10.0.0.7"}, False),
    "an unknown address": ({"REMOTE_ADDR": ""}, False),
    "another machine that says https": ({"REMOTE_ADDR": "203.0.113.7", "HTTP_X_FORWARDED_PROTO": "https"}, False),
    "another machine that says to be this one": (
        {"REMOTE_ADDR": "203.0.113.7", "HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        False,
    ),
    "another machine with other headers": (
        {"REMOTE_ADDR": "203.0.113.7", "HTTP_X_FORWARDED_SSL": "on", "HTTP_FORWARDED": "proto=https", "HTTPS": "on"},
        False,
    ),
    "behind a proxy that hides its client": ({"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": "unknown"}, False),
    "behind a proxy elsewhere that says this machine": (
        {"REMOTE_ADDR": "203.0.113.7", "HTTP_X_FORWARDED_FOR": "127.0.0.1", "HTTP_FORWARDED": "for=127.0.0.1"},
        False,
    ),
    "behind a proxy over https in capitals": (
        {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": "203.0.113.7", "HTTP_X_FORWARDED_PROTO": "HTTPS"},
        True,
    ),
    "behind two proxies, the outer one over https": (
        {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": "203.0.113.7", "HTTP_X_FORWARDED_PROTO": "https,http"},
        True,
    ),
    "behind a proxy without its word": ({"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": "203.0.113.7"}, False),
    "behind a proxy over http": (
        {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": "203.0.113.7", "HTTP_X_FORWARDED_PROTO": "http"},
        False,
    ),
    "behind a proxy over https": (
        {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": "203.0.113.7", "HTTP_X_FORWARDED_PROTO": "https"},
        True,
    ),
    "behind a proxy with two words": (
        {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": "203.0.113.7", "HTTP_X_FORWARDED_PROTO": "http, https"},
        False,
    ),
}


@pytest.mark.parametrize("path", ["/api/v1", "//api/v1"])
@pytest.mark.parametrize(("environ", "passes"), PLAIN.values(), ids=PLAIN)
def test_plain_http_is_for_this_machine_only_and_is_refused_not_redirected(
    fleet: Fleet, environ: dict[str, str], passes: bool, path: str
) -> None:
    response = start(fleet, PATH_INFO=f"{path}/workers/{fleet.worker.pk}/start", **environ)
    if passes:
        assert response.status_code == 200
    else:
        assert response.status_code == 403
        assert response.json() == {"detail": "Use HTTPS."}
        assert "Location" not in response
        assert_nothing_recorded()


@pytest.mark.parametrize(
    "path", ["/api/v1/workers/x/start", "//api/v1/workers/x/start", "/api/v1/nothing", "/api/openapi.json"]
)
def test_plain_http_is_refused_in_production_too_and_not_redirected(settings: Settings, path: str) -> None:
    settings.SECURE_SSL_REDIRECT = True
    response = Client().generic("GET", "/", PATH_INFO=path, REMOTE_ADDR="203.0.113.7")
    assert response.status_code == 403
    assert "Location" not in response


def test_the_refusal_of_plain_http_is_as_closed_as_any_other_answer() -> None:
    response = Client().get("/api/v1/nothing", REMOTE_ADDR="203.0.113.7")
    assert response.status_code == 403
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    assert "default-src 'none'" in response.headers.get("Content-Security-Policy", "")


def test_the_console_is_redirected_to_https_in_production(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    response = Client().get("/admin/", REMOTE_ADDR="203.0.113.7")
    assert response.status_code == 301
    assert response["Location"].startswith("https://")


def test_health_is_answered_over_plain_http(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get("/livez", REMOTE_ADDR="203.0.113.7").status_code == 200


# --- Headers -----------------------------------------------------------------------------------------------------------------


def policy(path: str) -> dict[str, str]:
    header = Client().get(path)["Content-Security-Policy"]
    return {name: rest for name, _, rest in (part.strip().partition(" ") for part in header.split(";"))}


@pytest.mark.parametrize("is_secure", [False, True])
def test_the_worker_api_tells_browsers_the_same_as_what_passes_all_middleware(
    settings: Settings, *, is_secure: bool
) -> None:
    settings.SECURE_HSTS_SECONDS = 60
    client = Client()
    passed = dict(client.get("/api/nothing", secure=is_secure).items())
    assert ("Strict-Transport-Security" in passed) == is_secure
    told = [dict(client.get("/api/v1/nothing", secure=is_secure).items()) for _ in range(2)]
    for headers in (passed, *told):
        del headers["X-Request-ID"]
    assert told == [passed, passed]


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v1/workers/x/start", "/api/openapi.json", "/livez", "/nothing"]
)
def test_everything_but_the_console_may_load_nothing(path: str) -> None:
    directives = policy(path)
    assert directives["default-src"] == "'none'"
    assert directives["frame-ancestors"] == "'none'"
    assert "script-src" not in directives


@pytest.mark.django_db
def test_the_console_loads_its_own_files_only() -> None:
    directives = policy("/admin/login/")
    assert directives["default-src"] == "'none'"
    assert "'unsafe-inline'" not in directives["script-src"]
    allowed = {"'none'", "'self'", "'unsafe-eval'", "'unsafe-inline'", "data:"}
    assert {source for sources in directives.values() for source in sources.split()} <= allowed


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/workers/x/start", "/api/openapi.json"])
def test_no_cache_keeps_an_answer_of_the_api(path: str) -> None:
    assert "no-store" in Client().get(path)["Cache-Control"]


# --- The connection ----------------------------------------------------------------------------------------------------------


def test_says_that_the_connection_ends_when_the_answer_came_before_the_body_was_read(fleet: Fleet) -> None:
    """The server ends it in any case, and a client that is not told finds out with its next request."""
    large = b" " * 70_000
    for refused in (
        start(fleet, token="x.y.z"),
        start(fleet, content_type="text/plain"),
        start(fleet, large),
        start(fleet, worker_id="nonsense"),
        start(fleet, token="x.y.z", **in_chunks(b"{}")),
        start(fleet, **in_chunks(large)),
    ):
        assert refused.status_code >= 400
        assert refused["Connection"] == "close"


def test_leaves_the_connection_open_otherwise(fleet: Fleet) -> None:
    for answered in (
        start(fleet),
        start(fleet, b"{"),
        start(fleet, **in_chunks(b"{}")),
        start(fleet, b"", token="x.y.z"),
        Client().get("/api/health"),
        Client().post("/livez", b"{}", "application/json"),
    ):
        assert "Connection" not in answered


# --- Health checks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_a_health_check_may_know_nothing_but_an_address(db: None, settings: Settings, path: str) -> None:
    settings.ALLOWED_HOSTS = ["controlplane.example.com"]
    assert Client().get(path, headers={"host": "10.1.2.3:8000"}).status_code == 200


@pytest.mark.parametrize("path", ["/api/health", "/admin/login/", "/livez/"])
def test_everything_else_is_served_under_its_own_names_only(db: None, settings: Settings, path: str) -> None:
    settings.ALLOWED_HOSTS = ["controlplane.example.com"]
    assert Client().get(path, headers={"host": "10.1.2.3:8000"}).status_code == 400
