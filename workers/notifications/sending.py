"""Sends one message to one target in bounded time: to a guarded address, or to the mail server."""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from django.conf import settings

from environments import mail
from environments.connections.verification import ConnectionProblemError
from environments.connections.verification.credentials import endpoint_at, signature_of
from environments.connections.verification.guard import Resolver, resolve_name
from environments.connections.verification.http_calls import call, refusal_of
from environments.connections.verification.outcome import Deadline
from environments.encryption import CannotOpenError, Secret
from environments.endpoints.hosts import UnusableError
from environments.sealing.data_keys import open_sealed
from workers.models import NotificationTarget, TargetKind
from workers.models.notifications import split_addresses
from workers.notifications.messages import body_of, mail_of, slack_body

PROBLEM_LENGTH = 300
DELIVERY, TIMESTAMP, SIGNATURE = "X-Delivery-ID", "X-Timestamp", "X-Signature"
NO_MAIL = "No mail is sent from here: the setting EMAIL_URL names no mail server."
UNOPENED = "The URL or the secret of the target cannot be opened at the moment."


class Attempt(NamedTuple):
    """What came of sending a message."""

    #: Why it was not taken, in a sentence that tells no secret; "" if it was.
    problem: str = ""
    #: Of a mail of which some addresses were refused, those that were not.
    taken_by: tuple[str, ...] = ()
    #: Whether it may have been taken all the same, so that sending it again may tell people twice.
    may_be_taken: bool = False


@dataclass(frozen=True)
class Outgoing:
    """A message with all that it takes to send it, opened: what sends it knows no database."""

    kind: str
    payload: dict[str, Any]
    #: Of a mail, those that have not got it yet.
    addresses: tuple[str, ...] = ()
    url: Secret | None = None
    secret: Secret | None = None


def outgoing(target: NotificationTarget, payload: dict[str, Any], taken_by: str = "") -> Outgoing:
    """The message for this target but for who has it; CannotOpenError if what is sealed of it does not open."""
    data_key = getattr(target.organization, "active_data_key", None)
    url, secret = (
        open_sealed(target, field, data_key=data_key) if getattr(target, field) else None
        for field in ("sealed_url", "sealed_secret")
    )
    addresses = tuple(each for each in split_addresses(target.addresses) if each not in split_addresses(taken_by))
    return Outgoing(target.kind, payload, addresses, url, secret)


def send(message: Outgoing, now: datetime, *, is_waited_for: bool = False, resolve: Resolver = resolve_name) -> Attempt:
    """Sends it, in three seconds at most; a mail that nobody waits for may take half a minute more."""
    if message.kind == TargetKind.EMAIL:
        return _mail(message, is_waited_for=is_waited_for)
    try:
        return Attempt(_post(message, now, resolve))
    except (ConnectionProblemError, UnusableError) as error:
        return Attempt(str(error)[:PROBLEM_LENGTH])


def send_now(target: NotificationTarget, payload: dict[str, Any], now: datetime) -> str:
    """The same for a target as it is stored; "" or why it was not taken. Call it outside of a transaction."""
    try:
        return send(outgoing(target, payload), now, is_waited_for=True).problem
    except CannotOpenError:
        return UNOPENED


def _post(message: Outgoing, now: datetime, resolve: Resolver) -> str:
    body = body_of(slack_body(message.payload) if message.kind == TargetKind.SLACK else message.payload)
    headers = {"Content-Type": "application/json", "User-Agent": "controlplane"}
    if message.secret is not None:
        headers |= signed_headers(body, message.secret, str(message.payload["id"]), now)
    if message.url is None:
        return UNOPENED
    endpoint = endpoint_at(message.url)
    answer = call("POST", endpoint, endpoint.path, headers=headers, deadline=Deadline(), resolve=resolve, body=body)
    is_taken = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
    return "" if is_taken else refusal_of(answer)


def signed_headers(body: bytes, secret: Secret, delivery_id: str, now: datetime) -> dict[str, str]:
    """What tells the receiver that the message is ours, is new, and was not received before."""
    timestamp = str(int(now.timestamp()))
    signature = signature_of(f"{delivery_id}.{timestamp}.".encode() + body, secret)
    return {DELIVERY: delivery_id, TIMESTAMP: timestamp, SIGNATURE: f"sha256={signature}"}


def _mail(message: Outgoing, *, is_waited_for: bool) -> Attempt:
    if settings.MAIL_SERVER is None:
        return Attempt(NO_MAIL)
    if not message.addresses:
        return Attempt()  # who did not have it is not named any more
    subject, text = mail_of(message.payload)
    mail_id = str(message.payload["id"])
    outcome, refused, may_have_it = mail.hand_over(
        message.addresses, subject, text, mail_id=mail_id, is_waited_for=is_waited_for
    )
    if not refused:
        return Attempt("" if outcome else f"{outcome.value}.", may_be_taken=may_have_it)
    problem = f"The mail server refused {len(refused)} of {len(message.addresses)} addresses: {', '.join(refused)}."
    taken_by = tuple(each for each in message.addresses if outcome and each not in refused)
    return Attempt(problem[:PROBLEM_LENGTH], taken_by)
