"""Invitations: their link works once, for a day, for whoever is new or signed in, and opens nobody's user."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError
from django.test import Client
from pytest_django import Settings

from controlplane.accounts import invitations
from controlplane.models import SharedEntry
from environments import times
from environments.models import AuditEvent, Membership, Organization, Role
from tests.support import factories
from tests.support.console import everything, member, person, signed_in
from tests.support.invitations import JOIN, PASSWORD, accept, invited, token_of
from tests.support.logins import is_signed_in, log_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Organization:
    return factories.create_organization("acme")


@pytest.fixture
def admin_of(acme: Organization) -> User:
    return member(acme, Role.ADMINISTRATOR, "ada")


def test_a_newcomer_sets_a_password_becomes_a_member_and_logs_in(acme: Organization, client: Client) -> None:
    token = token_of(invited(acme, "bob@example.com"))
    page = client.post(JOIN, {"token": token}).content.decode()
    assert "acme (operator)" in page
    assert 'value="bob@example.com"' in page
    response = accept(client, token, "bob")
    assert response["Location"] == "/admin/login/"
    bob = User.objects.get()
    assert (bob.username, bob.is_staff, bob.is_superuser) == ("bob", True, False)
    assert [(row.organization_id, row.role) for row in bob.memberships.all()] == [("acme", "operator")]
    assert not is_signed_in(client)
    log_in(client, "bob", PASSWORD)
    assert is_signed_in(client)


def test_who_has_to_have_a_second_factor_is_led_to_it_first(
    acme: Organization, client: Client, settings: Settings
) -> None:
    settings.REQUIRE_SECOND_FACTOR = True
    accept(client, token_of(invited(acme)))
    log_in(client, "bob", PASSWORD)
    assert client.get("/admin/")["Location"] == "/admin/account/"


def test_looking_at_the_page_uses_nothing_and_asks_nothing(acme: Organization, client: Client) -> None:
    token, before = token_of(invited(acme)), everything()
    for _ in range(3):
        assert client.get(JOIN).status_code == client.head(JOIN).status_code == 200
    assert client.post(JOIN, {"token": token}).status_code == 200
    rows = everything()
    del rows["controlplane.SharedEntry"], before["controlplane.SharedEntry"]
    assert rows == before
    assert accept(client, token).status_code == 302


def test_it_works_once(acme: Organization, client: Client) -> None:
    token = token_of(invited(acme))
    assert accept(client, token).status_code == 302
    for response in (client.post(JOIN, {"token": token}), accept(client, token, "carol")):
        assert response.status_code == 410
        assert "was used already" in response.content.decode()
    assert User.objects.count() == 1


@pytest.mark.parametrize("typed", ["{link}", "  {link}\t", " {token} ", "#{token}"])
def test_the_whole_link_may_be_pasted_or_its_token(acme: Organization, client: Client, typed: str) -> None:
    issued = invited(acme)
    typed = typed.format(link=issued.link, token=token_of(issued))
    longest = re.search(r'maxlength="(\d+)"', client.get(JOIN).content.decode())
    assert longest
    assert int(longest[1]) > 500, "the address of a control plane may be long"
    assert client.post(JOIN, {"token": typed}).status_code == 200
    assert accept(client, typed).status_code == 302


def test_of_two_at_once_one_is_first(acme: Organization) -> None:
    token = token_of(invited(acme))
    found = invitations.find(token, times.now())
    invitations.accept(found, User(username="bob"), client_address=None, now=times.now())
    with pytest.raises(invitations.NotOpenError):
        invitations.accept(found, User(username="carol"), client_address=None, now=times.now())
    assert not User.objects.filter(username="carol").exists()


@pytest.mark.parametrize("spelled", [str, str.upper])
def test_of_two_who_choose_one_name_at_once_one_is_told_that_it_is_taken(
    acme: Organization, client: Client, monkeypatch: pytest.MonkeyPatch, spelled: Callable[[str], str]
) -> None:
    """Somebody takes it between the look whether it is free and the insert, while the password is hashed."""
    token, set_password = token_of(invited(acme)), User.set_password

    def slowly(user: User, password: str | None) -> None:
        User.objects.create(username=spelled(user.username))
        set_password(user, password)

    monkeypatch.setattr(User, "set_password", slowly)
    response = accept(client, token)
    assert response.status_code == 200
    assert "This name cannot be chosen." in response.content.decode()
    assert not Membership.objects.exists()
    monkeypatch.undo()
    assert accept(client, token, "robert").status_code == 302


def test_what_else_the_database_refuses_is_not_told_as_a_taken_name(acme: Organization, client: Client) -> None:
    token = token_of(invited(acme))
    with patch.object(Membership.objects, "create", side_effect=IntegrityError):
        response = accept(client, token)
    assert response.status_code == 410
    assert "This name cannot be chosen." not in response.content.decode()
    assert not User.objects.exists()
    assert accept(client, token).status_code == 302, "nothing is half done"


@pytest.mark.parametrize("change", ["demoted", "disabled"])
def test_it_ends_with_the_right_to_make_it_while_a_password_is_hashed(
    acme: Organization, client: Client, admin_of: User, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, set_password = token_of(invited(acme, inviter=admin_of)), User.set_password

    def slowly(user: User, password: str | None) -> None:
        set_password(user, password)
        if change == "demoted":
            Membership.objects.update(role=Role.OPERATOR)
        else:
            User.objects.update(is_active=False)

    monkeypatch.setattr(User, "set_password", slowly)
    assert accept(client, token).status_code == 410
    assert not User.objects.filter(username="bob").exists()


def test_it_ends_with_the_organization_also_where_a_superuser_made_it(acme: Organization) -> None:
    found = invitations.find(token_of(invited(acme)), times.now())
    gone = replace(found, roles={**found.roles, "gone": Role.VIEWER})
    with pytest.raises(invitations.NotOpenError):
        invitations.accept(gone, User(username="bob"), client_address=None, now=times.now())


def test_it_ends_after_a_day(acme: Organization, client: Client) -> None:
    token, now = token_of(invited(acme)), times.now()
    with patch.object(times, "now", lambda: now + timedelta(hours=23, minutes=59)):
        assert client.post(JOIN, {"token": token}).status_code == 200
    with patch.object(times, "now", lambda: now + timedelta(days=1)):
        assert accept(client, token).status_code == 410


@pytest.mark.parametrize("token", ["", "x", "é" * 5_000, "\x00", "a" * 64])
def test_an_invented_token_opens_nothing(acme: Organization, client: Client, token: str) -> None:
    invited(acme)
    assert client.post(JOIN, {"token": token}).status_code == 410


def test_only_a_hash_is_stored_and_the_token_is_in_no_event(acme: Organization) -> None:
    token = token_of(invited(acme))
    assert len(bytes.fromhex(token)) == 32, "256 bits"
    assert token not in str(everything())
    assert AuditEvent.objects.get().action == "member.invited"


def test_a_new_invitation_withdraws_the_one_before(acme: Organization, client: Client, admin_of: User) -> None:
    first = token_of(invited(acme, inviter=admin_of))
    second = token_of(invited(acme, "BOB", inviter=admin_of))
    assert client.post(JOIN, {"token": first}).status_code == 410
    assert client.post(JOIN, {"token": second}).status_code == 200
    event = AuditEvent.objects.get(action="member.invitation_withdrawn")
    assert (event.actor, event.organization_id) == ("user:ada", "acme")
    assert event.changes == {"invitee": [None, "bob"], "role": [None, "operator"]}


def test_another_organizations_invitation_of_the_same_person_stays(acme: Organization, client: Client) -> None:
    zoo = factories.create_organization("zoo")
    of_zoo = token_of(invited(zoo, inviter=member(zoo, Role.ADMINISTRATOR)))
    invited(acme, inviter=member(acme, Role.ADMINISTRATOR))
    assert client.post(JOIN, {"token": of_zoo}).status_code == 200


@pytest.mark.parametrize("change", ["disabled", "deleted", "demoted", "removed"])
def test_it_ends_with_the_right_to_make_it(acme: Organization, client: Client, admin_of: User, change: str) -> None:
    zoo = factories.create_organization("zoo")
    Membership.objects.create(organization=zoo, user=admin_of, role=Role.ADMINISTRATOR)
    token = token_of(invited(zoo, inviter=admin_of))
    if change == "disabled":
        User.objects.update(is_active=False)
    elif change == "deleted":
        signed_in(person("root", is_staff=True, is_superuser=True)).post(
            f"/admin/auth/user/{admin_of.pk}/delete/", {"post": "yes"}
        )
        assert not User.objects.filter(pk=admin_of.pk).exists()
    elif change == "demoted":
        Membership.objects.filter(user=admin_of).update(role=Role.OPERATOR)
    else:
        Membership.objects.filter(organization=zoo).delete()
    assert accept(client, token).status_code == 410
    assert not User.objects.filter(username="bob").exists()


def test_whoever_is_signed_in_joins_as_that_person(acme: Organization) -> None:
    bob = person("bob", is_staff=True)
    bob.set_password("before, and never changed")
    bob.save()
    client, before = signed_in(bob), bob.password
    token = token_of(invited(acme))
    page = client.post(JOIN, {"token": token}).content.decode()
    assert "signed in as bob" in page
    assert 'name="password1"' not in page
    accept(client, token, "carol")
    assert not Membership.objects.exists(), "only the button that says so joins"
    assert client.post(JOIN, {"token": token, "join": "yes"})["Location"] == "/admin/"
    assert Membership.objects.get().user == bob
    bob.refresh_from_db()
    assert bob.password == before
    assert User.objects.count() == 1


def test_a_role_that_the_person_has_stays(acme: Organization, admin_of: User) -> None:
    client = signed_in(admin_of)
    assert client.post(JOIN, {"token": token_of(invited(acme, "x", Role.VIEWER)), "join": "yes"}).status_code == 302
    assert Membership.objects.get().role == Role.ADMINISTRATOR


def test_somebody_who_is_not_staff_is_told_so(acme: Organization) -> None:
    client = signed_in(person("eve"))
    assert client.post(JOIN, {"token": token_of(invited(acme)), "join": "yes"}).status_code == 403
    assert not Membership.objects.exists()


@pytest.mark.parametrize("taken", ["bob", "BOB"])
def test_a_name_that_is_somebody_elses_gives_no_way_to_their_user(
    acme: Organization, client: Client, taken: str
) -> None:
    User.objects.create_user("bob", password="theirs", is_staff=True)
    token, before = token_of(invited(acme)), User.objects.values().get()
    response = accept(client, token, taken)
    assert response.status_code == 200
    assert "This name cannot be chosen" in response.content.decode()
    assert User.objects.values().get() == before
    assert accept(client, token, "bob2").status_code == 302


@pytest.mark.parametrize(
    ("username", "password", "told"),
    [
        ("bob", "tiger7", "at least 12 characters"),
        ("bob", "1q2w3e4r5t6y", "too common"),
        ("bobthegreatest", "bobthegreatest", "too similar"),
        ("b b", PASSWORD, "Enter a valid username"),
        ("", PASSWORD, "This field is required"),
        ("x" * 151, PASSWORD, "at most 150"),
    ],
)
def test_names_and_passwords_have_the_usual_rules(
    acme: Organization, client: Client, username: str, password: str, told: str
) -> None:
    token = token_of(invited(acme))
    response = accept(client, token, username, password)
    assert response.status_code == 200
    assert told in response.content.decode()
    assert password not in response.content.decode() or password == username
    assert not User.objects.exists()
    assert accept(client, token).status_code == 302


def test_passwords_that_differ_are_refused(acme: Organization, client: Client) -> None:
    assert accept(client, token_of(invited(acme)), password2="another long password").status_code == 200
    assert not User.objects.exists()


def test_both_are_on_record(acme: Organization, client: Client, admin_of: User) -> None:
    token = token_of(invited(acme, "bob@example.com", inviter=admin_of))
    accept(client, token)
    event = AuditEvent.objects.get(action="member.invited")
    assert (event.actor, event.organization_id) == ("user:ada", "acme")
    assert event.changes == {"invitee": [None, "bob@example.com"], "role": [None, "operator"]}
    accepted = AuditEvent.objects.get(action="user.invitation_accepted")
    assert (accepted.actor, accepted.object_name, accepted.client_address) == ("user:bob", "bob", "127.0.0.1")
    assert accepted.changes == {"invitation": [None, "bob@example.com"], "invited_by": [None, "user:ada"]}
    made = AuditEvent.objects.get(action="member.created")
    assert (made.actor, made.organization_id, made.changes["invited_by"]) == ("user:bob", "acme", [None, "user:ada"])
    assert "password" not in AuditEvent.objects.get(action="user.created").changes
    assert PASSWORD not in str(list(AuditEvent.objects.values()))


def test_an_address_is_believed_only_where_a_superuser_wrote_it(acme: Organization, admin_of: User) -> None:
    """Single sign-on knows people by it: else an administrator could hold a stranger's user before that one comes."""
    accept(Client(), token_of(invited(acme, "bob@example.com", inviter=admin_of)), "bob")
    accept(Client(), token_of(invited(acme, "carol@example.com")), "carol")
    accept(Client(), token_of(invited(acme, "CAROL@example.com")), "carola")
    addresses = dict(User.objects.values_list("username", "email"))
    assert addresses == {"ada": "", "bob": "", "carol": "carol@example.com", "carola": ""}


def test_nothing_is_half_done_when_the_record_fails(acme: Organization, client: Client) -> None:
    token, before = token_of(invited(acme)), everything()
    with patch("environments.audit.AuditEvent.save", side_effect=RuntimeError):
        assert accept(client, token).status_code == 500
    rows = everything()
    kept = [row for row in before.pop("controlplane.SharedEntry") if row in rows["controlplane.SharedEntry"]]
    assert len(kept) == 1, "the invitation is open as before"
    rows.pop("controlplane.SharedEntry")
    assert rows == before


def test_trying_tokens_is_limited(acme: Organization, client: Client) -> None:
    answers = [client.post(JOIN, {"token": f"guess {number}"}).status_code for number in range(21)]
    assert answers == [410] * 20 + [429]
    assert client.get(JOIN).status_code == 200


def test_the_page_is_kept_nowhere_and_needs_its_forms_token(acme: Organization) -> None:
    client = Client(enforce_csrf_checks=True)
    page = client.get(JOIN)
    assert "no-store" in page["Cache-Control"]
    assert page["Referrer-Policy"] == "same-origin"
    assert client.post(JOIN, {"token": token_of(invited(acme))}).status_code == 403


def test_a_restored_database_has_no_open_invitation(acme: Organization, client: Client) -> None:
    token = token_of(invited(acme))
    call_command("accept_restore", stdout=io.StringIO())
    assert client.post(JOIN, {"token": token}).status_code == 410


def test_other_entries_of_the_memory_are_no_invitations() -> None:
    for number, value in enumerate(([1.5], True, {"keys": []}, "y")):
        SharedEntry.objects.create(key_hash=str(number), value=value, expires_at=times.now() + timedelta(hours=1))
    assert invitations.open_invitations(times.now()) == []


@pytest.mark.parametrize("text", ["bob", "Bob.O-x_y+z", "bob@example.com", "ボブ"])
def test_names_and_addresses_can_be_invited(text: str) -> None:
    invitations.check_invitee(text)


@pytest.mark.parametrize(
    "text", ["", "b b", "bob@", "@example.com", "bob@example.com\nBcc: x@example.com", "bö@example.com", "x" * 151]
)
def test_nothing_else_can(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        invitations.check_invitee(text)
    assert re.search(r"[.]$", caught.value.messages[0])
