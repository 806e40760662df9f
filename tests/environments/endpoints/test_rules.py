import asyncio
import http.client
import os
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st
from pytest_django import Settings
from temporalio.service import ConnectConfig, ServiceClient

from environments.connections.verification import Verification, verify_litellm, verify_telemetry
from environments.connections.verification.temporal import verify_temporal
from environments.encryption import Secret
from environments.endpoints.hosts import UnusableError
from environments.endpoints.rules import (
    check_label,
    check_secret,
    read_gateway_url,
    read_otlp_endpoint,
    read_service_url,
    read_target,
    read_url,
)
from environments.models import LiteLLMConnection, TelemetrySettings, TemporalConnection
from tests.support import entries

pytestmark = pytest.mark.once


def target(text: str) -> Any:
    return read_target(text, is_tls=True)


RULES: list[tuple[Callable[[str], Any], tuple[str, ...], dict[str, str]]] = [
    (target, entries.TARGETS, entries.NO_TARGETS),
    (read_service_url, entries.URLS, entries.NO_URLS),
    (read_gateway_url, entries.GATEWAYS, entries.NO_GATEWAYS),
    (read_otlp_endpoint, entries.OTLP, entries.NO_OTLP),
    (check_label, entries.LABELS, {**entries.NO_LABELS, " ns": entries.UNSEEN, "ns ": entries.UNSEEN}),
    (check_secret, entries.SECRETS, entries.NO_SECRETS),
]


@pytest.mark.parametrize(("rule", "taken", "refused"), RULES)
def test_takes_what_can_work(rule: Callable[[str], Any], taken: tuple[str, ...], refused: dict[str, str]) -> None:
    for text in taken:
        rule(text)


@pytest.mark.parametrize(("rule", "taken", "refused"), RULES)
def test_refuses_what_cannot_work_in_a_sentence(
    rule: Callable[[str], Any], taken: tuple[str, ...], refused: dict[str, str]
) -> None:
    for text, sentence in refused.items():
        with pytest.raises(UnusableError) as caught:
            rule(text)
        assert (text, str(caught.value)) == (text, sentence)


def test_a_url_of_a_host_alone_may_have_a_dot_after_the_name_in_tls_too() -> None:
    assert str(read_url("https://controlplane.example.com.").host) == "controlplane.example.com"


# --- What is taken is what clients understand ------------------------------------------------------------------------

HOST = st.sampled_from([host.rpartition(":")[0] or host for host in entries.HOSTS]) | st.text(
    "aZ0-_.[]:%é x", max_size=9
)
PORT = st.sampled_from(["", ":", ":0", ":80", ":0080", ":65535", ":65536", ":99999", ":x", ":1:2"])
PATH = st.text("/av1.%2?#\\@ \t~:'\"é", max_size=9)
SCHEME = st.sampled_from(["http://", "HTTPS://", "ftp://", "http:", "//", ""])
TARGET = st.tuples(HOST, PORT).map("".join)
URL = st.tuples(SCHEME, HOST, PORT, PATH).map("".join)


def is_taken(rule: Callable[[str], Any], text: str) -> bool:
    try:
        rule(text)
    except UnusableError:
        return False
    return True


@given(url=URL)
@example("http://lite_llm:4000/v1")
@example("https://[::1]:4000")
def test_every_url_that_is_taken_is_read_alike_by_the_clients(url: str) -> None:
    if not is_taken(read_service_url, url):
        return
    found, called = read_service_url(url), f"{url.rstrip('/')}/v1/models"
    connection = http.client.HTTPConnection(urllib.request.Request(called).host)  # noqa: S310  # opens nothing
    assert (urlsplit(called).port or found.port) == found.port
    assert connection.port in {found.port, 80}  # no TLS here, so the default is that of HTTP
    prepared = requests.Request("GET", called).prepare()
    assert prepared.url is not None
    assert urlsplit(prepared.url).hostname == urlsplit(url).hostname
    assert urlsplit(prepared.url).path.endswith("/v1/models")
    assert str(connection.host).encode("idna")  # as it is looked up


@given(text=TARGET)
@example("temporal_frontend:7233")
def test_every_target_that_is_taken_is_read_alike_by_the_clients(text: str) -> None:
    if is_taken(target, text):
        parts = urlsplit(f"https://{text}")
        host, port = target(text)
        assert (parts.port or 443, parts.path, parts.query) == (port, "", "")
        prepared = requests.Request("GET", f"https://{text}").prepare()
        assert prepared.url is not None
        assert prepared.url.rstrip("/").lower() == f"https://{text.lower()}"
        assert str(host).encode("idna")


@given(text=st.text(max_size=12) | st.text("sk- \n\r\t\0é\x7f", max_size=6))
def test_every_secret_that_is_taken_can_be_carried(text: str) -> None:
    if not is_taken(check_secret, text):
        return
    connection = http.client.HTTPConnection("127.0.0.1")
    connection.putrequest("GET", "/")  # sends nothing yet
    connection.putheader("Authorization", f"Bearer {text}")
    assert requests.Request("GET", "http://llm", headers={"Authorization": f"Bearer {text}"}).prepare()
    assert os.fsdecode(os.fsencode(text)) == text
    assert "\0" not in text
    assert text.encode("ascii").decode() == text.strip()  # as gRPC and httpx have it


def test_temporals_client_takes_the_secrets() -> None:
    async def connect(api_key: str) -> None:
        await ServiceClient.connect(ConnectConfig("127.0.0.1:1", api_key=api_key, lazy=True))

    for secret in entries.SECRETS:
        asyncio.run(connect(secret))


# --- What Verify calls impossible is refused -------------------------------------------------------------------------


def away(name: str) -> list[str]:
    raise OSError(name)


def as_temporal(text: str) -> Verification:
    return verify_temporal(TemporalConnection(host=text, namespace="n"), Secret("k"), resolve=away)


def as_litellm(text: str) -> Verification:
    return verify_litellm(LiteLLMConnection(api_url=text), Secret("k"), resolve=away)


def as_telemetry(text: str) -> Verification:
    return verify_telemetry(TelemetrySettings(otel_exporter_otlp_endpoint=text), resolve=away)


@pytest.mark.parametrize(
    ("verified", "refused"),
    [(as_temporal, entries.NO_TARGETS), (as_litellm, entries.NO_GATEWAYS), (as_telemetry, entries.NO_OTLP)],
)
def test_verify_says_the_same(verified: Callable[[str], Verification], refused: dict[str, str]) -> None:
    for text, sentence in refused.items():
        if text:
            assert (text, verified(text).problem) == (text, sentence)


def test_verify_says_the_same_of_a_secret(settings: Settings) -> None:
    for secret, sentence in entries.NO_SECRETS.items():
        found = verify_litellm(LiteLLMConnection(api_url="http://127.0.0.1:1"), Secret(secret))
        assert (secret, found.problem) == (secret, f"The API key cannot be used. {sentence}")


@given(text=TARGET | URL)
def test_what_is_taken_is_only_looked_up_or_guarded_against(text: str) -> None:
    for rule, verified in ((target, as_temporal), (read_service_url, as_litellm), (read_otlp_endpoint, as_telemetry)):
        if is_taken(rule, text):
            problem = verified(text).problem
            assert any(
                words in problem for words in ("cannot be resolved", "never connects", "CONNECTION_HOSTS", "Nothing")
            )
