"""What has begun, what goes on and what is over: what stands now, held against what stood before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from environments.management.printing import printable
from workers.models import Event, Incident
from workers.models.notifications import DETAIL_LENGTH, SUBJECT_LENGTH
from workers.reports.standing import Standing

#: What is gone for so long is over; until then it may come back and nothing has happened.
OVER_AFTER = timedelta(minutes=1)
OVER_AFTER_OF = {Event.AWAY: timedelta(0), Event.CRASH_LOOP: timedelta(minutes=15)}
#: What has to stand for so long before anybody is told; everything else is told at once.
TOLD_AFTER = {Event.OUTDATED: timedelta(hours=1)}

type Key = tuple[str, str, str]


class Open(NamedTuple):
    """What a look needs to know of an incident that is open; there may be very many."""

    id: UUID
    organization_id: str
    event: str
    subject_type: str
    subject_id: str
    mark: str
    gone_at: datetime | None

    @property
    def key(self) -> Key:
        """What tells it from others of its organization that stand."""
        return self.event, self.subject_type, self.subject_id


@dataclass
class Changes:
    """What is to be written of an organization's incidents."""

    opened: list[Incident] = field(default_factory=list)
    #: Those of which the mark has changed, by their ids: what is news, and what is not.
    renewed: dict[UUID, Standing] = field(default_factory=dict)
    eased: dict[UUID, Standing] = field(default_factory=dict)
    gone: list[UUID] = field(default_factory=list)
    back: list[UUID] = field(default_factory=list)
    ended: list[Open] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(vars(self).values())


def open_incidents() -> Iterable[Open]:
    """Those of all organizations; one statement."""
    rows = Incident.objects.filter(ended_at=None).order_by().values_list(*Open._fields)
    return (Open(*row) for row in rows.iterator())


def changes_between(open_: Iterable[Open], found: Mapping[Key, Standing], now: datetime) -> Changes:
    """What differs between the incidents that are open and what stands now."""
    changes, known = Changes(), set[Key]()
    for incident in open_:
        known.add(incident.key)
        each = found.get(incident.key)
        if each is None:
            _note_gone(incident, changes, now)
            continue
        if incident.mark != each.mark:
            (changes.renewed if _is_news(each, incident.mark) else changes.eased)[incident.id] = each
        if incident.gone_at is not None:
            changes.back.append(incident.id)
    begun = (each for key, each in found.items() if each.is_certain and key not in known)
    changes.opened = [_incident(each, now) for each in begun]
    return changes


def _is_news(each: Standing, before: str) -> bool:
    """What expires is news when fewer days are left than were told, and not when somebody has put it off."""
    return each.event is not Event.EXPIRING or int(each.mark) < int(before)


def _note_gone(incident: Open, changes: Changes, now: datetime) -> None:
    if now - (incident.gone_at or now) >= OVER_AFTER_OF.get(Event(incident.event), OVER_AFTER):
        changes.ended.append(incident)
    elif incident.gone_at is None:
        changes.gone.append(incident.id)


def told(text: str, limit: int) -> str:
    """What a process or another server says of itself, as a message may repeat it: nothing in it acts on who reads."""
    return printable(text)[:limit]


def _incident(each: Standing, now: datetime) -> Incident:
    return Incident(
        organization_id=each.organization_id,
        event=each.event,
        subject_type=each.subject_type,
        subject_id=each.subject_id[:SUBJECT_LENGTH],
        subject_name=told(each.subject_name, SUBJECT_LENGTH),
        detail=told(each.detail, DETAIL_LENGTH),
        mark=each.mark,
        since_at=min(each.since_at, now),
        opened_at=now,
        due_at=now + TOLD_AFTER.get(each.event, timedelta(0)),
    )
