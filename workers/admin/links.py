"""Links from one page of the console to another."""

from typing import Any, NamedTuple

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from environments import audit
from environments.models import Organization
from environments.models.connections import CONNECTION_KINDS
from workers.models import ApiKey, Incident, NotificationTarget, Worker, WorkerQueue

#: The models of what a message may be about, by what it calls them.
SUBJECTS: dict[str, type[models.Model]] = {
    audit.kind_of(model()): model
    for model in (Worker, WorkerQueue, ApiKey, Organization, NotificationTarget, *CONNECTION_KINDS)
}


class Link(NamedTuple):
    """A row as a page names it, and where its own page is."""

    text: str
    address: str


def link_to(row: models.Model, text: str = "") -> Link:
    """To the row's page, under its own name or another text."""
    return Link(text or str(row), reverse(f"admin:{row._meta.label_lower.replace('.', '_')}_change", args=[row.pk]))


def list_of(model: type[models.Model], **query: Any) -> str:
    """The address of the model's list, filtered."""
    return reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_changelist", query=query)


def shown(link: Link) -> SafeString:
    """The link as an element; its text may be whatever somebody typed."""
    return format_html('<a class="cp-link" href="{}"><bdi>{}</bdi></a>', link.address, link.text)


def told(text: str) -> SafeString:
    """What a worker told, which neither widens the page nor turns around what follows; in a list one line of it."""
    return format_html('<bdi class="cp-told" title="{0}">{0}</bdi>', text or "-")


def subject_page(subject_type: str, subject_id: str) -> str:
    """The page of an incident's subject; that of what stands for what has none, such as a host."""
    model = SUBJECTS.get(subject_type)
    if model is None:
        return list_of(Incident)
    return reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_change", args=[subject_id])


def address_of(subject_type: str, subject_id: str) -> str:
    """The same as a message names it, whose reader is elsewhere; for no type, what stands of an event."""
    path = subject_page(subject_type, subject_id) if subject_type else list_of(Incident, event=subject_id)
    return f"{settings.CONTROL_PLANE_URL.rstrip('/')}{path}"
