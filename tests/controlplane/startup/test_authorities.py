import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from django.core.exceptions import ImproperlyConfigured

from controlplane.startup.authorities import trust_named_authorities
from tests.support.endpoints import Authority, Endpoint, answering

pytestmark = pytest.mark.once


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Endpoint, Path]]:
    """A server whose authority is in a file."""
    authority = Authority(tmp_path)
    endpoint = Endpoint(answering("200 OK", "Content-Length: 0"), tls=authority.context_for("127.0.0.1"))
    yield endpoint, authority.certificate
    endpoint.stop()


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, "")  # to be put back
        monkeypatch.delenv(name)


def test_single_sign_on_trusts_the_named_authority_too(
    server: tuple[Endpoint, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, file = server
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{endpoint.host}", timeout=10)
    monkeypatch.setenv("SSL_CERT_FILE", f'"{file}"')
    trust_named_authorities()
    assert requests.get(f"https://{endpoint.host}", timeout=10).status_code == 200
    assert os.environ["SSL_CERT_FILE"] == str(file)


def test_a_bundle_of_its_own_for_single_sign_on_is_kept(
    server: tuple[Endpoint, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/own.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(server[1]))
    trust_named_authorities()
    assert os.environ["REQUESTS_CA_BUNDLE"] == "/etc/own.pem"


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_file_without_certificates_stops_the_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ImproperlyConfigured) as caught:
        trust_named_authorities()
    assert str(caught.value) == f"SSL_CERT_FILE: {file} cannot be read, or has no certificates in PEM."


def test_without_the_variable_nothing_is_set() -> None:
    trust_named_authorities()
    assert "REQUESTS_CA_BUNDLE" not in os.environ
