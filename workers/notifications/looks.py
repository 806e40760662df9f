"""Looks what stands, keeps what has changed, and writes the messages about it: each organization in one transaction.

What a target has not been told yet follows from its `told_at` and the times of incidents. So whatever is held back or
lost on the way is told at the next look, and what was over before anybody could be told is not.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import batched, groupby
from uuid import UUID

from django.db import DatabaseError, connection, transaction
from django.db.models import Exists, F, OuterRef, Q

from workers.models import Incident, NotificationDelivery, NotificationTarget
from workers.models.notifications import DETAIL_LENGTH
from workers.notifications.incidents import Changes, Key, Open, changes_between, open_incidents, told
from workers.notifications.messages import NEVER_OVER, AddressOf, payload_of
from workers.observation.lease import Lease
from workers.reports.endings import without_news
from workers.reports.standing import Standing, standing

logger = logging.getLogger(__name__)

#: Incidents that one transaction adds: few enough that on SQLite, too, no start waits for long.
BATCH = 5_000


class TurnLostError(Exception):
    """Another process has the turn by now."""


def look(lease: Lease, now: datetime, address_of: AddressOf) -> int:
    """One look at everything, by who has the turn; how many messages it wrote."""
    found: dict[str, dict[Key, Standing]] = defaultdict(dict)
    for each in standing(now):
        found[each.organization_id].setdefault(each.key, each)
    open_: dict[str, list[Open]] = defaultdict(list)
    for incident in open_incidents():
        open_[incident.organization_id].append(incident)
    waiting, written = _organizations_with_news(now), 0
    for organization_id in sorted({*found, *open_, *waiting}):
        changes = changes_between(open_[organization_id], found[organization_id], now)
        if not changes and organization_id not in waiting:
            continue
        try:
            written += _write(organization_id, changes, lease, now, address_of)
        except TurnLostError:
            break
        except DatabaseError as error:  # it was deleted meanwhile, or a row of it is locked: the others go on
            if not connection.is_usable():
                raise
            logger.warning("a look at %s was not kept: %s", organization_id, type(error.__cause__ or error).__name__)
    return written


def _organizations_with_news(now: datetime) -> set[str]:
    """Those of which a target has not been told something that is due; one statement."""
    told_at = OuterRef("told_at")
    news = Incident.objects.filter(_news(told_at, now), organization=OuterRef("organization")).order_by()
    targets = NotificationTarget.objects.filter(Exists(news), is_enabled=True).order_by()
    return {target.organization_id for target in targets if not target.is_held_back(now)}


def _news(since: object, now: datetime) -> Q:
    """What has become due after a moment, and what is over since of that which was due before."""
    is_due = Q(due_at__gt=since, due_at__lte=now) | Q(renewed_at__gt=since, renewed_at__lte=now)
    return Q(is_due, ended_at=None) | Q(ended_at__gt=since, ended_at__lte=now, due_at__lte=since, is_silent=False)


def _write(organization_id: str, changes: Changes, lease: Lease, now: datetime, address_of: AddressOf) -> int:
    """The last transaction writes the messages, about all; so after a crash the next look does."""
    *early, last = list(batched(changes.opened, BATCH)) or [()]
    for part in early:
        with transaction.atomic():
            _keep_turn(lease)
            Incident.objects.bulk_create(part)
    with transaction.atomic():
        _keep_turn(lease)
        Incident.objects.bulk_create(last)
        _note(changes, now)
        return _tell(organization_id, now, address_of)


def _keep_turn(lease: Lease) -> None:
    """First, so that nobody can take over before this is committed: no two processes tell the same."""
    if not lease.renew():
        raise TurnLostError


def _note(changes: Changes, now: datetime) -> None:
    for found, renewed_at in ((changes.renewed, now), (changes.eased, None)):
        for pk, each in found.items():  # few: what expires, and our own outages
            fields = {"mark": each.mark, "detail": told(each.detail, DETAIL_LENGTH), "renewed_at": renewed_at}
            Incident.objects.filter(pk=pk).update(**fields)
    _update(changes.gone, gone_at=now)
    _update(changes.back, gone_at=None)
    silent = without_news(changes.ended, now)
    _update(silent, ended_at=now, is_silent=True)
    _update((incident.id for incident in changes.ended if incident.id not in silent), ended_at=now)


def _update(ids: Iterable[UUID], **values: datetime | bool | None) -> None:
    for part in batched(ids, BATCH):
        Incident.objects.filter(pk__in=part).update(**values)


def _tell(organization_id: str, now: datetime, address_of: AddressOf) -> int:
    """Writes a message for each target, event, whether it began or is over, and how soon what begins expires."""
    targets = NotificationTarget.objects.filter(organization=organization_id, is_enabled=True).order_by("pk")
    listening = [target for target in targets if not target.is_held_back(now)]
    news: dict[datetime, list[Incident]] = {}
    deliveries: list[NotificationDelivery] = []
    heard = []
    for target in listening:
        if target.told_at not in news:
            rows = Incident.objects.filter(_news(target.told_at, now), organization=organization_id)
            ended_last = F("ended_at").asc(nulls_first=True)
            news[target.told_at] = list(rows.order_by("event", ended_last, "mark", "subject_name", "pk"))
        if found := news[target.told_at]:
            heard.append(target.pk)
            deliveries += _deliveries(target, found, now, address_of)
    NotificationDelivery.objects.bulk_create(deliveries)
    NotificationTarget.objects.filter(pk__in=heard).update(told_at=now)
    return len(deliveries)


def _deliveries(
    target: NotificationTarget, news: list[Incident], now: datetime, address_of: AddressOf
) -> Iterator[NotificationDelivery]:
    for (event, is_over, _), group in groupby(news, key=_told_together):
        incidents = list(group)
        if is_over:  # nobody is told the end of what they may not have been told to begin
            since = target.events_chosen_at or target.created_at
            incidents = [incident for incident in incidents if incident.due_at > since]
        if not incidents or not target.is_told(event) or (is_over and event in NEVER_OVER):
            continue
        delivery = NotificationDelivery(organization_id=target.organization_id, target=target, event=event)
        delivery.created_at = delivery.next_attempt_at = now
        delivery.payload = payload_of(
            incidents, is_over=is_over, delivery_id=str(delivery.pk), now=now, address_of=address_of
        )
        yield delivery


def _told_together(incident: Incident) -> tuple[str, bool, str]:
    is_over = incident.ended_at is not None
    return incident.event, is_over, "" if is_over else incident.mark
