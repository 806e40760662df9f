"""What a message says: one sentence, and what a webhook, Slack and a mail make of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from workers.models import Event, Incident

#: Of many subjects, how many a message lists, and how many its sentence names.
MOST_SUBJECTS, MOST_NAMED = 20, 5
#: What a message is about that only tries whether it arrives.
TEST = "test"
BEGAN, OVER = "began", "over"

#: The address of a subject's page, by its kind and id; of the list of what stands, for "" and the event.
type AddressOf = Callable[[str, str], str]


class Words(NamedTuple):
    """The sentences of an event: of one subject, of many, and the same when it is over.

    {name} is the subject, {detail} what is known of it, {told} the same in brackets; {names} are the first of many, of
    which there are {count}.
    """

    one: str
    many: str
    one_over: str
    many_over: str


WORDS: dict[str, Words] = {
    Event.OFFLINE: Words(
        "Worker {name} is offline: nothing is heard of it.",
        "{count} workers are offline: {names}.",
        "Worker {name} is no longer offline.",
        "{count} workers are no longer offline: {names}.",
    ),
    Event.FAILED: Words(
        "Worker {name} has stopped with an error{told}.",
        "{count} workers have stopped with an error: {names}.",
        "Worker {name} has started again after its error.",
        "{count} workers have started again after an error: {names}.",
    ),
    Event.CRASH_LOOP: Words(
        "{name} is in a crash loop{told}.",
        "{count} workers or hosts are in a crash loop: {names}.",
        "{name} is no longer in a crash loop.",
        "{count} workers or hosts are no longer in a crash loop: {names}.",
    ),
    Event.DUPLICATE: Words(
        "Two processes run as worker {name}.",
        "Two processes or more run as each of {count} workers: {names}.",
        "Worker {name} no longer runs twice.",
        "{count} workers no longer run twice: {names}.",
    ),
    Event.WAITING: Words(
        "In worker queue {name} {detail}, and nobody polls.",
        "In {count} worker queues tasks wait and nobody polls: {names}.",
        "In worker queue {name} no task waits in vain any more.",
        "In {count} worker queues no task waits in vain any more: {names}.",
    ),
    Event.FULL: Words(
        "Worker queue {name} is full{told}, and further starts are refused.",
        "{count} worker queues are full, and further starts are refused: {names}.",
        "Worker queue {name} is no longer full.",
        "{count} worker queues are no longer full: {names}.",
    ),
    Event.FAILING: Words(
        "Connection {name} does not work: {detail}.",
        "{count} connections do not work: {names}.",
        "Connection {name} is no longer seen to fail.",
        "{count} connections are no longer seen to fail: {names}.",
    ),
    Event.EXPIRING: Words(
        "The API key or credential {name} expires {detail}.",
        "{count} API keys or credentials expire: {names}.",
        "The end of the API key or credential {name} is no longer near.",
        "The end of {count} API keys or credentials is no longer near: {names}.",
    ),
    Event.REFUSED: Words(
        "The latest start of {name} was refused: {detail}.",
        "The latest starts of {count} workers or hosts were refused: {names}.",
        "The latest start of {name} is no longer a refused one.",
        "The latest starts of {count} workers or hosts are no longer refused ones: {names}.",
    ),
    Event.OUTDATED: Words(
        "Worker {name} has run with an outdated configuration for an hour: restart it.",
        "{count} workers have run with an outdated configuration for an hour: {names}. Restart them.",
        "Worker {name} no longer runs with an outdated configuration.",
        "{count} workers no longer run with an outdated configuration: {names}.",
    ),
    Event.AWAY: Words(
        "The control plane was away {detail}. Workers that ran on are not to blame for their silence.",
        "The control plane was away.",
        "",
        "",
    ),
}
#: What one is told of when it begins, and not when it is over.
NEVER_OVER = frozenset({Event.AWAY})


def payload_of(
    incidents: Sequence[Incident], *, is_over: bool, delivery_id: str, now: datetime, address_of: AddressOf
) -> dict[str, Any]:
    """The message about incidents of one organization and event, as a webhook is sent it."""
    first = incidents[0]
    is_one = len(incidents) == 1
    url = address_of(first.subject_type, first.subject_id) if is_one else address_of("", first.event)
    return {
        "id": delivery_id,
        "organization": first.organization_id,
        "event": first.event,
        "state": OVER if is_over else BEGAN,
        "message": sentence_of(incidents, is_over=is_over),
        "count": len(incidents),
        "subjects": [_subject(incident, address_of) for incident in incidents[:MOST_SUBJECTS]],
        "url": url,
        "at": _time(now),
    }


def trial_payload(organization_id: str, target: str, *, delivery_id: str, now: datetime, url: str) -> dict[str, Any]:
    """A message that only tries whether it arrives."""
    message = f"This is a test message to {target}: what happens to the workers of {organization_id} is told here."
    return {
        "id": delivery_id,
        "organization": organization_id,
        "event": TEST,
        "state": BEGAN,
        "message": message,
        "count": 0,
        "subjects": [],
        "url": url,
        "at": _time(now),
    }


def sentence_of(incidents: Sequence[Incident], *, is_over: bool) -> str:
    """One sentence, however many there are."""
    first, words = incidents[0], WORDS[incidents[0].event]
    if len(incidents) == 1:
        detail = first.detail.rstrip(".")
        told = f" ({detail})" if detail else ""
        sentence = words.one_over if is_over else words.one
        return sentence.format(name=first.subject_name, detail=detail, told=told)
    is_dated = first.event == Event.EXPIRING and not is_over
    named = (f"{each.subject_name} {each.detail}" if is_dated else each.subject_name for each in incidents[:MOST_NAMED])
    names = ", ".join(named)
    if (more := len(incidents) - MOST_NAMED) > 0:
        names += f" and {more:,} more"
    return (words.many_over if is_over else words.many).format(count=f"{len(incidents):,}", names=names)


def slack_body(payload: Mapping[str, Any]) -> dict[str, str]:
    """What Slack's incoming webhooks take; the three characters that it reads are escaped."""
    text = str(payload["message"])
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(plain, escaped)
    return {"text": f"*{payload['organization']}*: {text}\n{payload['url']}"}


def mail_of(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and text of a mail."""
    subject = f"[{payload['organization']}] {payload['message']}"
    lines = [
        f"{each['name']}{f' ({each["detail"]})' if each['detail'] else ''}, since {each['since']}: {each['url']}"
        for each in payload["subjects"]
    ]
    if (more := payload["count"] - len(lines)) > 0:
        lines.append(f"and {more:,} more")
    return " ".join(subject.split())[:200], "\n".join(
        [str(payload["message"]), "", *lines, "", str(payload["url"]), ""]
    )


def body_of(payload: Mapping[str, Any]) -> bytes:
    """A message as it is posted."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def _subject(incident: Incident, address_of: AddressOf) -> dict[str, str]:
    return {
        "type": incident.subject_type,
        "id": incident.subject_id,
        "name": incident.subject_name,
        "since": _time(incident.since_at),
        "detail": incident.detail,
        "url": address_of(incident.subject_type, incident.subject_id),
    }


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
