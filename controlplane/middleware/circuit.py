"""Refuses what would hold a thread in vain, or a thread too many."""

from django.http import HttpRequest, HttpResponseBase

from controlplane.engines.circuit import circuit
from controlplane.middleware import Handler
from controlplane.middleware.answers import database_away, not_served, too_many
from controlplane.serving.bulkhead import Kind, bulkhead, holder_of, kind_of
from controlplane.serving.gate import gate


class CircuitMiddleware:
    """Refuses at once what would hold a thread in vain, or a thread too many.

    That is everything while the database is known to be away, and what people and readers ask beyond their share of
    the threads. What needs no database is always served, `/livez` above all; `/readyz` looks for itself.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        circuit.is_used = True

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(("/api/", "/admin/")):
            return self.get_response(request)
        if gate.problem:
            return not_served(request)
        if circuit.is_open():
            return database_away(request)
        kind = kind_of(request)
        if kind is None:
            return self.get_response(request)
        if kind is Kind.WORKERS:
            with bulkhead.worker(request.META.get("HTTP_AUTHORIZATION", "")) as call:
                response = self.get_response(request) if call.has_thread else too_many(request)
                call.status = response.status_code
                return response
        return self._within_share(request, kind)

    def _within_share(self, request: HttpRequest, kind: Kind) -> HttpResponseBase:
        is_change = kind is Kind.READERS and request.method not in {"GET", "HEAD"}
        place = (bulkhead.enter_patiently if is_change else bulkhead.enter)(kind, holder_of(request, kind))
        if place is None:
            return too_many(request)
        try:
            with bulkhead.turn():
                response = self.get_response(request)
        except BaseException:
            place.leave()
            raise
        place.leave_after(response)
        return response
