"""Connections in the console: who may verify them, where a secret may go, what is kept of a verification, who runs on what.

LiteLLM is a server on this machine that knows one key; nothing of the verification is replaced.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.core import signing
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from environments import limits
from environments.connections.results import SALT
from environments.encryption import Secret
from environments.endpoints.hosts import AllowedHost
from environments.models import (
    AuditEvent,
    DataKey,
    LiteLLMConnection,
    Organization,
    Role,
    TelemetrySettings,
    TemporalConnection,
)
from environments.sealing.data_keys import seal_api_key
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import errors_of, everything, form_of, member, person, post_confirmed, signed_in, url
from tests.support.endpoints import KEY, Endpoint, answering
from tests.support.factories import Fleet
from tests.support.gateways import Gateway
from workers.admin.connections.context import travels_openly
from workers.models import Worker, WorkerInstance

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")
#: The fields of a gateway that a verification needs.
NEEDED = ("organization", "api_url")
#: In bytes that no refusal may be longer than.
SHORT = 2_000


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


def with_gateway(fleet: Fleet, gateway: Gateway) -> Fleet:
    fleet.litellm.api_url = gateway.url
    seal_api_key(fleet.litellm, Secret(KEY), now=timezone.now())
    fleet.litellm.save()
    person(is_staff=True, is_superuser=True)
    return fleet


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


def result_in(response: Any) -> str:
    return str(response.context["result"])


def messages_of(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def stored(row: Any) -> Any:
    return type(row).objects.get(pk=row.pk)


def found(row: Any) -> tuple[bool, str]:
    """Whether the stored row is verified, and the problem."""
    row = stored(row)
    return row.verified_at is not None, row.verification_problem


# --- A stored connection ---------------------------------------------------------------------------------------------------


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


# --- Before it is saved ----------------------------------------------------------------------------------------------------


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


# --- A result is of what was verified, and of nothing else -------------------------------------------------------------------


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


# --- Who may, and where to -------------------------------------------------------------------------------------------------


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


# --- Odd input ---------------------------------------------------------------------------------------------------------------


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


# --- The page and the list ---------------------------------------------------------------------------------------------------


def page_of(client: Client, row: Any) -> str:
    return text_of(client.get(url(type(row), "change", row.pk)))


@pytest.mark.parametrize(
    ("days", "badge"), [(None, "not known"), (31, ""), (30, "in 30 days"), (0, "today"), (-1, "expired")]
)
def test_the_expiry_of_the_key_is_told(days: int | None, badge: str, fleet: Fleet, client: Client) -> None:
    day = None if days is None else timezone.now().date() + timedelta(days=days)
    LiteLLMConnection.objects.update(api_key_expires_on=day)
    page = page_of(client, fleet.litellm)
    assert badge in page
    assert ("cp-badge-warning" in page, "cp-badge-danger" in page) == (badge[:2] == "in", badge in {"today", "expired"})
    listed = client.get(url(LiteLLMConnection, "changelist"), {"expires": "soon"}).context["cl"].result_count
    assert listed == (days is not None and days <= 30)


@pytest.mark.parametrize(
    ("api_url", "is_open"),
    [
        ("https://llm.example.com", False),
        ("http://llm.example.com", True),
        ("http://litellm:4000", True),
        ("http://10.0.0.1:4000", True),
        ("http://127.0.0.1:4000", False),
        ("http://[::1]:4000", False),
        ("http://localhost:4000", False),
    ],
)
def test_a_key_travels_openly_without_tls_unless_it_stays_on_the_machine(api_url: str, is_open: bool) -> None:
    assert travels_openly(LiteLLMConnection(api_url=api_url)) is is_open
    host = api_url.rpartition("/")[2]
    assert travels_openly(TemporalConnection(host=host, is_tls_enabled=False)) is (is_open or "llm.e" in host)
    assert not travels_openly(TemporalConnection(host=host, is_tls_enabled=True))
    assert not travels_openly(LiteLLMConnection(api_url=api_url, requires_api_key=False))


def test_a_key_that_travels_openly_is_warned_of(fleet: Fleet, client: Client) -> None:
    assert "in plain text" not in page_of(client, fleet.litellm)
    LiteLLMConnection.objects.update(api_url="http://llm.example.com")
    assert "in plain text" in page_of(client, fleet.litellm)


def test_the_page_tells_who_uses_it_as_far_as_fits(
    fleet: Fleet, client: Client, django_assert_num_queries: Any
) -> None:
    temporal = fleet.temporal
    factories.point(fleet.environment, temporal_connection=temporal)
    for number in range(25):
        factories.create_worker(fleet.queue, f"pointing-{number}", temporal_connection=temporal)
    address = url(TemporalConnection, "change", temporal.pk)
    client.get(address)  # Django keeps what content types there are
    with django_assert_num_queries(13):
        page = client.get(address)
    users = {each.level: (len(each.links), each.count) for each in page.context["users"]}
    assert users == {"organization": (1, 1), "environment": (1, 1), "workers": (20, 25)}
    assert "and 5 more" in text_of(page)
    unused = factories.create_temporal(fleet.organization, "unused")
    assert "no worker is given it" in page_of(client, unused)


def test_the_list_takes_the_same_statements_for_any_number_of_rows(
    fleet: Fleet, client: Client, django_assert_num_queries: Any
) -> None:
    for number in range(20):
        factories.create_litellm(fleet.organization, f"gateway-{number}")
    with django_assert_num_queries(5):
        page = text_of(client.get(url(LiteLLMConnection, "changelist")))
    assert stored(fleet.litellm).api_key_fingerprint in page
    assert KEY not in page


# --- Rotation ----------------------------------------------------------------------------------------------------------------


def boot(fleet: Fleet, worker: Worker) -> None:
    WorkerInstance.objects.filter(worker=worker).update(stopped_at=timezone.now())
    assert start(fleet, token=factories.issue_token(worker), worker_id=worker.pk).status_code == 200


def replace_key(client: Client, row: Any, api_key: str) -> None:
    address = url(type(row), "change", row.pk)
    assert post_confirmed(client, address, {**form_of(client, address), "api_key": api_key}).status_code == 302


def workers_on(client: Client, row: Any, version: Any) -> set[str]:
    response = client.get(url(Worker, "changelist"), {"runs_on": f"{row.pk}:{version}"})
    assert response.status_code == 200
    return {worker.name for worker in response.context["cl"].result_list}


@pytest.mark.parametrize("kind", ["temporal", "litellm"])
def test_the_page_tells_when_the_old_key_can_be_retired(kind: str, fleet: Fleet, client: Client) -> None:
    row = getattr(fleet, kind)
    if kind == "temporal":
        TemporalConnection.objects.filter(pk=row.pk).update(host="temporal.example.com:7233")
    second = factories.create_worker(fleet.queue, "worker-2")
    for worker in (fleet.worker, second):
        boot(fleet, worker)
    old = stored(row).api_key_version
    replace_key(client, row, "sk-new")
    page = page_of(client, row)
    assert f"2 live workers still run on version {old}: restart them" in page
    assert workers_on(client, row, old) == {"worker-1", "worker-2"}
    assert f"?runs_on={row.pk}%3A{old}" in page

    boot(fleet, second)
    assert f"1 live worker still runs on version {old}: restart it" in page_of(client, row)
    assert (workers_on(client, row, old), workers_on(client, row, old + 1)) == ({"worker-1"}, {"worker-2"})

    boot(fleet, fleet.worker)
    assert f"Version {old} can be retired: no live worker runs on it." in page_of(client, row)
    assert workers_on(client, row, old) == set()


def test_the_list_of_who_runs_on_a_key_is_the_reader_s_own(fleet: Fleet, client: Client) -> None:
    boot(fleet, fleet.worker)
    version = stored(fleet.litellm).api_key_version
    assert workers_on(client, fleet.litellm, version) == {"worker-1"}
    stranger = signed_in(member(factories.create_organization("other"), Role.VIEWER))
    assert workers_on(stranger, fleet.litellm, version) == set()


@pytest.mark.parametrize(
    "value",
    ["", ":", "nosuch:1", "\0", "{pk}", "{pk}:", "{pk}:x", "{pk}:-1", "{pk}:9999999999999", "{pk}:１", "x" * 8_000],
)
def test_an_odd_filter_by_version_finds_nothing(value: str, fleet: Fleet, client: Client) -> None:
    boot(fleet, fleet.worker)
    asked = value.format(pk=fleet.litellm.pk)
    response = client.get(url(Worker, "changelist"), {"runs_on": asked})
    assert response.status_code == 200
    assert response.context["cl"].result_count == (0 if value else 1)


def test_the_form_shows_no_key_again(fleet: Fleet, client: Client) -> None:
    address = url(LiteLLMConnection, "change", fleet.litellm.pk)
    response = client.post(address, {**form_of(client, address), "name": "not a slug", "api_key": KEY})
    assert errors_of(response)
