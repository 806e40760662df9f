"""Invites a colleague: prints a link, good once and for a day, that makes them a member of organizations."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.utils import timezone

from controlplane.accounts import invitations
from controlplane.console.inviting import is_known
from environments.audit import Actor
from environments.management.command import ControlPlaneCommand
from environments.management.printing import printable
from environments.models import Organization, Role


class Command(ControlPlaneCommand):
    """A mail address gets the link by mail, too, where EMAIL_URL is set. It withdraws the invitation before."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("invitee", metavar="NAME_OR_MAIL")
        parser.add_argument(
            "--role",
            action="append",
            required=True,
            metavar="ORGANIZATION=ROLE",
            help=f"once for each organization; {', '.join(Role.values)}",
        )

    def handle(self, *, invitee: str, role: list[str], **options: Any) -> None:
        try:
            invitations.check_invitee(invitee)
        except ValidationError as error:
            msg = f"{printable(invitee)}: {error.messages[0]}"
            raise CommandError(msg) from None
        if is_known(invitee):
            msg = f"There is a user {invitee} already: give the role under Members."
            raise CommandError(msg)
        roles = _roles(role)
        now = timezone.now()
        issued = invitations.invite(invitee, roles, inviter=None, actor=Actor("command:invite"), now=now)
        outcome = invitations.send_link(issued)
        if options["format"] == "json":
            expires_at = issued.invitation.expires_at.isoformat()
            told = {"invitee": invitee, "roles": roles, "link": issued.link, "expires_at": expires_at}
            self.stdout.write(json.dumps({**told, "is_mailed": bool(outcome)}))
        else:
            self.stdout.write(issued.link)
        if outcome is not None and not outcome:
            self.stderr.write(f"{outcome.value}: hand the link over yourself.")


def _roles(texts: list[str]) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for text in texts:
        organization, equals, role = text.partition("=")
        if not equals or role not in Role.values:
            msg = f"--role {printable(text)}: expected ORGANIZATION=ROLE with one of {', '.join(Role.values)}."
            raise CommandError(msg)
        if organization in roles:
            msg = f"--role names {organization} twice."
            raise CommandError(msg)
        if "\0" in organization or not Organization.objects.filter(pk=organization).exists():
            msg = f"There is no organization {printable(organization)!r}."
            raise CommandError(msg)
        roles[organization] = Role(role)
    return roles
