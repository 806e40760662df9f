"""Who is signed in to the console, and in which roles."""

from django.http import HttpRequest

from environments.roles import Staff, staff_from


def staff_of(request: HttpRequest) -> Staff:
    """The signed-in person's roles; one statement a request."""
    staff: Staff | None = getattr(request, "_staff", None)
    if staff is None:
        staff = staff_from(request.user)
        request._staff = staff  # type: ignore[attr-defined]  # for as long as the request lives
    return staff
