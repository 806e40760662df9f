"""Presses Verify, and reads what came of it."""

from html import unescape
from typing import Any

from django.test import Client
from django.utils import timezone

from environments.encryption import Secret
from environments.models import Organization
from environments.sealing.data_keys import seal_api_key
from tests.support.console import form_of, person, url
from tests.support.endpoints import KEY
from tests.support.factories import Fleet
from tests.support.gateways import Gateway


def with_gateway(fleet: Fleet, gateway: Gateway) -> Fleet:
    fleet.litellm.api_url = gateway.url
    seal_api_key(fleet.litellm, Secret(KEY), now=timezone.now())
    fleet.litellm.save()
    person(is_staff=True, is_superuser=True)
    return fleet


def verify(client: Client, row: Any, kind: str = "", **typed: Any) -> Any:
    return client.post(url(type(row), f"verify{kind}", row.pk), typed)


def verify_typed(client: Client, row: Any, **typed: Any) -> Any:
    """What the script of the row's page sends when this is typed into its form."""
    return verify(client, row, "_typed", **{**form_of(client, url(type(row), "change", row.pk)), **typed})


def new_gateway(organization: Organization, gateway: Gateway, **typed: Any) -> dict[str, Any]:
    """The form of a new connection to the gateway."""
    form = {"organization": organization.pk, "name": "new", "api_url": gateway.url, "requires_api_key": "on"}
    return {**form, "api_key": KEY, **typed}


def text_of(response: Any) -> str:
    assert response.status_code == 200, response.content[:300]
    return " ".join(unescape(response.content.decode()).split())


def stored(row: Any) -> Any:
    return type(row).objects.get(pk=row.pk)


def found(row: Any) -> tuple[bool, str]:
    """Whether the stored row is verified, and the problem."""
    row = stored(row)
    return row.verified_at is not None, row.verification_problem
