"""Chooses workers in the list and does something to them."""

import csv
import io
from typing import Any

from django.test import Client

from workers.models import Worker

LIST = "/admin/workers/worker/"


def all_ids() -> list[Any]:
    return list(Worker.objects.order_by("name").values_list("pk", flat=True))


def act(client: Client, verb: str, ids: list[Any], query: str = "", **data: Any) -> Any:
    """Runs an action of the list on these rows."""
    return client.post(f"{LIST}{query}", {"action": verb, "_selected_action": ids, "index": "0", **data})


def told(client: Client) -> str:
    """The messages that the next page shows."""
    return " ".join(str(message) for message in client.get(LIST).context["messages"])


def rows_of(response: Any) -> list[dict[str, str]]:
    """The rows of a CSV answer."""
    assert response.status_code == 200
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"].startswith("attachment; ")
    assert "no-store" in response["Cache-Control"]
    return list(csv.DictReader(io.StringIO(response.getvalue().decode(), newline=""), strict=True))
