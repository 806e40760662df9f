"""Reads the pages of API keys."""

from html import unescape
from typing import Any

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from environments.models import Role
from tests.support.console import member, signed_in
from tests.support.factories import Fleet


def member_of(fleet: Fleet, role: Role) -> Client:
    return signed_in(member(fleet.organization, role, role.value))


def url(page: str, *arguments: Any, **query: Any) -> str:
    return reverse(f"admin:workers_apikey_{page}", args=arguments, query=query or None)


def page(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, (address, response.status_code)
    return unescape(response.content.decode())


def listed(client: Client, **query: str) -> set[str]:
    response = client.get(url("changelist", **query))
    assert response.status_code == 200
    return {row.name for row in response.context["cl"].result_list}


def statements(client: Client, address: str) -> int:
    client.get(address)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len(captured)
