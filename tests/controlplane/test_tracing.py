"""Traces as a collector receives them, over HTTP."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.test import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pytest_django import Settings

from controlplane.tracing import provider
from tests.factories import Fleet
from tests.workers import fresh_fleet, start

pytestmark = pytest.mark.django_db

CANARY = "canary-that-no-trace-may-hold"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Collector(ThreadingHTTPServer):
    """Keeps the bodies that it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def spans(self) -> list[Any]:
        assert provider().force_flush()
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [s for r in requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Not on the terminal."""


@pytest.fixture
def collector(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        provider.cache_clear()
        settings.MIDDLEWARE = [
            settings.MIDDLEWARE[0],
            "controlplane.tracing.TracingMiddleware",
            *settings.MIDDLEWARE[1:],
        ]
        yield server
        provider().shutdown()
        provider.cache_clear()
        server.shutdown()


@pytest.fixture
def fleet() -> Fleet:
    return fresh_fleet()


def attributes_of(span: Any) -> dict[str, str | int]:
    values = {pair.key: pair.value for pair in span.attributes}
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()}


def test_a_start_is_a_span_with_ids_and_outcome(fleet: Fleet, collector: Collector) -> None:
    environ = {"HTTP_TRACEPARENT": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
    response = start(fleet, {"system_info": {"a": CANARY}}, client=Client(), HTTP_USER_AGENT=CANARY, **environ)
    assert response.status_code == 200
    (span,) = collector.spans()
    assert span.name == "POST api/v1/workers/<str:worker_id>/start"
    assert span.trace_id.hex() == TRACE_ID
    assert b"service.name\x12\x0e\n\x0ccontrolplane" in collector.bodies[0]
    assert attributes_of(span) == {
        "http.request.method": "POST",
        "http.route": "api/v1/workers/<str:worker_id>/start",
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "api_key_id": str(fleet.api_key.pk),
        "worker_id": str(fleet.worker.pk),
        "request_id": response["X-Request-ID"],
    }


def test_nothing_else_of_a_request_is_sent(fleet: Fleet, collector: Collector) -> None:
    start(fleet, {"system_info": {"a": CANARY}}, client=Client(), HTTP_COOKIE=CANARY)
    start(fleet, token=f"{fleet.token[:-4]}AAAA", client=Client(), HTTP_TRACESTATE=f"a={CANARY}")
    Client().get(f"/api/{CANARY}?a={CANARY}")
    assert len(collector.spans()) == 3
    sent = b"".join(collector.bodies)
    for secret in (CANARY, fleet.temporal_secret, fleet.litellm_secret, *fleet.token.split(".")[1:]):
        assert secret.encode() not in sent


def test_a_collector_that_is_away_holds_nobody_up(fleet: Fleet, collector: Collector) -> None:
    collector.shutdown()
    collector.server_close()
    assert start(fleet, client=Client()).status_code == 200
