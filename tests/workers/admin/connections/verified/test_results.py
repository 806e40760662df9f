"""Verifying connections, stored and as typed, and what its result counts for."""

import time
from contextlib import ExitStack
from typing import Any

import pytest
from django.core import signing
from django.db import connection
from django.test import Client
from django.utils import timezone

from environments.connections.results import SALT
from environments.encryption import Secret
from environments.models import (
    AuditEvent,
    DataKey,
    LiteLLMConnection,
    Role,
    TelemetrySettings,
    TemporalConnection,
)
from environments.sealing.data_keys import seal_api_key
from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.console import everything, form_of, member, post_confirmed, signed_in, url
from tests.support.endpoints import KEY, Endpoint, answering
from tests.support.factories import Fleet
from tests.support.gateways import Gateway
from tests.support.verifying import found, new_gateway, stored, text_of, verify, verify_typed, with_gateway

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


def result_in(response: Any) -> str:
    return str(response.context["result"])


def messages_of(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def test_verify_really_connects_and_keeps_the_result(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    response = client.post(url(LiteLLMConnection, "verify", fleet.litellm.pk), follow=True)
    assert response.redirect_chain == [(url(LiteLLMConnection, "change", fleet.litellm.pk), 302)]
    assert "LiteLLM 1.80.5" in messages_of(response)
    assert gateway.shown == [KEY]
    row = stored(fleet.litellm)
    assert (row.verification_problem, row.verified_revision) == ("", row.endpoint_revision)
    assert 0 <= row.verification_latency_ms < 3_000
    assert f"{row.verification_latency_ms} ms" in text_of(response)
    event = AuditEvent.objects.get(action="litellm_connection.verified")
    assert (event.object_id, event.changes) == (str(row.pk), {"outcome": [None, "ok"]})
    assert event.actor == f"user:administrator-of-{fleet.organization.pk}"
    assert KEY not in str(everything())


def test_a_failing_verification_is_kept_shown_and_listed(fleet: Fleet, client: Client) -> None:
    seal_api_key(fleet.litellm, Secret("sk-wrong"), now=timezone.now())
    fleet.litellm.save()
    response = client.post(url(LiteLLMConnection, "verify", fleet.litellm.pk), follow=True)
    assert "Verification failed: The API key is not accepted (401)." in messages_of(response)
    assert found(fleet.litellm) == (True, "The API key is not accepted (401).")
    assert "The API key is not accepted" in text_of(client.get(url(LiteLLMConnection, "change", fleet.litellm.pk)))
    lists = {
        state: client.get(url(LiteLLMConnection, "changelist"), {"verified": state}).context["cl"].result_count
        for state in ("yes", "no", "never")
    }
    assert lists == {"yes": 0, "no": 1, "never": 0}
    event = AuditEvent.objects.get(action="litellm_connection.verified")
    assert event.changes == {"outcome": [None, "The API key is not accepted (401)."]}


def test_an_edit_of_the_endpoint_forgets_the_verification(fleet: Fleet, client: Client) -> None:
    verify(client, fleet.litellm)
    address = url(LiteLLMConnection, "change", fleet.litellm.pk)
    post_confirmed(client, address, {**form_of(client, address), "name": "renamed"})
    assert found(fleet.litellm) == (True, "")
    post_confirmed(client, address, {**form_of(client, address), "api_url": "http://127.0.0.1:1"})
    assert found(fleet.litellm) == (False, "")


def test_a_result_of_what_was_changed_meanwhile_is_not_kept(transactional_db: None, gateway: Gateway) -> None:
    """Nor does the verification hold a lock that the change would wait for."""
    fleet = with_gateway(fresh_fleet(), gateway)
    client = signed_in(member(fleet.organization, Role.ADMINISTRATOR))

    def change() -> None:
        LiteLLMConnection.objects.filter(pk=fleet.litellm.pk).update(api_url="http://127.0.0.1:1")
        connection.close()

    gateway.before_answer = change
    response = client.post(url(LiteLLMConnection, "verify", fleet.litellm.pk), follow=True)
    assert "somebody changed the connection meanwhile" in messages_of(response)
    assert found(fleet.litellm) == (False, "")


def test_a_temporal_connection_is_verified_too(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    gateway.stop()
    TemporalConnection.objects.update(host=gateway.host, is_tls_enabled=False)
    verify(client, fleet.temporal)
    assert found(fleet.temporal) == (True, f"Nothing listens at {gateway.host}.")


def test_telemetry_is_verified_as_stored_and_as_typed(fleet: Fleet, client: Client) -> None:
    with ExitStack() as stack:
        collector = Endpoint(answering("200 OK"))
        stack.callback(collector.stop)
        row = factories.create_telemetry(fleet.organization, otel_exporter_otlp_endpoint=f"http://{collector.host}")
        verify(client, row)
        assert found(row) == (True, "")
        data = {"organization": fleet.organization.pk, "otel_exporter_otlp_endpoint": f"http://{collector.host}"}
        response = client.post(url(TelemetrySettings, "verify_new"), data)
        assert "Takes traces by OTLP over HTTP." in text_of(response)
        typed = verify_typed(client, row, otel_exporter_otlp_endpoint="http://127.0.0.1:1")
        assert "Nothing listens at 127.0.0.1:1." in text_of(typed)
    assert found(row) == (True, "")


def test_a_key_that_does_not_open_is_an_error_and_not_a_result(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    sealed = stored(fleet.litellm).sealed_api_key
    LiteLLMConnection.objects.update(sealed_api_key=f"{sealed[:-4]}AAAA")
    for response in (verify(client, fleet.litellm), verify_typed(client, fleet.litellm)):
        assert response.status_code == 503
    assert gateway.shown == []
    assert found(fleet.litellm) == (False, "")


def test_what_is_typed_is_verified_before_and_stored_with_the_save(
    fleet: Fleet, client: Client, gateway: Gateway
) -> None:
    form = new_gateway(fleet.organization, gateway)
    before = LiteLLMConnection.objects.count()
    response = client.post(url(LiteLLMConnection, "verify_new"), form)
    assert "LiteLLM 1.80.5" in text_of(response)
    assert LiteLLMConnection.objects.count() == before
    assert AuditEvent.objects.get(action="litellm_connection.tried").changes == {
        "api_url": [None, gateway.url],
        "requires_api_key": [None, True],
        "outcome": [None, "ok"],
    }
    saved = client.post(url(LiteLLMConnection, "add"), {**form, "verification": result_in(response)})
    assert saved.status_code == 302
    row = LiteLLMConnection.objects.get(name="new")
    assert found(row) == (True, "")
    assert row.verified_revision == row.endpoint_revision
    assert AuditEvent.objects.filter(action="litellm_connection.verified", object_id=str(row.pk)).count() == 1
    assert gateway.shown == [KEY]
    assert KEY not in str(everything())


def test_the_first_connection_of_an_organization_is_verified_before_it_has_a_data_key(
    client: Client, gateway: Gateway
) -> None:
    organization = factories.create_organization("fresh")
    superuser = signed_in()
    form = new_gateway(organization, gateway)
    response = superuser.post(url(LiteLLMConnection, "verify_new"), form)
    assert not DataKey.objects.filter(organization=organization).exists()
    superuser.post(url(LiteLLMConnection, "add"), {**form, "verification": result_in(response)})
    assert found(LiteLLMConnection.objects.get(organization=organization)) == (True, "")


def test_only_the_fields_that_are_needed_have_to_be_filled_in(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    address = url(LiteLLMConnection, "verify_new")
    form = new_gateway(fleet.organization, gateway)
    assert "LiteLLM 1.80.5" in text_of(client.post(address, {**form, "name": ""}))
    for missing, problem in {
        "organization": "Organization: This field is required.",
        "api_url": "API URL: This field is required.",
        "api_key": "API key: Give the API key",
    }.items():
        assert problem in text_of(client.post(address, {**form, missing: ""}))
    assert len(gateway.shown) == 1


def test_a_failure_is_stored_with_the_save_too(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    form = new_gateway(fleet.organization, gateway, api_key="sk-wrong")
    response = client.post(url(LiteLLMConnection, "verify_new"), form)
    assert "The API key is not accepted (401)." in text_of(response)
    client.post(url(LiteLLMConnection, "add"), {**form, "verification": result_in(response)})
    assert found(LiteLLMConnection.objects.get(name="new")) == (True, "The API key is not accepted (401).")


def test_the_result_outlasts_the_question_whether_to_save(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    """As the API key does, which is typed only once."""
    seal_api_key(fleet.litellm, Secret("sk-old"), now=timezone.now())
    fleet.litellm.save()
    result = result_in(verify_typed(client, fleet.litellm, api_key=KEY))
    address = url(LiteLLMConnection, "change", fleet.litellm.pk)
    form = {**form_of(client, address), "api_key": KEY, "verification": result}
    asked = client.post(address, form)
    assert asked.context["mark"]
    assert found(fleet.litellm) == (False, "")
    assert not AuditEvent.objects.filter(action="litellm_connection.verified").exists()
    assert post_confirmed(client, address, form).status_code == 302
    assert found(fleet.litellm) == (True, "")
    assert gateway.shown == [KEY]


def test_an_unchanged_form_verifies_what_is_stored(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    response = verify_typed(client, fleet.litellm, name="renamed")
    assert "the result is stored" in text_of(response)
    assert "result" not in response.context
    assert gateway.shown == [KEY]
    assert found(fleet.litellm) == (True, "")
    assert stored(fleet.litellm).name == fleet.litellm.name


OTHER = "Type the API key to verify another endpoint"


def test_the_stored_key_leaves_for_the_stored_endpoint_only(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    assert OTHER in text_of(verify_typed(client, fleet.litellm, api_url=f"{gateway.url}/v1"))
    temporal = fleet.temporal
    for typed in ({"host": gateway.host}, {"namespace": "other"}, {"is_tls_enabled": ""}):
        assert OTHER in text_of(verify_typed(client, temporal, **typed)), typed
    assert gateway.connections == []
    verify_typed(client, fleet.litellm, api_url=f"{gateway.url}/v1", api_key="sk-typed")
    assert gateway.shown == ["sk-typed"]


def test_a_key_that_is_off_is_not_sent_by_turning_it_on(fleet: Fleet, client: Client, gateway: Gateway) -> None:
    LiteLLMConnection.objects.update(requires_api_key=False)
    assert OTHER in text_of(verify_typed(client, fleet.litellm, requires_api_key="on"))
    verify_typed(client, fleet.litellm, api_url=f"{gateway.url}/v1")
    assert gateway.shown == []
    assert len(gateway.connections) == 1


@pytest.fixture
def result(fleet: Fleet, client: Client, gateway: Gateway) -> str:
    """That the gateway takes the key."""
    return result_in(client.post(url(LiteLLMConnection, "verify_new"), new_gateway(fleet.organization, gateway)))


@pytest.mark.parametrize(
    "change",
    [
        {"api_key": "sk-other"},
        {"api_url": "http://127.0.0.1:1"},
        {"requires_api_key": ""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_result_does_not_count_for_something_else(
    fleet: Fleet, client: Client, gateway: Gateway, result: str, change: dict[str, str]
) -> None:
    form = new_gateway(fleet.organization, gateway, **change, verification=result)
    assert client.post(url(LiteLLMConnection, "add"), form).status_code == 302
    assert found(LiteLLMConnection.objects.get(name="new")) == (False, "")


def test_a_result_does_not_count_in_another_organization(
    fleet: Fleet, client: Client, gateway: Gateway, result: str
) -> None:
    other = factories.create_organization("other")
    member(other, Role.ADMINISTRATOR, f"administrator-of-{fleet.organization.pk}")
    assert (
        client.post(url(LiteLLMConnection, "add"), new_gateway(other, gateway, verification=result)).status_code == 302
    )
    assert found(LiteLLMConnection.objects.get(organization=other)) == (False, "")


def test_a_result_does_not_count_for_another_person_or_row(
    fleet: Fleet, client: Client, gateway: Gateway, result: str
) -> None:
    form = new_gateway(fleet.organization, gateway, verification=result)
    assert signed_in().post(url(LiteLLMConnection, "add"), form).status_code == 302
    assert found(LiteLLMConnection.objects.get(name="new")) == (False, "")
    address = url(LiteLLMConnection, "change", fleet.litellm.pk)
    post_confirmed(client, address, {**form_of(client, address), "api_key": KEY, "verification": result})
    assert found(fleet.litellm) == (False, "")


def odd_results(result: str) -> dict[str, str]:
    head, _, tail = result.partition(":")
    return {
        "empty": "",
        "nonsense": "ok",
        "NUL": "\0",
        "beyond ASCII": "ü:ü:ü",
        "long": "x" * 100_000,
        "tampered": f"{head[:-2]}AA:{tail}",
        "cut off": result[:-1],
        "signed for something else": signing.dumps(signing.loads(result, salt=SALT), salt="sessions"),
    }


def test_an_odd_result_is_ignored(fleet: Fleet, client: Client, gateway: Gateway, result: str) -> None:
    for number, (name, odd) in enumerate(odd_results(result).items()):
        form = new_gateway(fleet.organization, gateway, name=f"new-{number}", verification=odd)
        assert client.post(url(LiteLLMConnection, "add"), form).status_code == 302, name
        assert found(LiteLLMConnection.objects.get(name=f"new-{number}")) == (False, ""), name


def test_a_result_expires(
    fleet: Fleet, client: Client, gateway: Gateway, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("django.core.signing.time.time", lambda: now + 601)
    client.post(url(LiteLLMConnection, "add"), new_gateway(fleet.organization, gateway, verification=result))
    assert found(LiteLLMConnection.objects.get(name="new")) == (False, "")
