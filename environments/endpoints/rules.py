"""What a connection can be made of: one rule each for targets, URLs, OTLP endpoints, labels and secrets; no Django.

Forms, `apply`, `loaddata`, settings and Verify read by the same rules: what no client could use is refused where it is
entered, in a sentence that says what to enter instead, and what some client can use is taken. No message repeats what
was entered, which may hold a secret.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from environments.endpoints.hosts import Host, UnusableError, read_host_and_port

PORTS = {"http": 80, "https": 443}
BROADCAST = ipaddress.IPv4Address("255.255.255.255")
#: What RFC 3986 lets a path consist of.
PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
#: And a query.
QUERY = re.compile(rf"(?:{PATH.pattern}|[?])*")
#: What an OTLP exporter adds to its endpoint by itself, one for each kind of signal.
OTLP_PATH = re.compile(r"/v1/(traces|metrics|logs|profiles)/*\Z")
#: What clients of a gateway add, whether or not /v1 is in its URL.
GATEWAY_PATH = re.compile(r"/(chat/completions|completions|embeddings|responses|messages|models)/*\Z")
SCHEME = re.compile(r"(?:Authorization:\s*)?(?:Bearer|Basic|Token)\s", re.IGNORECASE)
#: Servers take about 8 KiB of headers, all of them together.
LONGEST_SECRET = 4096


@dataclass(frozen=True)
class Endpoint:
    """An http(s) URL in its parts; the path has no slash at its end, unless it is to be called as it is."""

    host: Host
    port: int
    is_tls: bool
    path: str


def read_target(text: str, *, is_tls: bool) -> tuple[Host, int]:
    """Host and port of a Temporal; without a port, Temporal's client takes those of HTTP."""
    return _reachable(*read_host_and_port(text, default_port=PORTS["https" if is_tls else "http"]))


def _reachable(host: Host, port: int) -> tuple[Host, int]:
    if not isinstance(host, str) and (host.is_unspecified or host.is_multicast or host == BROADCAST):
        msg = "A server listens at this address, but none is reached by it: write the server's own."
        raise UnusableError(msg)
    return host, port


def read_url(text: str) -> Endpoint:
    """The parts of an http(s) URL to which a path can be added."""
    # urlsplit() drops line breaks and tabs in silence, another reader may not.
    if not text.isprintable() or " " in text or "\\" in text:
        msg = "A URL has no blanks, line breaks and backslashes: leave them out."
        raise UnusableError(msg)
    if not text.isascii():
        msg = "Write the host's name in its ASCII form (xn--...), and other letters of a path as %XX."
        raise UnusableError(msg)
    try:
        parts = urlsplit(text)
        default_port = PORTS[parts.scheme]
    except (ValueError, KeyError):
        msg = "Write an http(s) URL, such as https://service.example.com."
        raise UnusableError(msg) from None
    if "@" in parts.netloc:
        msg = "Leave user and password out of the URL: it is not sealed."
        raise UnusableError(msg)
    if "?" in text or "#" in text:
        msg = "Leave out the query or fragment: a path is added to the URL."
        raise UnusableError(msg)
    if not PATH.fullmatch(parts.path):
        msg = "The path has characters that a URL has as %XX only."
        raise UnusableError(msg)
    # Not .hostname, which takes a host out of more than one spelling.
    host, port = _reachable(*read_host_and_port(parts.netloc, default_port=default_port))
    return Endpoint(host, port, parts.scheme == "https", parts.path.rstrip("/"))


def read_service_url(text: str) -> Endpoint:
    """The URL of a service that workers call; one with TLS has no dot after its host's name.

    No certificate names the dot, and few clients leave it out when they compare.
    """
    endpoint = read_url(text)
    if endpoint.is_tls and re.match(r"[^/]*//[^/:]*\.(?:[:/]|\Z)", text):
        msg = "Leave out the dot after the host's name: its certificate does not have it."
        raise UnusableError(msg)
    return endpoint


def read_webhook_url(text: str) -> Endpoint:
    """The URL to which messages are posted: nothing is added to it, so it keeps its query and its last slash."""
    base, mark, query = text.partition("?")
    if "#" in text:
        msg = "Leave out the fragment: what follows # is never sent."
        raise UnusableError(msg)
    if "@" in base.partition("//")[2].partition("/")[0]:
        msg = "Leave user and password out of the URL: messages are sent without."
        raise UnusableError(msg)
    if not QUERY.fullmatch(query):
        msg = "The query has characters that a URL has as %XX only."
        raise UnusableError(msg)
    endpoint = read_service_url(base)
    path = urlsplit(base).path or "/"
    return Endpoint(endpoint.host, endpoint.port, endpoint.is_tls, f"{path}{mark}{query}")


def read_otlp_endpoint(text: str) -> Endpoint:
    """The URL of a collector, to which exporters add the path of each signal."""
    return _without(OTLP_PATH, read_service_url(text), "exporters")


def read_gateway_url(text: str) -> Endpoint:
    """The URL of a LiteLLM, to which clients add the path of each call."""
    return _without(GATEWAY_PATH, read_service_url(text), "clients")


def _without(added: re.Pattern[str], endpoint: Endpoint, by_whom: str) -> Endpoint:
    if found := added.search(endpoint.path):
        msg = f"Leave out {found[0]}: {by_whom} add it."
        raise UnusableError(msg)
    return endpoint


def check_label(text: str) -> None:
    """UnusableError for what is no name of a Temporal namespace or OpenTelemetry service.

    Both take any text, but nobody means what cannot be seen: it comes along when a name is pasted.
    """
    if not text.isprintable() or text != text.strip():
        msg = "Leave out line breaks, other characters that cannot be seen, and blanks at the ends."
        raise UnusableError(msg)


def check_secret(text: str) -> None:
    """UnusableError for what cannot be carried by HTTP headers, gRPC metadata and environment variables alike.

    The first two of Temporal's client and of httpx, by which LiteLLM is called, are ASCII.
    """
    if text != text.strip():
        msg = "It begins or ends with a blank or line break, as it happens when pasting: enter it without."
        raise UnusableError(msg)
    if SCHEME.match(text):
        msg = "It begins with the word that clients put before it in a header: enter it without."
        raise UnusableError(msg)
    if not (text.isascii() and text.isprintable()):
        msg = "It has characters that cannot be sent: enter it again without line breaks and accents."
        raise UnusableError(msg)
    if len(text) > LONGEST_SECRET:
        msg = f"It has more than {LONGEST_SECRET:,} characters, which no server takes."
        raise UnusableError(msg)
