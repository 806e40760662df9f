"""`manage.py invite`: prints a link that works, or says what is wrong and does nothing."""

import json

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from environments.mail import MailServer
from environments.models import AuditEvent, Membership
from tests.support import factories
from tests.support.invitations import JOIN, accept
from tests.support.key_commands import refusal, run

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _organizations() -> None:
    factories.create_organization("acme")
    factories.create_organization("zoo")


def test_it_prints_a_link_that_works() -> None:
    done = run("invite", "bob", "--role=acme=operator", "--role=zoo=viewer")
    link, rest = done.stdout.split("\n", 1)
    assert (rest, done.stderr) == ("", "")
    assert link.startswith(f"{settings.CONTROL_PLANE_URL}{JOIN}#")
    assert accept(Client(), link.partition("#")[2]).status_code == 302
    assert dict(Membership.objects.values_list("organization_id", "role")) == {"acme": "operator", "zoo": "viewer"}
    assert AuditEvent.objects.filter(actor="command:invite", action="member.invited").count() == 2


def test_it_tells_programs() -> None:
    told = json.loads(run("invite", "bob@example.com", "--role=acme=viewer", "--format=json").stdout)
    assert set(told) == {"invitee", "roles", "link", "expires_at", "is_mailed"}
    assert (told["invitee"], told["roles"], told["is_mailed"]) == ("bob@example.com", {"acme": "viewer"}, False)


def test_a_mail_that_is_not_sent_is_told_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MailServer("127.0.0.1", 9, "controlplane@example.com", is_tls=False)
    monkeypatch.setattr(settings, "MAIL_SERVER", server)
    done = run("invite", "bob@example.com", "--role=acme=viewer")
    assert "#" in done.stdout
    assert "The mail was not sent" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("bob@", "--role=acme=viewer"), "valid email"),
        (("b b", "--role=acme=viewer"), "Write a name"),
        (("bob", "--role=nosuch=viewer"), "There is no organization 'nosuch'"),
        (("bob", "--role=\0=viewer"), "There is no organization"),
        (("bob", "--role=acme=owner"), "viewer, operator, administrator"),
        (("bob", "--role=acme"), "ORGANIZATION=ROLE"),
        (("bob", "--role=acme=viewer", "--role=acme=operator"), "twice"),
        (("ADA", "--role=acme=viewer"), "a user ADA already"),
        (("Ada@example.com", "--role=acme=viewer"), "already"),
    ],
)
def test_it_refuses_what_cannot_be(arguments: tuple[str, ...], told: str) -> None:
    User.objects.create_user("ada", email="ada@example.com")
    assert told in refusal("invite", *arguments)
