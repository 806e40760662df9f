"""The shipped reverse proxy, `deploy/nginx.conf`, in front of a service that answers with what it was sent."""

import json
import ssl
import threading
from collections.abc import Generator
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from controlplane.api.errors import RETRY_AFTER_SECONDS
from controlplane.api.parsers import MAX_BYTES
from tests.support.processes import free_port
from tests.support.proxies import NAME, NginxMissingError, Proxy, nginx_program

try:
    nginx_program()
except NginxMissingError as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = [pytest.mark.xdist_group("proxy"), pytest.mark.once]


class Echo(BaseHTTPRequestHandler):
    """Answers with the path, the headers and the length of the body that arrived."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        port = self.connection.getsockname()[1]
        told = {"port": port, "path": self.path, "headers": self.headers.items(), "length": length}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


def serve_echo(port: int) -> None:
    """Until the end of this process."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Generator[Proxy]:
    serve_echo(port := free_port())
    proxy = Proxy(tmp_path_factory.mktemp("proxy") / "nginx", port)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def lonely_proxy(tmp_path: Path) -> Generator[Proxy]:
    """Without any service behind it; `service_ports` are where one could be."""
    proxy = Proxy(tmp_path / "nginx", free_port(), free_port())
    proxy.start()
    yield proxy
    proxy.stop()


def ask(
    proxy: Proxy, path: str, *, body: bytes | None = None, method: str = "POST", plain: bool = False, **headers: str
) -> Answer:
    connection = HTTPConnection("127.0.0.1", proxy.plain_port, timeout=30) if plain else proxy.connection()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"Host": NAME} | given)
    answer = answer_of(connection.getresponse())
    connection.close()
    return answer


def answer_of(response: HTTPResponse) -> Answer:
    body = response.read()
    is_json = "json" in response.headers.get("Content-Type", "json")
    return Answer(response.status, dict(response.headers), json.loads(body) if is_json and body else body)


def received(answer: Answer) -> list[tuple[str, str]]:
    assert answer.status == 200
    return [(name.lower(), value) for name, value in answer.body["headers"]]


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    done = Proxy(tmp_path / "nginx", free_port()).check()
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr


# --- Who is asking -----------------------------------------------------------------------------------------------------------


def test_the_service_is_told_the_clients_address_scheme_and_name(proxy: Proxy) -> None:
    headers = dict(received(ask(proxy, "/api/v1/x")))
    assert headers["host"] == NAME
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert len(headers["x-request-id"]) == 32


def test_a_client_cannot_forge_what_the_proxy_tells(proxy: Proxy) -> None:
    connection = proxy.connection()
    connection.putrequest("GET", "/api/v1/x", skip_host=True)
    forged = {
        "X-Forwarded-For": "203.0.113.7",
        "x-forwarded-for": "203.0.113.8",
        "X_Forwarded_For": "203.0.113.9",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example.com",
        "Forwarded": "for=203.0.113.7",
        "X-Request-ID": "forged",
    }
    connection.putheader("Host", NAME)
    for name, value in forged.items():
        connection.putheader(name, value)
    connection.endheaders()
    headers = received(answer_of(connection.getresponse()))
    connection.close()
    assert [value for name, value in headers if "forwarded-for" in name.replace("_", "-")] == ["127.0.0.1"]
    assert not set(forged.values()) & {value for _, value in headers}


def test_another_name_gets_no_certificate(proxy: Proxy) -> None:
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    connection = proxy.connection()
    connection.host, connection._context = "other.example.com", trust  # type: ignore[attr-defined]
    with pytest.raises(ssl.SSLError):
        connection.request("GET", "/")


def test_another_name_in_the_request_gets_no_answer(proxy: Proxy) -> None:
    with pytest.raises(ConnectionResetError):
        ask(proxy, "/api/v1/x", Host="other.example.com")


# --- What is not passed on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "//metrics",
        "/%6detrics",
        "/api/../metrics",
        "/api/..%2fmetrics",
        "/metrics?x",
        "/metrics/",
        "/readyz",
        "/livez",
    ],
)
def test_what_is_for_operators_is_not_shown_outside(proxy: Proxy, path: str) -> None:
    assert ask(proxy, path, method="GET")[::2] == (404, {"detail": "Not found."})


def test_a_body_may_be_as_large_as_the_service_allows(proxy: Proxy) -> None:
    assert ask(proxy, "/api/v1/x", body=b"x" * MAX_BYTES).body["length"] == MAX_BYTES
    assert ask(proxy, "/api//v1/x", body=b"x" * MAX_BYTES).body["path"] == "/api//v1/x"


@pytest.mark.parametrize("path", ["/api/v1/x", "//api/v1/x"])
def test_a_larger_body_is_refused_as_the_service_refuses(proxy: Proxy, path: str) -> None:
    answer = ask(proxy, path, body=b"x" * (MAX_BYTES + 1))
    assert (answer.status, answer.body) == (413, {"detail": "The body is too large."})
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/workers/x/heartbeat",
        "/api/v1/workers/heartbeat",
        "//api/v1/workers/x/heartbeat",
        "/api/v1/workers/x/disconnect",
    ],
)
def test_a_heartbeat_or_goodbye_may_be_larger(proxy: Proxy, path: str) -> None:
    assert ask(proxy, path, body=b"x" * 1024 * 1024).body["length"] == 1024 * 1024
    assert ask(proxy, path, body=b"x" * (1024 * 1024 + 1)).status == 413


def test_a_chunked_body_arrives_with_its_length(proxy: Proxy) -> None:
    connection = proxy.connection()
    connection.request("POST", "/api/v1/x", iter([b"ab", b"c"]), {"Host": NAME}, encode_chunked=True)
    answer = answer_of(connection.getresponse())
    connection.close()
    assert answer.body["length"] == 3
    assert dict(received(answer))["content-length"] == "3"


def test_plain_http_is_refused_for_workers_and_redirected_for_people(proxy: Proxy) -> None:
    assert ask(proxy, "/api/v1/x", plain=True)[::2] == (403, {"detail": "Use HTTPS."})
    assert ask(proxy, "//api/v1/x", plain=True)[::2] == (403, {"detail": "Use HTTPS."})
    people = ask(proxy, "/admin/", method="GET", plain=True, Host="evil.example.com")
    assert (people.status, people.headers["Location"]) == (301, f"https://{NAME}/admin/")


def test_the_log_has_no_query_and_no_header(proxy: Proxy) -> None:
    ask(proxy, "/api/v1/logged?api_key=canary-in-query", method="GET", Authorization="Bearer canary-in-header")
    log = proxy.directory / "access.log"
    # nginx writes a request's line after it has sent the whole answer.
    proxy.process.wait_until(lambda: "/api/v1/logged" in log.read_text(), seconds=10)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines if line["path"] == "/api/v1/logged"] == [200]
    assert "canary" not in log.read_text()


# --- Without a service -------------------------------------------------------------------------------------------------------


def test_without_a_service_workers_are_told_to_come_again(lonely_proxy: Proxy) -> None:
    answer = ask(lonely_proxy, "/api/v1/x", body=b"{}")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == str(RETRY_AFTER_SECONDS)
    assert list(answer.body) == ["detail"]


def test_the_second_service_serves_while_the_first_is_away(lonely_proxy: Proxy) -> None:
    first, second = lonely_proxy.service_ports
    for port in (second, first):
        serve_echo(port)
        assert [ask(lonely_proxy, "/api/v1/x", body=b"{}").body["port"] for _ in range(5)] == [port] * 5
