"""The page that says that something did not work, what happened, and where to go on; it asks no database."""

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

#: What is said of an error that nobody has described: a title and a message.
TOLD = {
    HTTPStatus.BAD_REQUEST: (
        "Bad request",
        "Something in the address or the form is not what it should be. Nothing was changed.",
    ),
    HTTPStatus.FORBIDDEN: (
        "Not allowed",
        "Your roles do not allow this. An administrator of the organization can give you another one, under Members.",
    ),
    HTTPStatus.NOT_FOUND: (
        "Not found",
        "There is no such page: the address is mistyped, what it showed was deleted, or it is another organization's.",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "Too large",
        "More was sent than a form may hold. Nothing was changed. Go back and send less.",
    ),
    HTTPStatus.INTERNAL_SERVER_ERROR: (
        "Something went wrong",
        "This is the control plane's mistake, and it is noted. Nothing was changed. Try again, or tell its operator.",
    ),
}


def error_page(request: HttpRequest, status: int, title: str = "", message: str = "") -> HttpResponse:
    """The page in the console's style, with what is usually said of the status where nothing else is."""
    usual_title, usual_message = TOLD.get(HTTPStatus(status), ("", ""))
    context = {"title": title or usual_title, "message": message or usual_message, "status": status}
    return render(request, "error.html", context, status=status)
