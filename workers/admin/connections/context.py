"""What a connection's page tells beside its form: its API key, its last verification, who uses it, who runs on what."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from environments.connections.results import Verifiable
from environments.endpoints.hosts import HostError, read_host_and_port
from environments.models import (
    CredentialConnection,
    Environment,
    Organization,
    TemporalConnection,
)
from workers.admin.api_keys.listing import color_of_warning
from workers.admin.connections.verified import verified_badge
from workers.admin.links import Link, link_to, list_of
from workers.admin.states import badge
from workers.models import Worker, WorkerQueue
from workers.models.api_keys import EXPIRY_WARNING_DAYS
from workers.reports.rotation_wave import VersionInUse, wave_of

#: The levels that may point to a connection, the widest first.
LEVELS: tuple[Any, ...] = (Organization, Environment, WorkerQueue, Worker)
MOST_LINKS = 20


@dataclass(frozen=True)
class Users:
    """The rows of one level that point to a connection: the first of them, and how many there are."""

    level: str
    links: list[Link]
    count: int

    @property
    def more(self) -> int:
        """How many are left out."""
        return self.count - len(self.links)


@dataclass(frozen=True)
class ShownVersion:
    """A version of an API key, with the list of the workers that run on it."""

    use: VersionInUse
    workers_url: str


def context_of(row: Verifiable, now: datetime) -> dict[str, Any]:
    """What the page's template needs; at most eleven statements."""
    context: dict[str, Any] = {"connection": row, "verified_badge": verified_badge(row), "users": _users_of(row)}
    if isinstance(row, CredentialConnection):
        context |= {
            "has_api_key": row.requires_api_key,
            "expiry_badge": expiry_badge(row, now),
            "travels_openly": travels_openly(row),
            "wave": _wave(row, now) if row.api_key_version else [],
            "is_unproven": row.verified_at is None or bool(row.verification_problem),
        }
    return context


def expiry_badge(row: CredentialConnection, now: datetime) -> str:
    """That the API key has expired or soon will; "" while that is far off or unknown."""
    if row.api_key_expires_on is None:
        return ""
    days = (row.api_key_expires_on - now.date()).days
    if days < 0:
        return badge("expired", "danger")
    if days > max(EXPIRY_WARNING_DAYS):
        return ""
    return badge(f"in {days} day{'' if days == 1 else 's'}" if days else "today", color_of_warning(days))


def travels_openly(row: CredentialConnection) -> bool:
    """Whether anybody on the way can read the API key."""
    if not row.requires_api_key:
        return False
    if isinstance(row, TemporalConnection):
        return not row.is_tls_enabled and not _is_loopback(row.host)
    url = urlsplit(row.api_url)  # type: ignore[attr-defined]  # a LiteLLM connection has one
    return url.scheme == "http" and not _is_loopback(url.netloc)


def _is_loopback(text: str) -> bool:
    try:
        host, _ = read_host_and_port(text, default_port=1)
    except HostError:
        return False
    if isinstance(host, str):
        return host == "localhost" or host.endswith(".localhost")
    return host.is_loopback


def _users_of(row: Verifiable) -> list[Users]:
    found = []
    for level in LEVELS:
        rows = level.objects.filter(**{row.POINTER: row.pk}).order_by("pk")
        if level is WorkerQueue:
            rows = rows.select_related("environment")
        shown = list(rows[: MOST_LINKS + 1])
        if shown:
            count = rows.count() if len(shown) > MOST_LINKS else len(shown)
            name = level._meta.verbose_name if count == 1 else level._meta.verbose_name_plural
            found.append(Users(str(name), [link_to(each) for each in shown[:MOST_LINKS]], count))
    return found


def _wave(row: CredentialConnection, now: datetime) -> list[ShownVersion]:
    return [ShownVersion(use, list_of(Worker, runs_on=f"{row.pk}:{use.version}")) for use in wave_of(row, now)]
