"""The expiry calendar: three months of keys and credentials that expire, what is overdue, and what never ends."""

import re
from calendar import day_name
from datetime import date
from typing import Any

from django.http import HttpRequest
from django.utils.text import capfirst

from environments import times
from environments.admin.paginator import MOST_ROWS
from environments.admin.signed_in import staff_of
from environments.models.connections import CREDENTIAL_KINDS
from workers.admin.api_keys.listing import color_of_warning, target_of
from workers.models import ApiKey
from workers.reports.expiries import (
    MONTHS_SHOWN,
    Expiries,
    Month,
    Sources,
    coming,
    month_after,
    months_from,
    overdue,
    urgency,
)

MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])", re.ASCII)
ENDLESS_SHOWN = 50


def calendar_of(request: HttpRequest, keys: Any) -> dict[str, Any]:
    """What the calendar's page shows: keys but the short-lived, and the connections that the person may see."""
    keys = keys.without_short_lived()
    now = times.now()
    today = now.date()
    first = _month_asked(request, today)
    connections = {
        str(model._meta.model_name): staff_of(request).within(model._default_manager.all(), "organization")
        for model in CREDENTIAL_KINDS
    }
    sources = Sources(keys, connections)
    endless = keys.filter(expires_at=None, revoked_at=None)
    return {
        "today": today,
        "months": [_shown(month, today) for month in months_from(first, sources)],
        "earlier": month_after(first, -MONTHS_SHOWN),
        "later": month_after(first, MONTHS_SHOWN),
        "coming": _listed(coming(sources, first, month_after(first, MONTHS_SHOWN), now), today),
        "overdue": _listed(overdue(sources, now), today),
        "endless": list(endless[:ENDLESS_SHOWN]),
        "endless_count": endless.order_by()[: MOST_ROWS + 1].count(),
        "most_rows": MOST_ROWS,
        "undated": [_undated(model, rows) for model, rows in zip(CREDENTIAL_KINDS, connections.values(), strict=True)],
        "weekdays": list(day_name),
    }


def _month_asked(request: HttpRequest, today: date) -> date:
    asked = MONTH.fullmatch(request.GET.get("month", ""))
    return date(int(asked[1]), int(asked[2]), 1) if asked else today.replace(day=1)


def _shown(month: Month, today: date) -> dict[str, Any]:
    """The month with the color of each day's badges."""
    weeks = [[day and {"day": day, "color": _color(day.date, today)} for day in week] for week in month.weeks]
    return {"first": month.first, "weeks": weeks}


def _undated(model: Any, rows: Any) -> tuple[int, str, str]:
    """How many connections of a kind have no day noted, with the kind's name and the route to its list."""
    undated = rows.filter(api_key_expires_on=None, requires_api_key=True).order_by()
    route = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    return undated[: MOST_ROWS + 1].count(), capfirst(model._meta.verbose_name), route


def _listed(expiries: Expiries, today: date) -> dict[str, Any]:
    rows = [
        {
            "expiring": expiring,
            "color": _color(expiring.day, today),
            "is_key": isinstance(expiring.row, ApiKey),
            "kind": capfirst(expiring.row._meta.verbose_name),
            "target": target_of(expiring.row) if isinstance(expiring.row, ApiKey) else expiring.row.organization_id,
            "route": f"admin:{expiring.row._meta.app_label}_{expiring.kind}_change",
        }
        for expiring in expiries.rows
    ]
    return {"rows": rows, "is_cut": expiries.is_cut}


def _color(day: date, today: date) -> str:
    days = urgency(day, today)
    return "" if days < 0 else color_of_warning(days)
