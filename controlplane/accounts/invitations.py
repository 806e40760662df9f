"""Invitations: a link, good once and for a day, with which somebody becomes a member of organizations.

Whoever opens the link makes a user, or joins as the one that they are signed in as. So an invitation opens no user that
there is, and whoever makes one is not told whether the person is known: both answers are the same link. It is kept as
the hash of its token, in the table that the login's memory has, which forgets what has expired.
"""

import hashlib
import secrets
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.urls import reverse

from controlplane.models import SharedEntry
from environments import audit, mail
from environments.audit import Actor
from environments.models import Membership, Organization, Role
from environments.roles import EVERYWHERE, Staff, staff_from

LIFETIME = timedelta(days=1)
#: Who may invite, which is who may make members.
INVITING = Role.ADMINISTRATOR
LONGEST_NAME, LONGEST_ADDRESS = 150, 254
MAIL = """{opening} to the control plane at {url}, for {organizations}.

Open this link within a day. It works once:

{link}

If you did not expect this, ignore it.
"""


class NotOpenError(Exception):
    """The invitation was used, has expired or was withdrawn."""


@dataclass(frozen=True)
class Invitation:
    """One that is open."""

    id: uuid.UUID
    key_hash: str
    invitee: str
    roles: Mapping[str, Role]
    #: None for whoever worked at the machine itself.
    inviter_id: int | None
    invited_by: str
    expires_at: datetime

    @property
    def shown_roles(self) -> str:
        """Such as `acme (operator), zoo (viewer)`."""
        return ", ".join(f"{organization} ({role})" for organization, role in sorted(self.roles.items()))

    @property
    def opening(self) -> str:
        """How a sentence about it begins for the invitee."""
        kind, _, name = self.invited_by.partition(":")
        return f"{name} invites you" if kind == "user" else "You are invited"

    def inviter(self) -> Staff:
        """What the inviter may do by now."""
        return _staff(self.inviter_id)

    def is_within(self, staff: Staff) -> bool:
        """Whether this person could have made it."""
        return all(staff.may(INVITING, organization) for organization in self.roles)


@dataclass(frozen=True)
class Issued:
    """A new invitation, and the link that nothing stores."""

    invitation: Invitation
    link: str


def check_invitee(text: str) -> None:
    """ValidationError for what is neither a mail address nor a name to sign in with."""
    if "@" not in text:
        UnicodeUsernameValidator(message="Write a name of letters, digits and . + - _ only, or a mail address.")(text)
    else:
        validate_email(text)
    if len(text) > (LONGEST_ADDRESS if "@" in text else LONGEST_NAME) or ("@" in text and not text.isascii()):
        msg = "This is too long, or an address that is not ASCII (write xn--... for its domain)."
        raise ValidationError(msg)


@transaction.atomic
def invite(invitee: str, roles: Mapping[str, Role], *, inviter: User | None, actor: Actor, now: datetime) -> Issued:
    """Makes an invitation in the name of a person, or of whoever works at the machine; withdraws the one before.

    What another organization's administrator has sent to the same person stays.
    """
    staff = _staff(inviter.pk if inviter else None)
    for before in open_invitations(now):
        if before.invitee.lower() == invitee.lower() and before.is_within(staff):
            _withdraw(before, actor=actor, now=now)
    token = secrets.token_hex(32)
    value = {"invitee": invitee, "roles": dict(roles), "inviter": inviter.pk if inviter else None, "by": actor.name}
    row = SharedEntry.objects.create(key_hash=_hash(token), value=value, expires_at=now + LIFETIME)
    issued = _read(row)
    _record("member.invited", issued, actor=actor, now=now)
    return Issued(issued, f"{settings.CONTROL_PLANE_URL}{reverse('account_invitation')}#{token}")


def send_link(issued: Issued) -> mail.Outcome | None:
    """Sends the link by mail; None where there is no address or no mail server. Call it after the commit."""
    invitation = issued.invitation
    if "@" not in invitation.invitee or not mail.is_configured():
        return None
    organizations = ", ".join(sorted(invitation.roles))
    places = {"url": settings.CONTROL_PLANE_URL, "organizations": organizations}
    text = MAIL.format(opening=invitation.opening, link=issued.link, **places)
    return mail.send(invitation.invitee, "You are invited to the control plane", text)


def open_invitations(now: datetime) -> list[Invitation]:
    """Those that are neither used nor too old; some may be refused all the same, as `refused` tells."""
    rows = SharedEntry.objects.filter(value__has_key="invitee", expires_at__gt=now)
    return [_read(row) for row in rows.order_by("expires_at")]


def refused(found: Iterable[Invitation]) -> set[uuid.UUID]:
    """Which of them open nothing by now: an organization is gone, or the inviter may no longer give what they give."""
    found = list(found)
    named = {organization for each in found for organization in each.roles}
    there = set(Organization.objects.filter(pk__in=named).values_list("pk", flat=True))
    staff = {inviter_id: _staff(inviter_id) for inviter_id in {each.inviter_id for each in found}}
    return {each.id for each in found if not (there.issuperset(each.roles) and each.is_within(staff[each.inviter_id]))}


def withdraw_all() -> None:
    """Ends every invitation, as in a database that is a copy: those that were used are open in it again."""
    SharedEntry.objects.filter(value__has_key="invitee").delete()


@transaction.atomic
def withdraw(invitation_id: uuid.UUID, *, staff: Staff, actor: Actor, now: datetime) -> bool:
    """Ends one that the person could have made; whether it was open."""
    found = [each for each in open_invitations(now) if each.id == invitation_id and each.is_within(staff)]
    return bool(found) and _withdraw(found[0], actor=actor, now=now)


def find(token: str, now: datetime) -> Invitation:
    """The invitation of a token or a whole link; NotOpenError also where it is refused."""
    token = token.strip().rpartition("#")[2]
    row = SharedEntry.objects.filter(pk=_hash(token), expires_at__gt=now).first()
    if row is None or refused([_read(row)]):
        raise NotOpenError
    return _read(row)


@transaction.atomic
def accept(invitation: Invitation, user: User, *, client_address: str | None, now: datetime) -> None:
    """Makes the person a member; one who is new is stored first, with their password set. Used in the same transaction.

    A role that the person has stays as it is. The mail address is believed only where a superuser has written it: the
    person is known by it to single sign-on, and whoever holds the link need not be the one who reads the mail.
    """
    if not SharedEntry.objects.filter(pk=invitation.key_hash).delete()[0]:
        raise NotOpenError
    # Looked at once more, since hashing a password takes time.
    if refused([invitation]):
        raise NotOpenError
    actor = Actor(f"user:{user.get_username()}", client_address)
    if user.pk is None:
        user.is_staff = True
        address = invitation.invitee
        if "@" in address and invitation.inviter().is_superuser and not User.objects.filter(email__iexact=address):
            user.email = address
        user.save(force_insert=True)
        created = audit.difference({}, audit.snapshot(user))
        audit.record("user.created", user, actor=actor, now=now, changes=created)
    changes: dict[str, list[Any]] = {"invited_by": [None, invitation.invited_by]}
    told: dict[str, list[Any]] = {"invitation": [None, invitation.invitee], **changes}
    audit.record("user.invitation_accepted", user, actor=actor, now=now, changes=told)
    held = set(Membership.objects.filter(user=user).values_list("organization_id", flat=True))
    for organization, role in sorted(invitation.roles.items()):
        if organization not in held:
            row = Membership.objects.create(organization_id=organization, user=user, role=role)
            made = audit.difference({}, audit.snapshot(row)) | changes
            audit.record("member.created", row, actor=actor, now=now, changes=made)


def _withdraw(invitation: Invitation, *, actor: Actor, now: datetime) -> bool:
    if not SharedEntry.objects.filter(pk=invitation.key_hash).delete()[0]:
        return False
    _record("member.invitation_withdrawn", invitation, actor=actor, now=now)
    return True


def _record(action: str, invitation: Invitation, *, actor: Actor, now: datetime) -> None:
    for row in Organization.objects.filter(pk__in=invitation.roles).order_by("pk"):
        changes: dict[str, list[Any]] = {
            "invitee": [None, invitation.invitee],
            "role": [None, invitation.roles[row.pk]],
        }
        audit.record(action, row, actor=actor, now=now, changes=changes)


def _read(row: SharedEntry) -> Invitation:
    told = row.value
    roles = {organization: Role(role) for organization, role in told["roles"].items()}
    return Invitation(row.owner, row.key_hash, told["invitee"], roles, told["inviter"], told["by"], row.expires_at)


def _staff(user_id: int | None) -> Staff:
    user = None if user_id is None else User.objects.filter(pk=user_id).first()
    return EVERYWHERE if user_id is None else staff_from(user) if user else Staff()


def _hash(token: str) -> str:
    return hashlib.sha256(f"invitation:{token}".encode(errors="replace")).hexdigest()
