"""What cannot work is refused by each door, in the same sentence; what can is taken: forms, `apply`, `loaddata`, settings."""

import json
from itertools import batched
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.core import serializers
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import RequestFactory

from controlplane.startup import env
from environments.models import Connection, LiteLLMConnection, Organization, TelemetrySettings, TemporalConnection
from tests.support import entries, factories
from tests.support.console import person
from tests.support.documents import apply
from tests.support.entries import FIELDS
from workers.api.serializers.workers import http_url
from workers.fleet import FleetError

GOOD: dict[str, dict[str, Any]] = {
    "TemporalConnection": {"host": "temporal:7233", "namespace": "default"},
    "LiteLLMConnection": {"api_url": "http://litellm:4000"},
    "TelemetrySettings": {},
}
LISTS = {
    "TemporalConnection": "temporal_connections",
    "LiteLLMConnection": "litellm_connections",
    "TelemetrySettings": "all_telemetry_settings",
}
each_field = pytest.mark.parametrize(("kind", "field", "taken", "refused"), FIELDS)
each_kind_with_a_key = pytest.mark.parametrize("kind", ["TemporalConnection", "LiteLLMConnection"])
pytestmark = pytest.mark.django_db


def model_of(kind: str) -> Any:
    return apps.get_model("environments", kind)


# --- Forms -------------------------------------------------------------------------------------------------------------


def errors_of_form(kind: str, **typed: str) -> dict[str, list[str]]:
    """What the console's form of a new connection says."""
    request = RequestFactory().post("/")
    request.user = person(is_staff=True, is_superuser=True)
    request.session = {}  # type: ignore[assignment]
    form = admin.site._registry[model_of(kind)].get_form(request)({"name": "c", **GOOD[kind], **typed})
    return dict(form.errors)


@each_field
def test_a_form_tells(kind: str, field: str, taken: tuple[str, ...], refused: dict[str, str]) -> None:
    for text in taken:
        assert (text, errors_of_form(kind, **{field: text}).get(field)) == (text, None)
    for text, sentence in refused.items():
        if text == text.strip() and text:  # the form takes blanks at the ends off by itself
            assert (text, errors_of_form(kind, **{field: text}).get(field)) == (text, [sentence])


@each_kind_with_a_key
def test_a_form_tells_of_a_secret(kind: str) -> None:
    for secret in entries.SECRETS:
        assert (secret, errors_of_form(kind, api_key=secret).get("api_key")) == (secret, None)
    for secret, sentence in entries.NO_SECRETS.items():
        assert (secret, errors_of_form(kind, api_key=secret).get("api_key")) == (secret, [sentence])
    assert errors_of_form(kind, api_key="a\0b")["api_key"]


# --- apply -------------------------------------------------------------------------------------------------------------


def document(kind: str, rows: list[dict[str, Any]]) -> str:
    """One connection in each line from the fifth on; JSON is YAML."""
    lines = [json.dumps({"name": f"c{number}", **GOOD[kind], **row}) for number, row in enumerate(rows)]
    return "organizations:\n- id: acme\n  name: Acme\n  " + LISTS[kind] + ":\n" + "".join(f"  - {x}\n" for x in lines)


def keyless(kind: str) -> dict[str, Any]:
    return {} if kind == "TelemetrySettings" else {"requires_api_key": False}


@each_field
def test_apply_tells(kind: str, field: str, taken: tuple[str, ...], refused: dict[str, str]) -> None:
    apply(document(kind, [{**keyless(kind), field: text} for text in taken]))
    assert set(model_of(kind).objects.values_list(field, flat=True)) == set(taken)
    for texts in batched(filter(None, refused), 40):  # more are counted only
        with pytest.raises(FleetError) as caught:
            apply(document(kind, [{**keyless(kind), field: text} for text in texts]))
        told = [line.partition(f"].{field}: ")[2] for line in str(caught.value).splitlines()]
        assert told == [refused[text] for text in texts]


@each_kind_with_a_key
def test_apply_tells_of_a_secret(kind: str) -> None:
    text = document(kind, [{"api_key": {"env": "KEY"}}])
    for secret in entries.SECRETS:
        apply(text, environ={"KEY": secret})
    for secret, sentence in entries.NO_SECRETS.items():
        if not secret.endswith("\r"):  # one line's end is no part of a secret
            with pytest.raises(FleetError, match="api_key: ") as caught:
                apply(text, environ={"KEY": secret})
            assert (secret, str(caught.value).partition("api_key: ")[2]) == (secret, sentence)


# --- loaddata ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def connections() -> dict[str, Connection]:
    organization = factories.create_fleet().organization
    factories.create_telemetry(organization)
    found = [TemporalConnection, LiteLLMConnection, TelemetrySettings]
    return {model.__name__: model.objects.get(organization=organization) for model in found}


def load(directory: Path, row: Connection, **fields: str) -> None:
    dumped = json.loads(serializers.serialize("json", [row]))
    dumped[0]["fields"] |= fields
    (directory / "dump.json").write_text(json.dumps(dumped))
    call_command("loaddata", directory / "dump.json", verbosity=0)


@each_field
def test_loaddata_tells(  # noqa: PLR0913, PLR0917  # as in the tables
    tmp_path: Path, connections: dict[str, Any], kind: str, field: str, taken: tuple[str, ...], refused: dict[str, str]
) -> None:
    row = connections[kind]
    for text, sentence in refused.items():
        if text:
            with pytest.raises(CommandError) as caught:
                load(tmp_path, row, **{field: text})
            label = f"{row._meta.label} {row.pk} cannot work, so nothing was loaded. {field}: {sentence}"
            assert (text, str(caught.value)) == (text, label)
    assert getattr(type(row).objects.get(), field) == getattr(row, field)
    for text in taken:
        load(tmp_path, row, **{field: text})
        assert getattr(type(row).objects.get(), field) == text


def test_loaddata_takes_what_lacks_its_organization_still(tmp_path: Path, connections: dict[str, Connection]) -> None:
    row = connections["TelemetrySettings"]
    rows = [row, Organization(id="later", name="Later")]
    row.organization_id = "later"
    (tmp_path / "dump.json").write_text(serializers.serialize("json", rows))
    call_command("loaddata", tmp_path / "dump.json", verbosity=0)
    assert TelemetrySettings.objects.get().organization_id == "later"


# --- Settings ----------------------------------------------------------------------------------------------------------


def refusal_of(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> str:
    """What stops the boot; "" for nothing."""
    monkeypatch.setenv(name, text)
    monkeypatch.setenv("OIDC_CLIENT_ID", "cp")
    monkeypatch.setenv("OIDC_CLIENT_SECRET", "x" * 20)
    read: dict[str, Any] = {
        "CONNECTION_HOSTS": lambda: env.connection_hosts(name),
        "OIDC_SERVER_URL": env.openid_connect,
        "OTEL_EXPORTER_OTLP_ENDPOINT": env.trace_endpoint,
        "CONTROL_PLANE_URL": lambda: env.control_plane_url(""),
    }
    try:
        read[name]()
    except ImproperlyConfigured as error:
        return str(error)
    return ""


#: What the setting of hosts reads in another way: addresses without brackets, domains, networks.
NO_CONNECTION_HOSTS = entries.NO_TARGETS | {
    **dict.fromkeys(entries.UNREACHED, ""),
    "::1": "",
    "2001:db8::1": "",
    "*.example.com:7233": "",
    "temporal:7233:7234": entries.NAME,
    "user:password@temporal:7233": entries.NAME,
    "temporal/path": "'temporal/path' does not appear to be an IPv4 or IPv6 network.",
}
#: Each of these settings is a whole host's, or called by a client that knows of the dot.
NO_DOT_RULE = {text: sentence for text, sentence in entries.NO_URLS.items() if sentence != entries.DOT}


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("CONNECTION_HOSTS", entries.TARGETS, NO_CONNECTION_HOSTS),
        ("OIDC_SERVER_URL", [url for url in entries.URLS if url.lower().startswith("https:")], NO_DOT_RULE),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", entries.OTLP, entries.NO_OTLP),
        ("CONTROL_PLANE_URL", ["https://cp.example.com.", "https://[::1]:8443"], NO_DOT_RULE),
    ],
)
def test_a_setting_stops_the_boot(
    monkeypatch: pytest.MonkeyPatch, name: str, taken: list[str], refused: dict[str, str]
) -> None:
    for text in taken:
        assert (text, refusal_of(monkeypatch, name, text)) == (text, "")
    for text, sentence in ((text, sentence) for text, sentence in refused.items() if text):
        told = refusal_of(monkeypatch, name, text)
        # Before any rule of its own, each setting is a line of what can be seen.
        is_told = told.endswith(sentence) or "not printable" in told or "more than one line" in told
        assert (text, is_told, bool(told)) == (text, True, bool(sentence))
        assert "password" not in told or sentence == entries.USER


# --- The worker's own URL ----------------------------------------------------------------------------------------------


def test_the_url_that_a_worker_tells_is_taken_or_ignored() -> None:
    for text in entries.URLS:
        assert http_url(text) == text.rstrip("/")
    for text, sentence in entries.NO_URLS.items():
        assert (text, http_url(text)) == (text, text if sentence == entries.DOT else None)
    assert http_url(f"http://a/{'x' * 600}") is None
