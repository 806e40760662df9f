"""A trace of each request for OpenTelemetry: the same ids and outcomes as in the log, and no contents.

An optional extra: OTEL_EXPORTER_OTLP_ENDPOINT turns it on, requirements-tracing.txt has what it needs. OpenTelemetry's
other variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, ...) have their usual meaning.
"""

import os
from collections.abc import Callable
from functools import cache

from django.http import HttpRequest, HttpResponseBase
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from controlplane.monitoring.logs import request_id
from controlplane.monitoring.requests import facts_of

#: Of what is told in a log line, by its name in OpenTelemetry's semantic conventions where it has one there.
ATTRIBUTES = {
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "client": "client.address",
}
FAILED = 500


@cache
def provider() -> TracerProvider:
    """The one of this process; it sends in the background."""
    name = os.environ.get("OTEL_SERVICE_NAME", "controlplane")
    found = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    found.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return found


class TracingMiddleware:
    """One span for each request, within its caller's trace if the request names one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self._tracer = provider().get_tracer("controlplane")
        self._propagator = TraceContextTextMapPropagator()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        context = self._propagator.extract({"traceparent": request.META.get("HTTP_TRACEPARENT", "")})
        # What an exception says may be anything; the log has it.
        with self._tracer.start_as_current_span(
            "request", context, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            response = self.get_response(request)
            if span.is_recording():
                facts = facts_of(request, response.status_code)
                span.update_name(f"{facts['method']} {facts['route']}")
                span.set_attributes({ATTRIBUTES.get(name, name): value for name, value in facts.items()})
                span.set_attribute("request_id", request_id.get())
                if response.status_code >= FAILED:
                    span.set_status(StatusCode.ERROR)
        return response
