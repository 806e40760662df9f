"""The console's sidebar: what an operator looks at first comes first."""

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

#: Section -> pages, each as title, icon (Material Symbols), the model's route, and its page if that is not the list.
PAGES: dict[str, list[tuple[str, ...]]] = {
    "Fleet": [
        ("Workers", "memory", "workers_worker"),
        ("Worker queues", "stacks", "workers_workerqueue"),
        ("Starts", "rocket_launch", "workers_workerstart"),
        ("Worker instances", "terminal", "workers_workerinstance"),
    ],
    "Access": [
        ("API keys", "key", "workers_apikey"),
        ("Expiry calendar", "event", "workers_apikey", "calendar"),
        ("Members", "badge", "environments_membership"),
        ("Users", "group", "auth_user"),
    ],
    "Configuration": [
        ("Organizations", "apartment", "environments_organization"),
        ("Environments", "layers", "environments_environment"),
        ("Temporal connections", "schedule", "environments_temporalconnection"),
        ("LiteLLM connections", "neurology", "environments_litellmconnection"),
        ("Telemetry settings", "monitoring", "environments_telemetrysettings"),
    ],
    "Notifications": [
        ("Incidents", "warning", "workers_incident"),
        ("Notification targets", "notifications", "workers_notificationtarget"),
        ("Notification deliveries", "outgoing_mail", "workers_notificationdelivery"),
    ],
    "Records": [
        ("Audit events", "history", "environments_auditevent"),
        ("Data keys", "encrypted", "environments_datakey"),
    ],
}


def sections(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar in unfold's form: the pages that the person may see, and which of them this one belongs to."""
    links = {
        page: reverse(f"admin:{page[2]}_{page[3] if page[3:] else 'changelist'}")
        for pages in PAGES.values()
        for page in pages
        if admin_of(page[2]).has_view_permission(request)
    }
    # A page of a page's, such as the calendar of API keys, is in the menu itself: the longest link is meant.
    here = max(filter(request.path.startswith, links.values()), key=len, default=request.path)

    def entry(title: str, icon: str, link: str) -> dict[str, Any]:
        return {"title": title, "icon": icon, "link": link, "active": link == here}

    found: list[dict[str, Any]] = [{"items": [entry("Dashboard", "dashboard", reverse("admin:index"))]}]
    for title, pages in PAGES.items():
        if items := [entry(page[0], page[1], links[page]) for page in pages if page in links]:
            found.append({"title": title, "items": items})
    return found


def admin_of(route: str) -> Any:
    """The page of a model, by its route, such as `workers_worker`."""
    return admin.site.get_model_admin(apps.get_model(route.replace("_", ".")))
