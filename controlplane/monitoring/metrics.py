"""The service's figures for Prometheus: what all its processes counted, and what its database holds at this moment.

Processes count in files that they share (`controlplane.serving.server` makes their directory), so that whichever of
them is asked answers for all. No label has the id of a worker or key: how many series there are depends on queues
alone.
"""

import hmac
import logging
import os
from collections.abc import Callable, Iterator
from http import HTTPStatus

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from controlplane.engines.circuit import circuit
from controlplane.releases import CURRENT
from controlplane.serving.bulkhead import Kind, bulkhead
from controlplane.serving.server import DIRECTORY_VARIABLE
from environments import times
from environments.sealing.rotation import standings
from workers.reports.monitoring import (
    count_expiries,
    count_messages,
    count_observed,
    count_refused,
    count_refused_hosts,
    count_workers,
    latest_look,
    latest_sweep,
)

logger = logging.getLogger(__name__)

PATH = "/metrics"
#: Upper ends in seconds: a start takes milliseconds, the longest statement five seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

STARTS = Counter("controlplane_starts", "Calls of a start by what became of them.", ["outcome"])
HEARTBEATS = Counter("controlplane_heartbeats", "Heartbeats by what became of them.", ["outcome"])
RESPONSES = Counter("controlplane_responses", "Answers by call and HTTP status.", ["call", "status"])
SECONDS = Histogram("controlplane_response_seconds", "Time from request to answer.", ["call"], buckets=BUCKETS)
UNOPENED = Counter("controlplane_credentials_unopened", "Starts refused since a stored credential does not open.")

#: What became of a call of a worker, by HTTP status; other statuses are those of calls that are not as they should be.
OUTCOMES = {
    200: "done",
    204: "done",
    401: "unauthenticated",
    403: "forbidden",
    404: "unknown",
    409: "refused",
    429: "throttled",
    500: "error",
    503: "unavailable",
}


def counting(call: str, status: int) -> Callable[[float], None]:
    """What counts an answer to this call with this status, given the seconds it took; to be kept, as it is costly."""
    counters = [RESPONSES.labels(call, str(status))]
    outcome = OUTCOMES.get(status, "invalid")
    if call in {"start", "queue_start", "register"}:
        counters.append(STARTS.labels(outcome))
    elif call == "heartbeat":
        counters.append(HEARTBEATS.labels(outcome))
    histogram = SECONDS.labels(call)

    def count(seconds: float) -> None:
        for counter in counters:
            counter.inc()
        histogram.observe(seconds)

    return count


class ReleaseCollector(Collector):
    """A gauge that is always 1; its label tells the release of the process that is asked."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        gauge = GaugeMetricFamily("controlplane_info", "The release that runs; always 1.", labels=["version"])
        gauge.add_metric([CURRENT], 1)
        yield gauge


class DatabaseCollector(Collector):
    """Gauges of what the database holds; without it they are missing, and one tells that it is away."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Everything is read before anything is told, so that what is told is whole."""
        is_up = not circuit.is_open()
        gauges: list[GaugeMetricFamily] = []
        try:
            if is_up:
                gauges = [_workers(), *_refused(), *_observed(), *_sweep(), *_notifications(), _expiries(), _sealed()]
        except (DatabaseError, InterfaceError) as error:
            logger.warning("figures without database: %s", type(error).__name__)
            is_up = False
        yield GaugeMetricFamily("controlplane_database_up", "Whether the database answers.", value=is_up)
        yield from gauges


def _workers() -> GaugeMetricFamily:
    labels = ("organization", "environment", "queue", "liveness")
    gauge = GaugeMetricFamily("controlplane_workers", "Workers by queue and liveness.", labels=labels)
    for *names, liveness, workers in count_workers(times.now()):
        gauge.add_metric([*names, liveness.lower().replace(" ", "_")], workers)
    return gauge


def _refused() -> Iterator[GaugeMetricFamily]:
    labels = ("organization", "environment", "queue")
    text = "Workers by queue whose latest start was refused."
    refused = GaugeMetricFamily("controlplane_workers_refused", text, labels=labels)
    text = "Whether the configuration of a queue is incomplete, so that starts are refused."
    incomplete = GaugeMetricFamily("controlplane_queue_incomplete", text, labels=labels)
    figures, counts = count_refused(now := times.now()), count_refused_hosts(now)
    for *names, workers, is_incomplete in figures:
        refused.add_metric(names, workers)
        incomplete.add_metric(names, is_incomplete)
    text = "Hosts by organization whose latest start in a queue was refused."
    hosts = GaugeMetricFamily("controlplane_hosts_refused", text, labels=labels[:1])
    for organization in {figure.organization for figure in figures}.union(counts):
        hosts.add_metric([organization], counts.get(organization, 0))
    yield from (refused, incomplete, hosts)


def _observed() -> Iterator[GaugeMetricFamily]:
    """Of queues that Temporal was asked about of late; where it does not tell, there is no figure."""
    labels = ("organization", "environment", "queue")
    text = "Processes that poll a queue on Temporal, by what they poll for."
    pollers = GaugeMetricFamily("controlplane_queue_pollers", text, labels=(*labels, "kind"))
    text = "Processes that poll a queue on Temporal and are no worker's here."
    strangers = GaugeMetricFamily("controlplane_queue_strangers", text, labels=labels)
    text = "Tasks that wait on Temporal for a worker of a queue."
    backlog = GaugeMetricFamily("controlplane_queue_backlog", text, labels=labels)
    text = "For how long the oldest task of a queue had waited when Temporal was asked; 0 where none waits."
    oldest = GaugeMetricFamily("controlplane_queue_oldest_task_seconds", text, labels=labels)
    text = "Workers by queue that beat but do not poll, and that poll but do not beat."
    amiss = GaugeMetricFamily("controlplane_workers_amiss", text, labels=(*labels, "work"))
    for each in count_observed(times.now()):
        names = [each.organization, each.environment, each.queue]
        pollers.add_metric([*names, "workflow"], each.workflow_pollers)
        pollers.add_metric([*names, "activity"], each.activity_pollers)
        strangers.add_metric(names, each.strangers)
        amiss.add_metric([*names, "not_polling"], each.not_polling)
        amiss.add_metric([*names, "cut_off"], each.cut_off)
        if each.backlog is not None:
            backlog.add_metric(names, each.backlog)
            oldest.add_metric(names, each.oldest_age.total_seconds() if each.oldest_age else 0)
    yield from (pollers, strangers, backlog, oldest, amiss)


def _sweep() -> Iterator[GaugeMetricFamily]:
    if latest := latest_sweep(times.now()):
        text = "Seconds since Temporal was last asked about every queue."
        yield GaugeMetricFamily("controlplane_sweep_age_seconds", text, value=latest.age.total_seconds())
        text = "Temporal connections that did not answer then."
        yield GaugeMetricFamily("controlplane_sweep_unanswered", text, value=latest.unanswered)


def _notifications() -> Iterator[GaugeMetricFamily]:
    text = "Messages to notification targets by what became of them, as far as they are kept."
    gauge = GaugeMetricFamily("controlplane_notifications", text, labels=("kind", "state"))
    for kind, state, messages in count_messages():
        gauge.add_metric([kind, state], messages)
    yield gauge
    if (age := latest_look(times.now())) is not None:
        text = "Seconds since it was last looked at what stands and is told."
        yield GaugeMetricFamily("controlplane_lookout_age_seconds", text, value=age.total_seconds())


def _expiries() -> GaugeMetricFamily:
    text = "API keys and credentials by when they expire: the shortest warning that has been reached."
    gauge = GaugeMetricFamily("controlplane_expiries", text, labels=("kind", "organization", "expires"))
    for kind, organization, expires, count in count_expiries(times.now()):
        gauge.add_metric([kind, organization, expires], count)
    return gauge


def _sealed() -> GaugeMetricFamily:
    text = "What keys seal, under the active key and under older ones: a rotation is done when there are no older."
    gauge = GaugeMetricFamily("controlplane_sealed", text, labels=("kind", "key"))
    for kind, current, older in standings():
        gauge.add_metric([kind, "active"], current)
        gauge.add_metric([kind, "older"], older)
    return gauge


def exposition() -> bytes:
    """All figures in Prometheus' text format."""
    registry = CollectorRegistry()
    if DIRECTORY_VARIABLE in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:  # this process is alone
        for counted in (STARTS, HEARTBEATS, RESPONSES, SECONDS, UNOPENED):
            registry.register(counted)
    registry.register(ReleaseCollector())
    registry.register(DatabaseCollector())
    return generate_latest(registry)


class MetricsMiddleware:
    """Answers `/metrics` to whoever has METRICS_TOKEN; without that setting there is no such page.

    It stands before whatever judges the Host, since monitoring calls each machine by its address. The token opens
    figures and nothing else, so it may travel over the plain HTTP of a private network, which API keys may not.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info != PATH or not settings.METRICS_TOKEN:
            return self.get_response(request)
        if request.method not in {"GET", "HEAD"}:
            return _answer("Method not allowed.\n", HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
        if not _is_authorized(request):
            return _answer("METRICS_TOKEN is required.\n", HTTPStatus.UNAUTHORIZED, **{"WWW-Authenticate": "Bearer"})
        place = bulkhead.enter(Kind.READERS, PATH)
        if place is None:
            return _answer("Too many requests at once.\n", HTTPStatus.SERVICE_UNAVAILABLE, **{"Retry-After": "5"})
        try:
            with bulkhead.turn():
                return _answer(exposition(), HTTPStatus.OK, **{"Content-Type": CONTENT_TYPE_LATEST})
        finally:
            place.leave()


def _is_authorized(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), settings.METRICS_TOKEN.encode())


def _answer(content: str | bytes, status: HTTPStatus, **headers: str) -> HttpResponse:
    return HttpResponse(
        content, status=status, headers={"Content-Type": "text/plain", "Cache-Control": "no-store", **headers}
    )
