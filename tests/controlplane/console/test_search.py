from typing import Any

import pytest
from django.test import Client

from environments.models import Role
from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.console import member, person, signed_in
from tests.support.factories import Fleet

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def found(client: Client, term: str) -> list[str]:
    response = client.get("/admin/search/", {"s": term})
    assert response.status_code == 200
    return [result.title for result in response.context["results"]] if response.context else []


def test_finds_objects_by_name_and_pages_by_title(client: Client, fleet: Fleet) -> None:
    assert str(fleet.worker) in found(client, "worker-1")
    assert str(fleet.queue) in found(client, "default")
    assert str(fleet.temporal) in found(client, "tempo")
    assert found(client, "audit") == ["Audit events"]
    assert found(client, str(fleet.worker.pk))[0] == str(fleet.worker)


def test_shows_a_few_of_each_kind(client: Client, fleet: Fleet, django_assert_max_num_queries: Any) -> None:
    for number in range(20):
        factories.create_worker(fleet.queue, f"many-{number}")
    with django_assert_max_num_queries(12):
        assert len(found(client, "many")) == 5


def test_finds_only_what_the_person_may_see(client: Client, fleet: Fleet) -> None:
    other = fresh_fleet()
    viewer = signed_in(member(fleet.organization, Role.VIEWER))
    assert str(fleet.worker) in found(viewer, "worker")
    assert str(other.worker) in found(client, "worker")
    assert str(other.worker) not in found(viewer, "worker")
    assert found(viewer, other.organization.pk) == []
    assert found(viewer, "users") == []


def test_a_role_that_has_ended_finds_nothing_any_more(client: Client, fleet: Fleet) -> None:
    person_ = member(fleet.organization, Role.VIEWER)
    viewer = signed_in(person_)
    assert found(viewer, "worker-1")
    person_.memberships.all().delete()
    assert found(viewer, "worker-1") == []


@pytest.mark.parametrize("term", ["", "a", "\x00", "\x00\x00w", "%_", "'", "é" * 5000, "<script>"])
def test_odd_terms_find_nothing_and_break_nothing(client: Client, term: str) -> None:
    assert "worker-1" not in found(client, term)


def test_is_for_those_who_signed_in(fleet: Fleet) -> None:
    assert Client().get("/admin/search/", {"s": "worker"}).status_code == 302
