"""Where a request comes from when it comes through proxies: the address and scheme that they tell, as each writes them.

Most (nginx, HAProxy, Envoy, Traefik, Cloudflare, AWS) write plain addresses into X-Forwarded-For; Azure's application
gateway writes address:port. RFC 7239's Forwarded, which HAProxy can write, has quotes, `unknown` and `_names` besides;
it may stand beside X-Forwarded-For, and then tells the scheme.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from django.http import HttpRequest

from environments.endpoints.hosts import is_loopback

#: What a hop may look like around its address; a port may be a name (RFC 7239, section 6.2).
HOP = re.compile(
    r"\[(?P<bracketed>[^][]*)\](?::[\w.-]{1,64})?|(?P<plain>[0-9.]+)(?::[\w.-]{1,64})?|(?P<bare>[0-9A-Fa-f:.]+(?:%.*)?)",
    re.ASCII | re.DOTALL,
)
#: One element of Forwarded up to its end: what is quoted may hold commas and semicolons.
ELEMENT = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^",])+', re.DOTALL)
PAIR = re.compile(r'\s*([\w-]+)\s*=\s*("(?:\\.|[^"\\])*"|[^;"]*)\s*(?:;|$)', re.ASCII | re.DOTALL)
ESCAPE = re.compile(r"\\(.)", re.DOTALL)
#: Characters of one hop, and of a whole Forwarded; longer ones tell nothing.
LONGEST_HOP, LONGEST_FORWARDED = 256, 4096
#: In a request's META: the address of who connected, and whether it is a proxy's that hid its client.
PEER, IS_HIDDEN = "controlplane.peer", "controlplane.is_client_hidden"
#: Of an IPv6 address, what one customer of a provider has at least.
NETWORK_BITS = 64


def is_of_this_machine(request: HttpRequest) -> bool:
    """Whether client and connection are of this machine; a client that a local proxy hides may be anywhere."""
    meta = request.META
    return not meta.get(IS_HIDDEN) and is_loopback(meta.get(PEER)) and is_loopback(meta["REMOTE_ADDR"])


def network_of(request: HttpRequest) -> str:
    """What limits count a client by: the address, of IPv6 the network; "" if nobody knows it.

    To count all whose address is not known as one would let any of them keep the others out.
    """
    address = request.META.get("REMOTE_ADDR", "")
    if request.META.get(IS_HIDDEN) or not address:
        return ""
    return network_in(address)


def told_by_proxies(meta: dict[str, str]) -> tuple[list[str], str]:
    """The hops that the headers tell, as they were written and the nearest last; and the client's scheme."""
    addresses, schemes = meta.get("HTTP_X_FORWARDED_FOR"), meta.get("HTTP_X_FORWARDED_PROTO")
    elements = _forwarded(meta["HTTP_FORWARDED"]) if schemes is None and "HTTP_FORWARDED" in meta else []
    hops = [hop for hop in (addresses or "").split(",") if hop.strip()]
    if addresses is None and elements:
        hops = [element.get("for", "") for element in elements]
    if elements and _is_same(hops[-1:], elements[-1]):
        return hops, _first_scheme(element.get("proto", "") for element in elements)
    return hops, _first_scheme((schemes or "").split(","))


def _is_same(nearest: list[str], element: dict[str, str]) -> bool:
    """Whether who wrote the nearest hop wrote this element, too, and did not let the client's own through."""
    told = element.get("for", "")
    return nearest == [told] or bool(nearest and address_of(told) and address_of(nearest[0]) == address_of(told))


def address_of(hop: str) -> str:
    """The plain address within what a proxy wrote for a client; "" if there is none."""
    return _address_of(hop) if len(hop) <= LONGEST_HOP else ""


@lru_cache(4096)
def _address_of(hop: str) -> str:
    found = HOP.fullmatch(hop.strip().strip('"').strip())
    return canonical(found[found.lastgroup or 0]) if found else ""


@lru_cache(4096)
def canonical(text: str) -> str:
    """An address in its one spelling, IPv4 as such; "" for anything else. A zone has a meaning on its own host only."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _forwarded(header: str) -> list[dict[str, str]]:
    """The elements of RFC 7239's Forwarded, the nearest last; names in lower case, values without quotes."""
    if len(header) > LONGEST_FORWARDED:
        return [{}]
    elements = [element for element in ELEMENT.findall(header) if element.strip()]
    return [{name.lower(): ESCAPE.sub(r"\1", value.strip('"')) for name, value in PAIR.findall(e)} for e in elements]


def _first_scheme(told: Iterable[str]) -> str:
    """The one that the client used: each proxy adds its own at the end."""
    return next((scheme for scheme in (text.strip().strip('"').lower() for text in told) if scheme), "")


@lru_cache(4096)
def network_in(address: str) -> str:
    if ":" not in address:
        return address
    return str(ipaddress.ip_network(f"{address}/{NETWORK_BITS}", strict=False))
