"""What the console's templates use."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django import template
from django.contrib import admin
from django.template import Context
from django.urls import NoReverseMatch, reverse
from django.utils.safestring import SafeString

from environments import moments

register = template.Library()


@register.filter
def moment(value: datetime | None, nothing: str = "never") -> SafeString:
    """`{{ row.started_at|moment }}`: how long ago, with the exact time as its tooltip."""
    return moments.moment(value, nothing)


@register.inclusion_tag("unfold/helpers/header_title.html", takes_context=True)
def way(context: Context) -> dict[str, Any]:
    """The way to this page as the menu has it: section, list, row, and what is done there."""
    return {"parts": list(_parts(context))}


def _parts(context: Context) -> Iterator[dict[str, str]]:
    opts = context.get("opts")
    title = str(context.get("title") or "")
    if opts is None:
        yield {"title": title}
        return
    yield from _list_of(context, opts)
    row = context.get("original") or context.get("object")
    if row is not None and not isinstance(row, str) and row.pk:
        yield {"title": _name_of(row), "link": _address(row._meta, "change", row.pk)}
    name = f"{opts.app_label}_{opts.model_name}"
    page = getattr(context["request"].resolver_match, "url_name", None)
    if context.get("step") or page not in {f"{name}_changelist", f"{name}_change"}:
        yield {"title": str(context.get("step") or title)}


def _list_of(context: Context, opts: Any) -> Iterator[dict[str, str]]:
    """The menu's section and its page; the menu has no page that the person may not see."""
    address = _address(opts, "changelist")
    for section in context.get("sidebar_navigation") or []:
        for item in section["items"]:
            if item["link"] == address:
                yield from [{"title": section["title"]}] if section.get("title") else []
                yield {"title": item["title"], "link": address}
                return
    yield {"title": str(opts.verbose_name_plural).capitalize(), "link": address}


def _name_of(row: Any) -> str:
    page: Any = admin.site._registry.get(type(row))
    return str(page.name_of(row) if hasattr(page, "name_of") else row)


def _address(opts: Any, page: str, *arguments: Any) -> str:
    try:
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_{page}", args=arguments)
    except NoReverseMatch:
        return ""
