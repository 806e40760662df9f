"""The console's search palette: pages and objects by their names, a few of each kind.

unfold's own search reads every row that matches and keeps the answer for minutes, also when a role has ended since.
"""

import time
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.dataclasses import SearchResult

from controlplane.console.navigation import admin_of, sections
from environments.admin.searches import SEARCH_IS_CUT, cut_search

#: Kinds of objects that are found, in this order, and how many of each.
SEARCHED = (
    ("workers_worker", "memory"),
    ("workers_workerqueue", "stacks"),
    ("workers_apikey", "key"),
    ("environments_organization", "apartment"),
    ("environments_environment", "layers"),
    ("environments_temporalconnection", "schedule"),
    ("environments_litellmconnection", "neurology"),
    ("environments_telemetrysettings", "monitoring"),
)
MOST_OF_A_KIND = 5
SHORTEST_TERM = 2


def search(request: HttpRequest) -> HttpResponse:
    """What matches the term `s`; nothing for a term too short to tell anything."""
    began = time.monotonic()
    term = request.GET.get("s", "").replace("\x00", "").strip()
    if len(term) < SHORTEST_TERM:
        return HttpResponse()
    term, is_cut = cut_search(term)
    found = [
        *_pages(request, term.lower()),
        *(row for route, icon in SEARCHED for row in _rows(request, route, icon, term)),
    ]
    pages = Paginator(found, max(1, len(found)))
    context = {
        "search_term": term,
        "page_obj": pages,
        "results": pages.page(1),
        "page_counter": 0,
        "execution_time": time.monotonic() - began,
        "command_show_history": False,
        "note": SEARCH_IS_CUT if is_cut else "",
    }
    headers = {"HX-Trigger": "search", "Cache-Control": "no-store"}
    if is_cut:
        headers["HX-Reselect"] = "#command-results-list, #command-results-cut"  # the palette takes the first alone
    return TemplateResponse(request, "admin/search.html", context, headers=headers)


def _pages(request: HttpRequest, term: str) -> list[SearchResult]:
    return [
        SearchResult(title=item["title"], description=section.get("title", ""), link=item["link"], icon=item["icon"])
        for section in sections(request)
        for item in section["items"]
        if term in item["title"].lower()
    ]


def _rows(request: HttpRequest, route: str, icon: str, term: str) -> list[SearchResult]:
    """The first rows of a kind, of those that the person may see."""
    kind: Any = admin_of(route)
    if not kind.has_view_permission(request):
        return []
    rows, _ = kind.get_search_results(request, kind.get_queryset(request), term)
    return [
        SearchResult(
            title=str(row),
            description=str(kind.opts.verbose_name),
            link=reverse(f"{admin.site.name}:{route}_change", args=[row.pk]),
            icon=icon,
        )
        for row in rows[:MOST_OF_A_KIND]
    ]
