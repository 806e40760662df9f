"""A key's role in the console: chosen when it is issued, shown, and given by nobody who has less."""

from typing import Any

import pytest
from django.test import Client

from environments.models import Role
from tests.support import factories
from tests.support.console import everything
from tests.support.factories import Fleet
from tests.support.key_pages import listed, member_of, page, url
from workers.models import ApiKey, KeyRole

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


def asked(fleet: Fleet, scope: str, role: str = "manager") -> dict[str, Any]:
    return {"name": "terraform", "days": 9, "scope": scope, scope: getattr(fleet, scope).pk, "role": role}


@pytest.mark.parametrize(("role", "shown"), [("worker", "Worker: runs"), ("manager", "Manager: also")])
def test_the_role_is_chosen_and_shown(client: Client, fleet: Fleet, role: str, shown: str) -> None:
    answer = client.post(url("add"), asked(fleet, "environment", role)).content.decode()
    key = ApiKey.objects.get(name="terraform")
    assert key.role == role
    assert f"role {role}" in answer
    assert shown in page(client, url("change", key.pk))
    assert f"{role}'s" in page(client, url("revoke", key.pk))
    assert listed(client, role=role) == ({"terraform", "key"} if role == "worker" else {"terraform"})


def test_a_key_is_a_workers_where_nobody_chooses(client: Client, fleet: Fleet) -> None:
    client.post(url("add"), {name: value for name, value in asked(fleet, "queue").items() if name != "role"})
    assert ApiKey.objects.get(name="terraform").role == KeyRole.WORKER


def test_a_workers_own_key_manages_nothing(client: Client, fleet: Fleet) -> None:
    before = everything()
    assert "nothing in it" in client.post(url("add"), asked(fleet, "worker")).content.decode()
    assert "Select a valid choice" in client.post(url("add"), asked(fleet, "queue", "owner")).content.decode()
    assert everything() == before


def test_the_question_for_a_whole_organization_says_that_it_manages(client: Client, fleet: Fleet) -> None:
    assert 'id="manager"' in client.post(url("add"), asked(fleet, "organization")).content.decode()
    assert 'id="manager"' not in client.post(url("add"), asked(fleet, "organization", "worker")).content.decode()
    confirmed = asked(fleet, "organization") | {"_confirmed": fleet.organization.pk}
    assert 'id="api-key"' in client.post(url("add"), confirmed).content.decode()
    assert ApiKey.objects.get(name="terraform").role == KeyRole.MANAGER


def test_an_operator_hands_out_no_more_than_an_operator_may(fleet: Fleet) -> None:
    """Operators change queues, but no environments."""
    operator = member_of(fleet, Role.OPERATOR)
    before = everything()
    for scope in ("organization", "environment"):
        assert operator.post(url("add"), asked(fleet, scope)).status_code == 403
    assert everything() == before
    assert 'id="api-key"' in operator.post(url("add"), asked(fleet, "queue")).content.decode()
    own, wider = ApiKey.objects.get(name="terraform"), factories.issue_key(fleet.environment, role=KeyRole.MANAGER).row
    before = everything()
    assert operator.get(url("rotate", wider.pk)).status_code == 403
    assert operator.post(url("rotate", wider.pk), {"grace_hours": 1}).status_code == 403
    assert everything() == before
    assert url("rotate", wider.pk) not in page(operator, url("change", wider.pk))
    assert url("rotate", own.pk) in page(operator, url("change", own.pk))
    administrator = member_of(fleet, Role.ADMINISTRATOR)
    assert url("rotate", wider.pk) in page(administrator, url("change", wider.pk))
    answer = administrator.post(url("rotate", wider.pk), {"grace_hours": 1})
    assert 'id="api-key"' in answer.content.decode()
    wider.refresh_from_db()
    assert wider.replaced_by is not None
    assert wider.replaced_by.role == KeyRole.MANAGER
