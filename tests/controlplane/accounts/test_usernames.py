"""Names to sign in with: nobody has one that is another's but for upper and lower case."""

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.test import Client

from tests.support.console import person, signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

REFUSED = "Somebody has this name already, in upper or lower case."


@pytest.fixture
def client() -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def rename(client: Client, user: User, username: str) -> str:
    """What the page says after a try."""
    page = f"/admin/auth/user/{user.pk}/change/"
    form = client.get(page).context["adminform"].form
    values = {name: "" if value is None else value for name, value in form.initial.items() if name != "password"}
    return client.post(page, {**values, "username": username}, follow=True).content.decode()


def test_the_database_holds_it() -> None:
    anna = User.objects.create(username="anna")
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create(username="Anna")
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.bulk_create([User(username="ANNA")])
    User.objects.filter(pk=anna.pk).update(username="Anna")  # one's own


def test_a_person_is_renamed_to_nobody_elses_name(client: Client) -> None:
    anna, other = User.objects.create(username="anna"), User.objects.create(username="other")
    assert REFUSED in rename(client, other, "ANNA")
    assert User.objects.get(pk=other.pk).username == "other"
    assert REFUSED not in rename(client, anna, "Anna")
    assert User.objects.get(pk=anna.pk).username == "Anna"


def test_who_is_made_at_the_same_time_is_refused_with_a_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look whether the name is free comes before somebody takes it."""
    set_password = User.set_password

    def slowly(user: User, password: str | None) -> None:
        if user.username == "anna":
            User.objects.create(username="Anna")
        set_password(user, password)

    monkeypatch.setattr(User, "set_password", slowly)
    password = "correct horse battery staple"
    fields = {"username": "anna", "password1": password, "password2": password, "usable_password": "true"}
    response = client.post("/admin/auth/user/add/", fields)
    assert (response.status_code, "at the same time" in response.content.decode()) == (409, True)
