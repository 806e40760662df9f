"""Invitations in tests: made by a person, opened and accepted in a browser of somebody else's."""

from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from controlplane.accounts import invitations
from environments import times
from environments.audit import Actor
from environments.models import Role

JOIN = "/admin/account/invitation/"
PASSWORD = "a bright cold day in april"


def invited(
    organization: Any, invitee: str = "bob", role: Role = Role.OPERATOR, inviter: User | None = None
) -> invitations.Issued:
    actor = Actor(f"user:{inviter.get_username()}" if inviter else "command:invite")
    return invitations.invite(invitee, {organization.pk: role}, inviter=inviter, actor=actor, now=times.now())


def token_of(issued: invitations.Issued) -> str:
    return issued.link.partition("#")[2]


def accept(client: Client, token: str, username: str = "bob", password: str = PASSWORD, **more: Any) -> Any:
    """What a browser posts for somebody who is new."""
    typed = {"username": username, "password1": password, "password2": password}
    return client.post(JOIN, {"token": token, **typed, **more})
