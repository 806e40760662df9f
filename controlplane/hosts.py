"""Names of hosts and URLs of services, as settings have them."""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

LONGEST_NAME = 253  # RFC 1035
LABEL = "[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
NAME = re.compile(rf"{LABEL}(\.{LABEL})*", re.IGNORECASE | re.ASCII)
#: What the last part of a name is not: of 127.1 and 1.2.3.999 nobody knows what they are.
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


def is_host(host: str) -> bool:
    """A name that can be looked up, or an address, IPv6 in brackets or not."""
    try:
        ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        is_name = NAME.fullmatch(host) and not NUMBER.fullmatch(host.rpartition(".")[2])
        return bool(is_name) and len(host) <= LONGEST_NAME
    return True


def is_own_host(host: str) -> bool:
    """One that requests to us can carry: Django refuses a Host with an underscore."""
    return is_host(host) and "_" not in host


def read_url(text: str) -> SplitResult | None:
    """The parts of an http(s) URL without user, query or fragment; None for anything else. A dot may end its host."""
    try:
        parts = urlsplit(text)
        is_possible = is_host((parts.hostname or "").removesuffix(".")) and parts.port != 0
    except ValueError:
        return None
    is_plain = not (parts.query or parts.fragment or "@" in parts.netloc or re.search(r"[\s\\]", text))
    return parts if is_possible and is_plain and parts.scheme in {"http", "https"} else None
