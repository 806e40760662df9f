"""The page that invites: who may, for what, and that it tells nobody of people of another organization."""

import re
import threading
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from controlplane.accounts import invitations
from controlplane.models import SharedEntry
from environments import mail, times
from environments.mail import MailServer
from environments.models import AuditEvent, Membership, Organization, Role
from tests.support import factories
from tests.support.console import HOSTILE, everything, member, person, signed_in, status_of
from tests.support.endpoints import silent
from tests.support.invitations import JOIN, accept, invited, token_of
from tests.support.mail import Mailbox, mail_server, refusing

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:Overriding get_action_choices")]

INVITE, WITHDRAW = "/admin/invite/", "/admin/invite/withdraw/"


@pytest.fixture
def acme() -> Organization:
    return factories.create_organization("acme")


@pytest.fixture
def zoo() -> Organization:
    return factories.create_organization("zoo")


@pytest.fixture
def admin(acme: Organization) -> Client:
    return signed_in(member(acme, Role.ADMINISTRATOR, "ada"))


@pytest.fixture
def superuser() -> Client:
    return signed_in(person("root", is_staff=True, is_superuser=True))


def invite(client: Client, invitee: str = "bob", organization: str = "acme", role: str = "viewer", **more: Any) -> Any:
    return client.post(INVITE, {"invitee": invitee, "organization1": organization, "role1": role, **more})


def link_in(response: Any) -> str:
    found = re.search(r'id="link"[^>]*>([^<]+)<', response.content.decode())
    assert found, response.content.decode()[-3000:]
    return unescape(found[1])


def test_an_administrator_invites_to_the_own_organization(acme: Organization, admin: Client) -> None:
    response = invite(admin, role="administrator")
    link = link_in(response)
    assert link.startswith(f"{settings.CONTROL_PLANE_URL}{JOIN}#")
    assert "no-store" in response["Cache-Control"]
    assert accept(Client(), link.partition("#")[2]).status_code == 302
    assert Membership.objects.get(user__username="bob").role == "administrator"
    assert AuditEvent.objects.get(action="member.invited").actor == "user:ada"


def test_a_superuser_invites_to_several(acme: Organization, zoo: Organization, superuser: Client) -> None:
    response = invite(superuser, organization2="zoo", role2="operator")
    accept(Client(), link_in(response).partition("#")[2])
    assert dict(Membership.objects.values_list("organization_id", "role")) == {"acme": "viewer", "zoo": "operator"}
    told = {event.organization_id for event in AuditEvent.objects.filter(action="member.invited")}
    assert told == {"acme", "zoo"}


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, None])
def test_who_may_make_no_members_may_not_invite(acme: Organization, role: Role | None) -> None:
    client = signed_in(member(acme, role, "eve") if role else person("eve", is_staff=True))
    issued = invited(acme)
    before = everything()
    assert client.get(INVITE).status_code == 403
    assert invite(client).status_code == 403
    assert client.post(WITHDRAW, {"invitation": str(issued.invitation.id)}).status_code == 403
    assert everything() == before
    assert INVITE not in client.get("/admin/environments/membership/").content.decode()


def test_the_lists_lead_to_it(acme: Organization, admin: Client, superuser: Client) -> None:
    assert INVITE in admin.get("/admin/environments/membership/").content.decode()
    for path in ("environments/membership/", "auth/user/"):
        assert INVITE in superuser.get(f"/admin/{path}").content.decode()


@pytest.mark.parametrize("organization", ["zoo", "nosuch", "", "x" * 5000])
def test_no_other_organization_can_be_chosen_nor_is_told(zoo: Organization, admin: Client, organization: str) -> None:
    before = everything()
    response = invite(admin, organization=organization)
    assert response.status_code == 200
    assert 'id="link"' not in response.content.decode()
    assert "zoo" not in admin.get(INVITE).content.decode()
    assert everything() == before


def test_an_organization_that_no_database_takes_is_bad_input(acme: Organization, admin: Client) -> None:
    data = {"invitee": "bob", "organization1": "\x00", "role1": "viewer"}
    assert status_of(admin, "post", INVITE, data) in {200, 400}


def test_a_member_of_the_own_organization_is_told_as_such(acme: Organization, admin: Client) -> None:
    member(acme, Role.VIEWER, "bob")
    assert "is a member of acme already" in invite(admin, "BOB").content.decode()


@pytest.mark.parametrize("kind", ["active", "inactive", "superuser", "by address", "invited"])
def test_who_is_known_elsewhere_is_answered_like_nobody(
    zoo: Organization, acme: Organization, admin: Client, kind: str
) -> None:
    """All the way to the form: what the inviter sees who opens the own link is the same."""

    def seen(invitee: str) -> str:
        answer = invite(admin, invitee)
        opened = Client().post(JOIN, {"token": link_in(answer).partition("#")[2]})
        text = answer.content.decode() + opened.content.decode()
        text = re.sub(r"[A-Za-z0-9_-]{43,}|\d\d:\d\d", "", text)
        return text.replace(invitee, "SOMEBODY")

    nobody = seen("carol" if kind != "by address" else "carol@example.com")
    if kind == "invited":
        invited(zoo, "bobby")
    else:
        fields = {"is_active": kind != "inactive", "is_superuser": kind == "superuser", "email": "bobby@example.com"}
        bob = User.objects.create_user("bobby", password="theirs, all theirs", is_staff=True, **fields)
        Membership.objects.create(organization=zoo, user=bob, role=Role.OPERATOR)
    before = list(User.objects.values()), list(Membership.objects.values())
    assert seen("bobby@example.com" if kind == "by address" else "bobby") == nobody
    assert (list(User.objects.values()), list(Membership.objects.values())) == before


def test_a_superuser_is_told_that_somebody_is_known(acme: Organization, superuser: Client) -> None:
    User.objects.create_user("bob", email="bob@example.com")
    assert 'id="known"' in invite(superuser, "Bob@example.com").content.decode()
    assert 'id="known"' not in invite(superuser, "carol").content.decode()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"invitee": "bob@", "organization1": "acme", "role1": "viewer"},
        {"invitee": "", "organization1": "acme", "role1": "viewer"},
        {"invitee": "a\x00b", "organization1": "acme", "role1": "viewer"},
        {"invitee": HOSTILE, "organization1": "acme", "role1": "viewer"},
        {"invitee": "x" * 10_000, "organization1": "acme", "role1": "viewer"},
        {"invitee": "bob", "organization1": "acme", "role1": "owner"},
        {"invitee": "bob", "organization1": "acme"},
        {"invitee": "bob", "organization1": "acme", "role1": "viewer", "organization2": "acme", "role2": "operator"},
        {"invitee": "bob", "organization1": ["acme", "zoo"], "role1": ["viewer", "x"]},
    ],
)
def test_odd_input_changes_nothing(acme: Organization, zoo: Organization, superuser: Client, data: Any) -> None:
    before = everything()
    response = superuser.post(INVITE, data)
    assert response.status_code == 200
    assert 'id="link"' not in response.content.decode()
    assert HOSTILE not in response.content.decode()
    assert everything() == before


def test_open_invitations_are_listed_and_withdrawn(acme: Organization, zoo: Organization, admin: Client) -> None:
    mine, theirs = invited(acme), invited(zoo, "carol")
    page = admin.get(INVITE).content.decode()
    assert "bob" in page
    assert "carol" not in page
    assert token_of(mine) not in page
    for odd in (str(theirs.invitation.id), str(uuid4()), "x", ""):
        assert admin.post(WITHDRAW, {"invitation": odd}).status_code == 302
    assert len(invitations.open_invitations(times.now())) == 2
    assert admin.post(WITHDRAW, {"invitation": str(mine.invitation.id)})["Location"] == INVITE
    assert Client().post(JOIN, {"token": token_of(mine)}).status_code == 410
    assert AuditEvent.objects.get(action="member.invitation_withdrawn").organization_id == "acme"
    assert admin.get(WITHDRAW).status_code == 405


@pytest.mark.parametrize("change", ["demoted", "disabled", "deleted"])
def test_the_list_tells_which_links_do_not_open(
    acme: Organization, zoo: Organization, admin: Client, superuser: Client, change: str
) -> None:
    grace = member(acme, Role.ADMINISTRATOR, "grace")
    token = token_of(invited(acme, "bob", inviter=grace))
    invited(acme, "carol")
    assert "Does not open" not in admin.get(INVITE).content.decode()
    if change == "demoted":
        Membership.objects.filter(user=grace).update(role=Role.VIEWER)
    elif change == "disabled":
        User.objects.filter(pk=grace.pk).update(is_active=False)
    else:
        Membership.objects.filter(user=grace).delete()
        User.objects.filter(pk=grace.pk).delete()
    assert Client().post(JOIN, {"token": token}).status_code == 410
    for client in (admin, superuser):
        rows = client.get(INVITE).content.decode().split('id="open-invitations"')[1].split("<tr>")[2:]
        assert [("bob" in row, "Does not open" in row) for row in rows] == [(True, True), (False, False)]


def test_a_superuser_sees_that_an_organization_is_gone(acme: Organization, superuser: Client) -> None:
    invited(acme)
    row = SharedEntry.objects.get(value__has_key="invitee")
    row.value["roles"] = {"gone": "viewer"}
    row.save()
    assert "Does not open" in superuser.get(INVITE).content.decode()


def test_only_organizations_are_offered_for_which_the_person_may_invite(
    acme: Organization, zoo: Organization, admin: Client, superuser: Client
) -> None:
    Membership.objects.create(organization=zoo, user=User.objects.get(username="ada"), role=Role.VIEWER)
    asked = "/admin/autocomplete/?app_label=environments&model_name=membership&field_name=organization"
    offered = [[each["id"] for each in client.get(asked).json()["results"]] for client in (admin, superuser)]
    assert offered == [["acme"], ["acme", "zoo"]]


def test_inviting_is_limited(acme: Organization, admin: Client) -> None:
    answers = [invite(admin, f"bob{number}").status_code for number in range(61)]
    assert answers == [200] * 60 + [429]


# --- Mail --------------------------------------------------------------------------------------------------------------


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(url.partition("?")[0].rpartition(":")[2])
    monkeypatch.setattr(settings, "MAIL_SERVER", MailServer("127.0.0.1", port, "cp@example.com", is_tls=False))


def test_an_address_is_sent_the_link(acme: Organization, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Mailbox()
    with mail_server(box.handle) as url:
        use(url, monkeypatch)
        response = invite(admin, "bob@example.com")
    assert "It was sent by mail, too." in response.content.decode()
    (sent,) = box.mails
    assert link_in(response) in sent.replace("=\r\n", "")
    assert "ada invites you" in sent


def test_a_mail_that_is_not_sent_is_told_and_the_link_is_shown(
    acme: Organization, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_server(refusing) as url:
        use(url, monkeypatch)
        response = invite(admin, "bob@example.com")
    assert "The mail was not sent" in response.content.decode()
    assert accept(Client(), link_in(response).partition("#")[2]).status_code == 302


def test_whether_a_mail_was_sent_is_told_as_far_as_it_is_known(
    acme: Organization, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may take a mail and answer too late."""
    monkeypatch.setattr(mail, "PATIENCE", 0.3)
    with mail_server(silent) as url:
        use(url, monkeypatch)
        assert "It is not certain that the mail was sent" in invite(admin, "bob@example.com").content.decode()
    monkeypatch.setattr(mail, "_turn", threading.Lock())
    with mail._turn:
        assert "Another mail was being sent" in invite(admin, "bob@example.com").content.decode()


def test_a_name_is_sent_nothing(acme: Organization, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    use("smtp://127.0.0.1:9?", monkeypatch)
    assert 'id="mail"' not in invite(admin).content.decode()
