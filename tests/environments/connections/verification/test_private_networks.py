"""What networks of their own have: authorities that only they know, client certificates, and no way out but a proxy."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pytest_django import Settings

from environments.connections.verification import ConnectionProblemError, verify_litellm, verify_telemetry
from environments.connections.verification.guard import Destination, destination_of
from environments.connections.verification.outcome import DIRECTLY, Deadline
from environments.connections.verification.reach import CLIENT_CERTIFICATE, connected, problem_of
from environments.connections.verification.telemetry import NO_HEADERS
from environments.connections.verification.temporal import verify_temporal
from environments.encryption import Secret
from environments.models import LiteLLMConnection, TelemetrySettings, TemporalConnection
from tests.support.endpoints import KEY, Authority, Endpoint, answering, grpc_status
from tests.support.processes import ROOT

pytestmark = pytest.mark.once

type Serve = Callable[..., Endpoint]


@pytest.fixture(autouse=True)
def any_host(settings: Settings) -> None:
    settings.CONNECTION_HOSTS = ()


def temporal(host: str) -> str:
    return verify_temporal(TemporalConnection(host=host, namespace="n"), Secret(KEY)).problem


def litellm(host: str) -> str:
    return verify_litellm(LiteLLMConnection(api_url=f"https://{host}"), Secret(KEY)).problem


def telemetry(host: str) -> str:
    return verify_telemetry(TelemetrySettings(otel_exporter_otlp_endpoint=f"https://{host}")).problem


@pytest.fixture
def otlp_over_grpc(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    def found(host: str) -> str:
        monkeypatch.setattr("environments.connections.verification.telemetry.GRPC_PORT", int(host.rpartition(":")[2]))
        return telemetry(host)

    return found


# --- Client certificates ---------------------------------------------------------------------------------------------


def asking(authority: Authority, newest: ssl.TLSVersion, *, is_required: bool = True) -> ssl.SSLContext:
    """The context of a server that asks for a client's certificate."""
    context = authority.context_for("127.0.0.1", "h2", "http/1.1")
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
    context.maximum_version = newest
    return context


@pytest.mark.parametrize(
    ("newest", "words"), [(ssl.TLSVersion.TLSv1_3, "asks for"), (ssl.TLSVersion.TLSv1_2, "Perhaps it asks for")]
)
def test_a_server_that_asks_for_a_client_certificate_is_told(
    serve: Serve, trusted: Authority, otlp_over_grpc: Callable[[str], str], newest: ssl.TLSVersion, words: str
) -> None:
    for verified in (temporal, litellm, telemetry, otlp_over_grpc):
        server = serve(grpc_status(0), tls=asking(trusted, newest))
        problem = verified(server.host)
        assert problem.startswith(server.host)
        assert problem.endswith(f"{words} {CLIENT_CERTIFICATE}")


def test_a_server_that_goes_on_without_a_client_certificate_is_none_of_them(serve: Serve, trusted: Authority) -> None:
    server = serve(grpc_status(16), tls=asking(trusted, ssl.TLSVersion.TLSv1_3, is_required=False))
    assert temporal(server.host) == "The API key is not accepted for the namespace n."


@pytest.mark.parametrize("said", ["No required SSL certificate was sent", "The SSL certificate error"])
def test_nginx_that_misses_a_client_certificate_says_so_in_its_page(
    serve: Serve, trusted: Authority, said: str
) -> None:
    page = f"<html><head><title>400 {said}</title></head><body></body></html>\r\n".encode()
    for verified in (litellm, telemetry):
        server = serve(answering("400 Bad Request", body=page), tls=trusted.context_for("127.0.0.1"))
        assert verified(server.host) == f"{server.host} asks for {CLIENT_CERTIFICATE}"


@pytest.mark.parametrize("reason", ["TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE"])
def test_every_alert_that_means_a_client_certificate_is_known(reason: str) -> None:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    destination = destination_of("t.example.com", 7233, deadline=Deadline(), resolve=lambda _: ["8.8.8.8"])
    assert problem_of(error, destination, Deadline()) == f"t.example.com:7233 asks for {CLIENT_CERTIFICATE}"


# --- Private authorities ---------------------------------------------------------------------------------------------

UNKNOWN = " is not trusted: unable to get local issuer certificate. Name a private authority's file in SSL_CERT_FILE."


def test_an_unknown_authority_leads_to_the_variable_that_names_it(serve: Serve, authority: Authority) -> None:
    for verified in (temporal, litellm, telemetry):
        server = serve(grpc_status(16), tls=authority.context_for("127.0.0.1", "h2", "http/1.1"))
        assert verified(server.host) == f"The certificate of {server.host}{UNKNOWN}"


def test_the_authority_that_ssl_cert_file_names_is_trusted(serve: Serve, trusted: Authority) -> None:
    grpc = serve(grpc_status(16), tls=trusted.context_for("127.0.0.1", "h2"))
    assert temporal(grpc.host) == "The API key is not accepted for the namespace n."
    web = serve(answering("200 OK", "Content-Type: application/json"), tls=trusted.context_for("127.0.0.1"))
    assert (litellm(web.host), telemetry(web.host)) == ("", "")


def test_the_programs_that_we_hand_out_trust_it_too(serve: Serve, authority: Authority) -> None:
    requests: list[str] = []

    def plane(connection: socket.socket) -> None:
        requests.append("")
        while not requests[-1].endswith("{}"):
            requests[-1] += connection.recv(4096).decode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server = serve(plane, tls=authority.context_for("127.0.0.1"))
    program = "import plain_worker; print(plain_worker.call('start', {}))"
    given = {
        "CONTROL_PLANE_URL": f"https://{server.host}",
        "WORKER_ID": "w",
        "API_KEY": "k",
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, "-c", program]

    def run(**environ: str) -> subprocess.CompletedProcess[str]:
        folder = ROOT / "examples"
        return subprocess.run(  # noqa: S603
            command, env=given | environ, cwd=folder, capture_output=True, text=True, timeout=30, check=False
        )

    assert "certificate verify failed" in run().stderr
    assert requests == []
    done = run(SSL_CERT_FILE=str(authority.certificate))
    assert (done.stdout, done.stderr) == ("{}\n", "")
    assert requests[0].startswith("POST /api/v1/workers/w/start ")


# --- Egress proxies and headers --------------------------------------------------------------------------------------


@pytest.fixture
def unanswering() -> Iterator[Destination]:
    """A port of this machine whose queue is full, so that a connection is never made, as behind a firewall."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003
            waiting.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        yield destination_of("a.localhost", port, deadline=Deadline(), resolve=lambda _: ["127.0.0.1"])


def test_no_way_out_leads_to_the_page_on_egress_proxies(unanswering: Destination) -> None:
    with pytest.raises(ConnectionProblemError) as caught, connected(unanswering, Deadline(0.2), is_tls=True):
        pass
    assert str(caught.value) == f"{unanswering} did not answer within 3 seconds. {DIRECTLY}"
    unreachable = OSError(113, "No route to host")
    assert problem_of(unreachable, unanswering, Deadline()).endswith(
        f"There is no way from here to {unanswering}. {DIRECTLY}"
    )


def test_a_name_that_only_a_proxy_could_look_up_leads_there_too() -> None:
    def away(name: str) -> Any:
        raise OSError(name)

    with pytest.raises(ConnectionProblemError) as caught:
        destination_of("t.example.com", 7233, deadline=Deadline(), resolve=away)
    assert str(caught.value) == f"The name t.example.com cannot be resolved. {DIRECTLY}"


def test_a_firewall_that_refuses_and_a_proxy_in_the_way_lead_there_too(serve: Serve) -> None:
    away = destination_of("t.example.com", 7233, deadline=Deadline(), resolve=lambda _: ["8.8.8.8"])
    assert problem_of(ConnectionRefusedError(), away, Deadline()) == f"Nothing listens at {away}. {DIRECTLY}"
    server = serve(answering("407 Proxy Authentication Required"))
    found = verify_telemetry(TelemetrySettings(otel_exporter_otlp_endpoint=f"http://{server.host}"))
    assert found.problem == f"A proxy on the way to {server.host} asks who calls (407). {DIRECTLY}"


def test_a_collector_of_grpc_may_ask_for_headers_all_the_same(
    serve: Serve, otlp_over_grpc: Callable[[str], str], trusted: Authority
) -> None:
    server = serve(grpc_status(16), tls=trusted.context_for("127.0.0.1", "h2"))
    assert otlp_over_grpc(server.host) == ""
    found = verify_telemetry(TelemetrySettings(otel_exporter_otlp_endpoint=f"https://{server.host}"))
    assert found.details.endswith("no trace was sent, so it may still ask for headers.")


@pytest.mark.parametrize("status", [401, 403])
def test_a_collector_that_asks_for_headers_leads_to_one_that_adds_them(serve: Serve, status: int) -> None:
    server = serve(answering(f"{status} No"))
    found = verify_telemetry(TelemetrySettings(otel_exporter_otlp_endpoint=f"http://{server.host}"))
    assert found.problem == f"{server.host} asks for credentials ({status}), {NO_HEADERS}"
