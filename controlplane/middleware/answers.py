"""The answers that several of the middleware give: pages for people, JSON for programs."""

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse

from controlplane.api.errors import RETRY_AFTER_SECONDS, json_error
from controlplane.engines.troubles import DATABASE_AWAY
from controlplane.serving.gate import gate
from environments.admin.error_page import error_page

CONSOLE_PATHS = ("/admin/", "/api/docs")


def database_away(request: HttpRequest) -> HttpResponse:
    message = "Nothing was changed. Try again in a moment."
    return unavailable(request, DATABASE_AWAY, "The database is not available", message)


def too_many(request: HttpRequest) -> HttpResponse:
    message = "So much is asked for that workers would have to wait. Nothing was changed. Try again in a moment."
    return unavailable(request, "Too many requests at once.", "Too much at once", message)


def unavailable(request: HttpRequest, detail: str, title: str, message: str) -> HttpResponse:
    """503 with `Retry-After`: JSON for programs, a page for people."""
    if request.path_info.startswith("/api/") and not request.path_info.startswith(CONSOLE_PATHS):
        response: HttpResponse = json_error(503, detail)
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response
    return page(request, 503, title, message)


def not_served(request: HttpRequest) -> HttpResponse:
    if gate.problem == DATABASE_AWAY:
        return database_away(request)
    detail = "Nothing is served until an operator has looked after the database."
    return unavailable(request, detail, "Nothing is served at the moment", gate.problem)


def page(request: HttpRequest, status: int, title: str, message: str) -> HttpResponse:
    response = error_page(request, status, title, message)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response
