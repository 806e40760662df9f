"""The console's sidebar: what an operator looks at first comes first."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

#: Section -> pages, each as title, icon (Material Symbols) and the model's route.
PAGES = {
    "Fleet": [
        ("Workers", "memory", "workers_worker"),
        ("Worker queues", "stacks", "workers_workerqueue"),
        ("Starts", "rocket_launch", "workers_workerstart"),
        ("Worker instances", "terminal", "workers_workerinstance"),
    ],
    "Access": [
        ("API keys", "key", "workers_apikey"),
        ("Users", "group", "auth_user"),
    ],
    "Configuration": [
        ("Organizations", "apartment", "environments_organization"),
        ("Environments", "layers", "environments_environment"),
        ("Temporal connections", "schedule", "environments_temporalconnection"),
        ("LiteLLM connections", "neurology", "environments_litellmconnection"),
        ("Telemetry settings", "monitoring", "environments_telemetrysettings"),
    ],
    "Records": [
        ("Audit events", "history", "environments_auditevent"),
        ("Data keys", "encrypted", "environments_datakey"),
    ],
}


def sections(_request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar in unfold's form."""
    return [
        {
            "title": title,
            "items": [
                {"title": name, "icon": icon, "link": reverse(f"admin:{route}_changelist")}
                for name, icon, route in pages
            ],
        }
        for title, pages in PAGES.items()
    ]
