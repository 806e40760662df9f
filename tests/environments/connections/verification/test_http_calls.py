import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pytest_django import Settings

from environments.connections.verification import Verification, verify, verify_litellm, verify_telemetry
from environments.encryption import Secret
from environments.endpoints.hosts import AllowedHost
from environments.models import LiteLLMConnection, TelemetrySettings
from tests.support.endpoints import (
    KEY,
    Authority,
    Endpoint,
    answer,
    answering,
    dripping,
    grpc_status,
    no_new_threads,
    request_of,
    silent,
)

pytestmark = pytest.mark.once

type Serve = Callable[..., Endpoint]

JSON = "Content-Type: application/json; charset=utf-8"


@pytest.fixture(autouse=True)
def nothing_is_left_or_told(
    settings: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    settings.CONNECTION_HOSTS = ()
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text + "".join(capfd.readouterr())


def litellm(url: str, key: str = KEY, *, is_required: bool = True, **options: object) -> Verification:
    row = LiteLLMConnection(api_url=url, requires_api_key=is_required)
    return told_safely(verify_litellm(row, Secret(key), **options))  # type: ignore[arg-type]


def telemetry(url: str) -> Verification:
    return told_safely(verify_telemetry(TelemetrySettings(otel_exporter_otlp_endpoint=url)))


def told_safely(verification: Verification) -> Verification:
    """The verification itself: of one sentence, of printable ASCII, without the key and what a server said."""
    told = verification.problem + verification.details
    assert KEY not in repr(verification)
    assert "Authorization" not in told
    assert "Traceback" not in told
    assert told.isprintable()
    assert told.isascii()
    assert len(verification.details) <= 100
    assert verification.is_ok is not bool(verification.problem)
    assert 0 <= verification.latency_ms < 4000
    return verification


def gateway(*, path: str = "/v1/models", version: str = "1.80.5") -> Callable[[socket.socket], None]:
    """A LiteLLM that knows one key."""

    def handle(connection: socket.socket) -> None:
        request = request_of(connection)
        if not request.startswith(f"GET {path} HTTP/1.1\r\n"):
            answer(connection, request, "404 Not Found", JSON)
        elif f"Authorization: Bearer {KEY}\r\n" in request:
            connection.sendall(
                f"HTTP/1.1 200 OK\r\n{JSON}\r\nx-litellm-version: {version}\r\n\r\n{{}}".encode("latin-1")
            )
        else:
            answer(connection, request, "401 Unauthorized", JSON)

    return handle


# --- LiteLLM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
def test_litellm_takes_the_right_key(serve: Serve, base: str) -> None:
    with no_new_threads():
        found = litellm(f"http://{serve(gateway()).host}{base}")
    assert (found.is_ok, found.problem, found.details) == (True, "", "LiteLLM 1.80.5")


def test_litellm_below_a_path(serve: Serve) -> None:
    assert litellm(f"http://{serve(gateway(path='/llm/v1/models')).host}/llm/").is_ok


def test_litellm_refuses_a_wrong_key(serve: Serve) -> None:
    found = litellm(f"http://{serve(gateway()).host}", "sk-wrong")
    assert found.problem == "The API key is not accepted (401)."


def test_a_key_is_sent_only_where_one_is_required(serve: Serve) -> None:
    requests: list[str] = []
    server = serve(lambda connection: requests.append(request_of(connection)))
    litellm(f"http://{server.host}", is_required=False)
    assert "authorization" not in requests[0].lower()


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ("200 OK", "not as LiteLLM does"),
        ("204 No Content", "refuses the request (204)"),
        ("302 Found", "redirects (302)"),
        ("307 Temporary Redirect", "redirects (307)"),
        ("400 Bad Request", "master key"),
        ("403 Forbidden", "The API key is not accepted (403)."),
        ("404 Not Found", "(404)"),
        ("418 Teapot", "refuses the request (418)"),
        ("429 Too Many Requests", "(429)"),
        ("500 Oops", "a problem of its own (500)"),
        ("503 Away", "a problem of its own (503)"),
    ],
)
def test_tells_a_refusal_in_words(serve: Serve, status: str, problem: str) -> None:
    assert problem in litellm(f"http://{serve(answering(status)).host}").problem


def test_follows_no_redirect(serve: Serve) -> None:
    requests: list[str] = []
    other = serve(lambda connection: requests.append(request_of(connection)))
    for target in (f"http://{other.host}/v1/models", "http://169.254.169.254/latest/meta-data/"):
        server = serve(answering("302 Found", f"Location: {target}"))
        found = litellm(f"http://{server.host}")
        assert "redirects (302)" in found.problem
        assert target not in found.problem
        assert len(server.connections) == 1
    assert requests == []


def test_reads_nothing_of_a_body(serve: Serve) -> None:
    huge = answering("200 OK", JSON, "Content-Length: 1000000000", body=b"x" * 50_000_000)
    started = time.monotonic()
    assert litellm(f"http://{serve(huge).host}").is_ok
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x00\xff" * 5000,
        b"HTTP/1.1 " + b"9" * 70_000,
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000,
    ],
    ids=["SSH", "binary", "long status", "odd status", "many headers", "long header"],
)
def test_what_is_no_http_is_a_problem(serve: Serve, garbage: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(garbage)

    assert "not in HTTP" in litellm(f"http://{serve(handle).host}").problem


def test_a_connection_that_is_closed_is_a_problem(serve: Serve) -> None:
    server = serve(request_of)
    assert litellm(f"http://{server.host}").problem == f"{server.host} closed the connection."


def test_nothing_listening_is_a_problem(serve: Serve) -> None:
    server = serve(silent)
    server.stop()
    assert litellm(f"http://{server.host}").problem == f"Nothing listens at {server.host}."


def test_a_version_from_elsewhere_is_made_harmless(serve: Serve) -> None:
    server = serve(gateway(version="<script>\xa0\x1b[31m'\"" + "9" * 500))
    found = litellm(f"http://{server.host}")
    assert found.details.startswith("LiteLLM script31m9")


@pytest.mark.parametrize("key", [f"{KEY}\r\nX: y", f"{KEY}\n", f"{KEY}é", f"{KEY}\0", f"{KEY}\u20ac"])
def test_a_key_that_no_header_can_hold_is_not_repeated(serve: Serve, key: str) -> None:
    server = serve(silent)
    assert "The API key cannot be used." in litellm(f"http://{server.host}", key).problem
    assert server.connections == []


def test_a_key_that_is_missing_is_a_problem(serve: Serve) -> None:
    assert "there is none" in litellm(f"http://{serve(silent).host}", "").problem


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "127.0.0.1:4000",
        "http://",
        "http://:80",
        "http://user:password@127.0.0.1/",
        "http://127.0.0.1@169.254.169.254/",
        "http://169.254.169.254/",
        "http://169.254.169.254./",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[::1]x/",
        "http://[::1",
        "http://１６９.254.169.254/",
        "http://169.254.169.254%2f@127.0.0.1/",
        "http://127.0.0.1\\@169.254.169.254/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1/?x=1",
        "http://127.0.0.1/#x",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1/\tx",
        "http://10.0.0.1/",
        "",
    ],
)
def test_refuses_a_url_without_a_connection(url: str) -> None:
    asked: list[str] = []

    def resolve(name: str) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"]

    assert not litellm(url, resolve=resolve).is_ok
    assert asked == []


def test_connects_to_the_address_of_the_one_look_up_and_keeps_the_name(serve: Serve, trusted: Authority) -> None:
    asked: list[str] = []
    requests: list[str] = []

    def handle(connection: socket.socket) -> None:
        requests.append(request_of(connection))
        connection.sendall(f"HTTP/1.1 200 OK\r\n{JSON}\r\n\r\n".encode())

    def rebinding(name: str) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    server = serve(handle, tls=trusted.context_for("llm.example.com"))
    found = litellm(f"https://llm.example.com:{server.port}", resolve=rebinding)
    assert (found.problem, asked) == ("", ["llm.example.com"])
    assert f"\r\nHost: llm.example.com:{server.port}\r\n" in requests[0]


def test_the_allow_list_reaches_what_is_not_public(serve: Serve, settings: Settings) -> None:
    settings.IS_LOCAL = False
    url = f"http://llm.example.com:{serve(gateway()).port}"
    assert "CONNECTION_HOSTS" in litellm(url, resolve=lambda _: ["127.0.0.1"]).problem
    settings.CONNECTION_HOSTS = (AllowedHost.parse("*.example.com"),)
    assert litellm(url, resolve=lambda _: ["127.0.0.1"]).is_ok


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_speaks_tls_over_ipv4_and_ipv6(serve: Serve, trusted: Authority) -> None:
    for address in ("127.0.0.1", "::1"):
        server = serve(gateway(), tls=trusted.context_for(address), address=address)
        assert litellm(f"https://{server.host}").problem == ""


def test_refuses_a_certificate_of_another_name(serve: Serve, trusted: Authority) -> None:
    server = serve(gateway(), tls=trusted.context_for("other.example.com"))
    found = litellm(f"https://llm.example.com:{server.port}", resolve=lambda _: ["127.0.0.1"])
    assert "is not trusted: Hostname mismatch" in found.problem


def test_refuses_a_certificate_of_a_stranger(serve: Serve, authority: Authority) -> None:
    server = serve(gateway(), tls=authority.context_for("127.0.0.1"))
    assert "is not trusted" in litellm(f"https://{server.host}").problem


def test_tls_towards_a_plain_server_and_plain_towards_tls_are_problems(serve: Serve, trusted: Authority) -> None:
    plain = serve(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + connection.recv(1)))
    assert "TLS handshake" in litellm(f"https://{plain.host}").problem
    encrypted = serve(gateway(), tls=trusted.context_for("127.0.0.1"))
    assert not litellm(f"http://{encrypted.host}").is_ok


# --- Telemetry -------------------------------------------------------------------------------------------------------


def test_telemetry_without_an_endpoint_needs_nothing() -> None:
    assert telemetry("") == Verification(
        is_ok=True, problem="", latency_ms=0, details="No endpoint, so nothing to verify."
    )


def test_telemetry_sends_an_empty_export(serve: Serve) -> None:
    requests: list[str] = []

    def handle(connection: socket.socket) -> None:
        requests.append(request_of(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")

    found = telemetry(f"http://{serve(handle).host}/otlp/")
    assert (found.problem, found.details) == ("", "Takes traces by OTLP over HTTP.")
    assert requests[0].startswith("POST /otlp/v1/traces HTTP/1.1\r\n")
    assert "\r\nContent-Type: application/x-protobuf\r\n" in requests[0]
    assert "\r\nContent-Length: 0\r\n" in requests[0]


@pytest.mark.parametrize(
    ("status", "problem"),
    [("401 No", "asks for credentials (401)"), ("404 No", "(404)"), ("301 No", "redirects"), ("502 No", "(502)")],
)
def test_telemetry_tells_a_refusal_in_words(serve: Serve, status: str, problem: str) -> None:
    assert problem in telemetry(f"http://{serve(answering(status)).host}").problem


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (grpc_status(0), ""),
        (answering("400 Bad Request"), "does not speak gRPC"),
        (lambda connection: connection.recv(9), "closed the connection"),
    ],
    ids=["gRPC", "HTTP/1", "closed"],
)
def test_telemetry_on_the_grpc_port_asks_for_http2(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, handler: Callable[[socket.socket], object], problem: str
) -> None:
    server = serve(handler)
    # Port 4317 itself may be taken on the machine that tests.
    monkeypatch.setattr("environments.connections.verification.telemetry.GRPC_PORT", server.port)
    found = telemetry(f"http://{server.host}")
    assert problem in found.problem
    assert found.is_ok is not bool(problem)


# --- Time ------------------------------------------------------------------------------------------------------------


def test_every_kind_of_slowness_ends_after_three_seconds(
    serve: Serve, trusted: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = dripping(b"HTTP/1.1 200 OK\r\nX: ")
    mute, tls_mute = serve(silent), serve(silent, tls=trusted.context_for("127.0.0.1"))
    plain, tls = serve(headers), serve(headers, tls=trusted.context_for("127.0.0.1"))
    grpc = serve(silent)
    monkeypatch.setattr("environments.connections.verification.telemetry.GRPC_PORT", grpc.port)
    checks = [
        lambda: litellm(f"http://{mute.host}"),
        lambda: litellm(f"https://{mute.host}"),
        lambda: litellm(f"https://{tls_mute.host}"),
        lambda: litellm(f"http://{plain.host}"),
        lambda: litellm(f"https://{tls.host}"),
        lambda: telemetry(f"http://{mute.host}"),
        lambda: telemetry(f"http://{plain.host}"),
        lambda: telemetry(f"http://{grpc.host}"),
    ]
    started = time.monotonic()
    with no_new_threads(), ThreadPoolExecutor(len(checks)) as pool:
        found = [future.result() for future in [pool.submit(check) for check in checks]]
    assert time.monotonic() - started < 5
    assert [verification.problem for verification in found if "within 3 seconds" not in verification.problem] == []


# --- Dispatch --------------------------------------------------------------------------------------------------------


def test_verifies_a_row_of_either_kind(serve: Serve) -> None:
    server = serve(gateway())
    assert verify(LiteLLMConnection(api_url=f"http://{server.host}"), Secret(KEY)).is_ok
    assert verify(TelemetrySettings(), Secret("")).is_ok
