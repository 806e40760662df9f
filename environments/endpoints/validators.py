"""The rules of `environments.endpoints.rules` as Django's fields and forms call them."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ValidationError

from environments.endpoints.hosts import UnusableError
from environments.endpoints.rules import (
    check_label,
    check_secret,
    read_gateway_url,
    read_otlp_endpoint,
    read_target,
    read_webhook_url,
)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except UnusableError as error:
        raise ValidationError(str(error)) from None


@_refusing()
def is_target(value: str) -> None:
    """ValidationError for what no Temporal is at."""
    read_target(value, is_tls=True)


@_refusing()
def is_http_url(value: str) -> None:
    """ValidationError for what is no URL of a gateway."""
    read_gateway_url(value)


@_refusing()
def is_otlp_endpoint(value: str) -> None:
    """ValidationError for what no exporter can send to."""
    read_otlp_endpoint(value)


@_refusing()
def is_webhook_url(value: str) -> None:
    """ValidationError for what nothing can be posted to."""
    read_webhook_url(value)


@_refusing()
def is_label(value: str) -> None:
    """ValidationError for a name with something that cannot be seen."""
    check_label(value)


@_refusing()
def is_secret(value: str) -> None:
    """ValidationError for a secret that cannot be sent."""
    check_secret(value)
