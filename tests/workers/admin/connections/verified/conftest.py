"""A fleet with a gateway of its own."""

from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from environments.models import Role
from tests.support.calls import fresh_fleet
from tests.support.console import member, signed_in
from tests.support.endpoints import KEY
from tests.support.factories import Fleet
from tests.support.gateways import Gateway
from tests.support.verifying import with_gateway


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    yield server
    server.stop()


@pytest.fixture
def fleet(db: None, gateway: Gateway, settings: Settings) -> Fleet:
    """A fleet whose LiteLLM is the gateway."""
    settings.CONNECTION_HOSTS = ()
    return with_gateway(fresh_fleet(), gateway)


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(member(fleet.organization, Role.ADMINISTRATOR))


@pytest.fixture(autouse=True)
def no_page_has_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks for it in every answer of the console that a test gets."""
    request = Client.request

    def checked(self: Client, **kwargs: Any) -> Any:
        response = request(self, **kwargs)
        told = unescape(response.content.decode()) + str(response.headers)
        assert KEY not in told or not kwargs["PATH_INFO"].startswith("/admin/")
        return response

    monkeypatch.setattr(Client, "request", checked)
