"""Who may verify, where to, and how often."""

import pytest
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from environments import limits
from environments.endpoints.hosts import AllowedHost
from environments.models import AuditEvent, LiteLLMConnection, Role, TemporalConnection
from tests.support import factories
from tests.support.console import everything, member, person, signed_in, url
from tests.support.factories import Fleet
from tests.support.gateways import Gateway
from tests.support.verifying import found, new_gateway, stored, text_of, verify, verify_typed

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


#: The fields of a gateway that a verification needs.
NEEDED = ("organization", "api_url")
#: In bytes that no refusal may be longer than.
SHORT = 2_000


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_others_than_administrators_see_what_there_is_but_cannot_verify(
    role: Role, fleet: Fleet, gateway: Gateway
) -> None:
    client = signed_in(member(fleet.organization, role))
    page = text_of(client.get(url(LiteLLMConnection, "change", fleet.litellm.pk)))
    assert stored(fleet.litellm).api_key_fingerprint in page
    assert "verify/" not in page
    form = new_gateway(fleet.organization, gateway)
    before = everything()
    for address in (
        url(LiteLLMConnection, "verify", fleet.litellm.pk),
        url(LiteLLMConnection, "verify_typed", fleet.litellm.pk),
        url(LiteLLMConnection, "verify_new"),
    ):
        assert client.post(address, form).status_code == 403, address
    assert gateway.connections == []
    assert everything() == before


def test_an_administrator_of_another_organization_finds_nothing(fleet: Fleet, gateway: Gateway) -> None:
    other = factories.create_organization("other")
    client = signed_in(member(other, Role.ADMINISTRATOR))
    for kind in ("", "_typed"):
        assert verify(client, fleet.litellm, kind, api_url=gateway.url).status_code == 404
    response = client.post(url(LiteLLMConnection, "verify_new"), new_gateway(fleet.organization, gateway))
    assert "Organization: Select a valid choice" in text_of(response)
    assert gateway.connections == []


def test_verify_is_refused_without_the_csrf_token(fleet: Fleet, gateway: Gateway) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person())
    assert verify(client, fleet.litellm).status_code == 403
    assert (
        client.post(url(LiteLLMConnection, "verify_new"), new_gateway(fleet.organization, gateway)).status_code == 403
    )
    assert gateway.connections == []


@pytest.mark.parametrize(
    "endpoint", ["http://169.254.169.254/latest", "http://[fd00:ec2::254]", "http://100.100.100.200", "http://10.0.0.1"]
)
def test_the_control_plane_does_not_connect_to_what_it_should_not(
    endpoint: str, fleet: Fleet, client: Client, gateway: Gateway
) -> None:
    form = new_gateway(fleet.organization, gateway, api_url=endpoint)
    told = text_of(client.post(url(LiteLLMConnection, "verify_new"), form))
    assert "The control plane never connects to" in told or "is not public" in told
    host = endpoint.removeprefix("http://").removesuffix("/latest")
    TemporalConnection.objects.update(host=f"{host}:80", is_tls_enabled=False)
    verify(client, fleet.temporal)
    assert found(fleet.temporal)[1] in told


def test_the_setting_names_where_to_connect_to(
    fleet: Fleet, client: Client, gateway: Gateway, settings: Settings
) -> None:
    settings.CONNECTION_HOSTS = (AllowedHost.parse("llm.example.com"),)
    verify(client, fleet.litellm)
    assert "CONNECTION_HOSTS does not name 127.0.0.1" in found(fleet.litellm)[1]
    settings.CONNECTION_HOSTS = (AllowedHost.parse(gateway.host),)
    verify(client, fleet.litellm)
    assert found(fleet.litellm) == (True, "")


def test_nobody_makes_the_control_plane_knock_without_end(
    fleet: Fleet, client: Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WINDOW_SECONDS", 1_000_000_000)  # the minute does not end within the test
    gateway.stop()
    for _ in range(30):
        assert verify(client, fleet.litellm).status_code == 302
    knocks = AuditEvent.objects.count()
    for response in (verify(client, fleet.litellm), verify_typed(client, fleet.litellm)):
        assert response.status_code == 429
        assert "try again in a minute" in response.content.decode()
    assert AuditEvent.objects.count() == knocks
    assert verify(signed_in(), fleet.litellm).status_code == 302
    cache.clear()


@pytest.mark.parametrize(
    "value", ["a\0b", "x" * 100_000, "9" * 400, "<script>", "http://a b", "http://\u202e", "http://[", "\n"]
)
def test_odd_values_are_explained(value: str, fleet: Fleet, client: Client, gateway: Gateway) -> None:
    new = new_gateway(fleet.organization, gateway)
    answers = [client.post(url(LiteLLMConnection, "verify_new"), {**new, name: value}) for name in NEEDED]
    answers.append(verify(client, fleet.temporal, "_typed", host=value, namespace="n", api_key="sk-typed"))
    for response in answers:
        assert "cp-problem" in text_of(response)
        assert len(response.content) < SHORT
    assert gateway.connections == []


@pytest.mark.parametrize("identifier", ["nosuch", "%00", "9" * 40, "00000000-0000-4000-8000-000000000000", "%0A"])
def test_an_id_of_nothing_is_not_found(identifier: str, fleet: Fleet, client: Client) -> None:
    for page in ("verify", "verify/typed"):
        assert client.post(f"{url(LiteLLMConnection, 'changelist')}{identifier}/{page}/").status_code == 404


def test_a_link_verifies_nothing(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    before = everything()
    for address in (
        url(LiteLLMConnection, "verify", fleet.litellm.pk),
        url(LiteLLMConnection, "verify_typed", fleet.litellm.pk),
        url(LiteLLMConnection, "verify_new"),
    ):
        response = client.get(address, new_gateway(fleet.organization, gateway, api_key="x"))
        assert response.status_code == 405
        assert "A link verifies nothing" in response.content.decode()
    assert everything() == before
    assert gateway.connections == []
