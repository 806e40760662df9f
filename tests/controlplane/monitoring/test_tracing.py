"""Traces as a collector receives them, over HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pytest_django import Settings

from controlplane.monitoring.tracing import provider
from tests.support.calls import fresh_fleet, start
from tests.support.collector import Collector
from tests.support.factories import Fleet

pytestmark = pytest.mark.django_db

CANARY = "canary-that-no-trace-may-hold"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector.serving() as server:
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        provider.cache_clear()
        settings.MIDDLEWARE = [
            settings.MIDDLEWARE[0],
            "controlplane.monitoring.tracing.TracingMiddleware",
            *settings.MIDDLEWARE[1:],
        ]
        yield server
        provider().shutdown()
        provider.cache_clear()


def spans_of(collector: Collector) -> list[Any]:
    assert provider().force_flush()
    requests = [ExportTraceServiceRequest.FromString(body) for body in collector.bodies]
    return [s for r in requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]


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
    (span,) = spans_of(collector)
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
    assert len(spans_of(collector)) == 3
    sent = b"".join(collector.bodies)
    for secret in (CANARY, fleet.temporal_secret, fleet.litellm_secret, *fleet.token.split(".")[1:]):
        assert secret.encode() not in sent


@pytest.mark.processes
def test_a_collector_that_is_away_holds_nobody_up(fleet: Fleet, collector: Collector) -> None:
    collector.shutdown()
    collector.server_close()
    assert start(fleet, client=Client()).status_code == 200
