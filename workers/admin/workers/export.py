"""Lists as CSV that no spreadsheet runs: what is in them was written by whoever runs the workers."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import Prefetch, QuerySet
from django.db.models.fields.json import KT

from environments import times
from workers.api_keys.issuing import IssuedApiKey, issued_key
from workers.configuration.effective import is_outdated
from workers.configuration.revisions import Group, current_revisions, group_of
from workers.models import LIVE, InstanceReport, Worker, WorkerInstance, WorkerStart

#: Workers read at a time, so that a list of any length takes no more memory and no statement takes long.
BATCH = 1_000
LEAST_ID = UUID(int=0)
#: What a process tells of its software, and how many characters of it are kept.
VERSIONS = ("python", "sdk", "cli")
VERSION_LENGTH = 100

WORKER_COLUMNS = (
    *("id", "organization", "environment", "queue", "name", "labels", "liveness", "host", "versions"),
    *("last_heartbeat", "state", "revision", "outdated"),
)
KEY_COLUMNS = ("worker_id", "worker", "key_name", "expires_at", "api_key")

#: What a spreadsheet takes for the start of a formula; U+2212 is a minus sign too.
FORMULA_STARTS = frozenset("=+-@\u2212")
QUOTES = frozenset("'\"`\u2018\u2019\u201c\u201d")
#: Where a spreadsheet may begin another cell although we part them otherwise.
CELL_BREAKS = re.compile(r"(?<=[\t\r\n;])")


def safe_cell(value: object) -> str:
    """The text as a cell that is never a formula: an apostrophe stands before whatever could begin one.

    Spaces, quotes and invisible characters before it make no difference, nor does the width of the characters.
    """
    text = str(value)
    safe = "".join(f"'{part}" if _begins_formula(part) else part for part in CELL_BREAKS.split(text))
    return f"'{safe}" if safe[:1] in {"\t", "\r", "\n"} else safe


def as_csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[bytes]:
    """The lines of the document, in UTF-8."""
    yield _line(header)
    for row in rows:
        yield _line(safe_cell(value) for value in row)


def workers_as_csv(workers: QuerySet[Worker]) -> Iterator[bytes]:
    """The workers, ordered by id; the query set has to be one `with_liveness`."""
    return as_csv(WORKER_COLUMNS, _worker_rows(workers))


def keys_as_csv(issued: Iterable[IssuedApiKey]) -> Iterator[bytes]:
    """New keys of workers with the keys themselves, for the one answer that shows them."""
    return as_csv(KEY_COLUMNS, (_key_cells(key.row.worker_id, issued_key(key)) for key in issued))


def _line(cells: Iterable[str]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue().encode(errors="replace")


def _begins_formula(text: str) -> bool:
    seen = (char for char in unicodedata.normalize("NFKC", text) if not _is_unseen(char))
    return next(seen, "") in FORMULA_STARTS


def _is_unseen(char: str) -> bool:
    return char == " " or char in QUOTES or not char.isprintable() or unicodedata.category(char) == "Mn"


@dataclass(frozen=True)
class _Current:
    """What is known of the current process of some workers, and what each of these would be given now."""

    versions: dict[UUID, str]
    revisions: dict[Group, str]
    now: datetime


def _key_cells(worker_id: UUID | None, shown: dict[str, Any]) -> tuple[object, ...]:
    return (worker_id, shown["target"], shown["name"], shown["expires_at"], shown["api_key"])


def _worker_rows(workers: QuerySet[Worker]) -> Iterator[tuple[object, ...]]:
    """Page by page instead of by one long cursor: it works through poolers and keeps no transaction open."""
    current = WorkerInstance.objects.filter(is_current=True).only(
        "id", "worker_id", "hostname", "last_heartbeat_at", "configuration_revision"
    )
    rows = workers.select_related("queue__environment").prefetch_related(None)
    rows = rows.prefetch_related(Prefetch("instances", current, "current_instances")).order_by("pk")
    last, revisions = LEAST_ID, dict[Group, str]()
    while page := list(rows.filter(pk__gt=last)[:BATCH]):
        last = page[-1].pk
        groups = {group_of(worker) for worker in page}
        revisions |= current_revisions(groups - revisions.keys()) if groups - revisions.keys() else {}
        known = _Current(_versions(page), revisions, times.now())
        yield from (_cells(worker, known) for worker in page)


def _cells(worker: Any, known: _Current) -> tuple[object, ...]:
    instance = next(iter(worker.current_instances), None)
    revision = instance.configuration_revision if instance else ""
    is_old = worker.liveness in LIVE and is_outdated(revision, known.revisions[group_of(worker)])
    return (
        worker.pk,
        worker.organization_id,
        worker.queue.environment.name,
        worker.queue.name,
        worker.name,
        worker.labels,
        worker.liveness,
        instance.hostname if instance else "",
        known.versions.get(instance.pk, "") if instance else "",
        f"{instance.last_heartbeat_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if instance else "",
        str(worker.state_at(known.now)).lower(),
        revision,
        "yes" if is_old else "no",
    )


def _versions(page: list[Any]) -> dict[UUID, str]:
    """Of each current process the versions that it reported last, or at its start if it has not reported since."""
    ids = [instance.pk for worker in page for instance in worker.current_instances]
    paths = [KT(f"system_info__{name}_version") for name in VERSIONS]
    found = (
        rows.filter(pk__in=ids).values_list("pk", *paths) for rows in (WorkerStart.objects, InstanceReport.objects)
    )
    return {pk: _told(values) for rows in found for pk, *values in rows}


def _told(values: list[Any]) -> str:
    told = zip(VERSIONS, values, strict=True)
    return ", ".join(f"{name} {str(value)[:VERSION_LENGTH]}" for name, value in told if value not in (None, ""))
