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
    """The sidebar in unfold's form: the pages that the person may see."""
    shown = {
        title: [page for page in pages if admin_of(page[2]).has_view_permission(request)]
        for title, pages in PAGES.items()
    }
    dashboard = {"title": "Dashboard", "icon": "dashboard", "link": reverse("admin:index")}
    found: list[dict[str, Any]] = [{"items": [dashboard]}] + [
        {
            "title": title,
            "items": [
                {"title": name, "icon": icon, "link": reverse(f"admin:{route}_{page[0] if page else 'changelist'}")}
                for name, icon, route, *page in pages
            ],
        }
        for title, pages in shown.items()
        if pages
    ]
    _mark(request, [item for section in found for item in section["items"]])
    return found


def _mark(request: HttpRequest, items: list[dict[str, Any]]) -> None:
    """Marks the one entry that the page belongs to: of those whose link its path begins with, the longest."""
    around = [item["link"] for item in items if request.path.startswith(item["link"])]
    for item in items:
        is_inner = item["link"] == max(around, key=len, default="")
        item["active"] = is_inner and (item is not items[0] or request.path == item["link"])


def admin_of(route: str) -> Any:
    """The page of a model, by its route, such as `workers_worker`."""
    return admin.site.get_model_admin(apps.get_model(route.replace("_", ".")))
