"""How hosts are written, and which of them a connection may lead to (CONNECTION_HOSTS); no Django, no sockets.

One spelling per host: whatever a resolver might read as an address in another way (decimal, octal, hexadecimal, short
or full-width forms, zone ids) is refused instead of being interpreted.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: A name in lower case without its last dot, or an address.
type Host = str | Address

LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*")
#: What resolvers take for a part of an IPv4 address; no top-level domain looks like it.
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
LONGEST_NAME = 253
HOST_AND_PORT = re.compile(r"(?:\[(?P<six>[^\[\]]*:[^\[\]]*)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[^:\[\]]*))?")
PORT = re.compile(r"[1-9][0-9]{0,4}")
LAST_PORT = 65_535


class UnusableError(ValueError):
    """What was entered cannot work; the message tells a person what to enter instead."""


class HostError(UnusableError):
    """A host, port or entry that is not written as this module reads it."""


def read_host(text: str) -> Host:
    """A name or an address; an IPv4-mapped address is the IPv4 address that it leads to."""
    if not text.isascii():  # before lower(), which turns some other letters into ASCII
        msg = "Write the host's name in its ASCII form (xn--...)."
        raise HostError(msg)
    name = text.lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return _read_name(name)
    if text.endswith("."):  # resolvers take it for a name, which nobody has
        msg = "Leave out the dot after the address."
        raise HostError(msg)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            msg = "Leave the zone id out of the address."
            raise HostError(msg)
        return address.ipv4_mapped or address
    return address


def read_host_and_port(text: str, *, default_port: int) -> tuple[Host, int]:
    """Host and port from `host`, `host:port`, `[IPv6 address]` or `[IPv6 address]:port`."""
    host, port = _split(text)
    return read_host(host), default_port if port is None else port


@dataclass(frozen=True)
class AllowedHost:
    """One entry of CONNECTION_HOSTS."""

    #: A name; a name after a dot for its sub-domains; or a network of addresses.
    pattern: str | Network
    #: None for any.
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> Self:
        """HostError for anything but host, host:port, *.domain, *.domain:port, or an address or network instead."""
        is_bare_ipv6 = entry.count(":") > 1 and "[" not in entry and "://" not in entry
        host, port = (entry, None) if is_bare_ipv6 else _split(entry)
        if "/" in host:
            try:
                return cls(ipaddress.ip_network(host), port)
            except ValueError as error:
                msg = f"{error}."
                raise HostError(msg) from None
        is_domain = host.startswith("*.")
        found = read_host(host.removeprefix("*."))
        if isinstance(found, str):
            return cls(f".{found}" if is_domain else found, port)
        if is_domain:
            msg = f"{entry!r} has sub-domains of an address."
            raise HostError(msg)
        return cls(ipaddress.ip_network(found), port)

    def allows(self, host: Host, address: Address, port: int) -> bool:
        """Whether a connection to a host and port, of which this is one address, may be made."""
        if self.port not in {None, port}:
            return False
        if not isinstance(self.pattern, str):
            return address in self.pattern
        if not isinstance(host, str):
            return False
        return host.endswith(self.pattern) if self.pattern.startswith(".") else host == self.pattern


@lru_cache(1_000)
def is_loopback(host: str | None) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _read_name(name: str) -> str:
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        msg = "This is not the name or address of a host."
        raise HostError(msg)
    if NUMBER.fullmatch(name.rpartition(".")[2]):
        msg = "Write an IPv4 address as four decimal numbers without leading zeros."
        raise HostError(msg)
    return name


def _split(text: str) -> tuple[str, int | None]:
    if "://" in text:
        msg = "Leave out what stands before the host: write host:port."
        raise HostError(msg)
    found = HOST_AND_PORT.fullmatch(text)
    if not found:
        msg = "Write the host as host:port, an IPv6 address as [address]:port."
        raise HostError(msg)
    host, port = found["six"] or found["name"], found["port"]
    if port is None:
        return host, None
    if not PORT.fullmatch(port) or int(port) > LAST_PORT:
        msg = f"A port is a number from 1 to {LAST_PORT}, without leading zeros."
        raise HostError(msg)
    return host, int(port)
