"""Verifies telemetry settings: hands the OTLP endpoint an export without a single span."""

from http import HTTPStatus

from environments.connections.verification.guard import Resolver, destination_of, resolve_name
from environments.connections.verification.http_calls import call, refusal_of
from environments.connections.verification.outcome import ConnectionProblemError, Deadline, Verification, measured
from environments.connections.verification.reach import FRAME_HEADER_BYTES, connected, greet
from environments.endpoints.rules import Endpoint, read_otlp_endpoint
from environments.models import TelemetrySettings

#: Registered for OTLP over gRPC; everything else is taken for OTLP over HTTP, the specification's default.
GRPC_PORT = 4317
SETTINGS_FRAME = 4
NO_HEADERS = (
    "which workers are not given for telemetry: name a collector near them that adds its headers"
    " (docs/operate/private-networks.md)."
)


def verify_telemetry(row: TelemetrySettings, *, resolve: Resolver = resolve_name) -> Verification:
    """Ok without an endpoint: then there is nothing to verify."""
    return measured(lambda deadline: _check(row.otel_exporter_otlp_endpoint, deadline, resolve))


def _check(url: str, deadline: Deadline, resolve: Resolver) -> str:
    if not url:
        return "No endpoint, so nothing to verify."
    endpoint = read_otlp_endpoint(url)
    if endpoint.port == GRPC_PORT:
        return _check_grpc(endpoint, deadline, resolve)
    # An export request without fields is zero bytes in protobuf.
    headers = {"Content-Type": "application/x-protobuf"}
    answer = call(
        "POST", endpoint, f"{endpoint.path}/v1/traces", body=b"", headers=headers, deadline=deadline, resolve=resolve
    )
    if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return "Takes traces by OTLP over HTTP."
    if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        msg = f"{answer.destination} asks for credentials ({answer.status}), {NO_HEADERS}"
        raise ConnectionProblemError(msg)
    raise ConnectionProblemError(refusal_of(answer))


def _check_grpc(endpoint: Endpoint, deadline: Deadline, resolve: Resolver) -> str:
    """Whether the server speaks HTTP/2, as every gRPC server does; whether it takes traces, only traces would tell."""
    destination = destination_of(endpoint.host, endpoint.port, deadline=deadline, resolve=resolve)
    with connected(destination, deadline, is_tls=endpoint.is_tls, protocols=["h2"]) as sock:
        header = greet(sock)
        if len(header) < FRAME_HEADER_BYTES:
            raise TimeoutError if deadline.is_over() else ConnectionResetError
    if header[3] != SETTINGS_FRAME:
        msg = f"{destination} does not speak gRPC, for which port {GRPC_PORT} is: OTLP over HTTP has port 4318."
        raise ConnectionProblemError(msg)
    return f"Port {GRPC_PORT} speaks HTTP/2, as gRPC does; no trace was sent, so it may still ask for headers."
