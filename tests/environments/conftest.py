"""Fixtures for tests that connect to servers which behave well or badly."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.endpoints import Authority, Endpoint, Handler


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    """Starts servers, which end with the test."""
    with ExitStack() as stack:

        def start(handler: Handler, **options: Any) -> Endpoint:
            endpoint = Endpoint(handler, **options)
            stack.callback(endpoint.stop)
            return endpoint

        yield start


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs certificates, which nobody trusts yet."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The authority, which this machine trusts during the test."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    return authority
