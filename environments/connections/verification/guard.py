"""Decides whether the control plane itself may connect to a host, and to which one address: no request forgery."""

import ipaddress
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from django.conf import settings

from environments.connections.verification.outcome import DIRECTLY, ConnectionProblemError, Deadline
from environments.endpoints.hosts import Address, Host

#: Name -> its addresses as text, or an OSError.
type Resolver = Callable[[str], Sequence[str]]

#: Nothing that a connection could rightly name, whatever the allow-list says.
FORBIDDEN: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # "this" network; 0.0.0.0 leads to this machine
            "169.254.0.0/16",  # link-local, and most clouds' metadata
            "100.100.100.200",  # Alibaba's metadata
            "168.63.129.16",  # Azure's platform service
            "192.0.0.192",  # Oracle's metadata
            "224.0.0.0/4",
            "240.0.0.0/4",  # reserved, and broadcast
            "::",
            "fe80::/10",
            "ff00::/8",
            "fd00:ec2::/32",  # Amazon's metadata and other services of an instance
            "fd20:ce::254",  # Google's metadata
            "fd00:42::42",  # Scaleway's metadata
            "64:ff9b:1::/48",  # local NAT64: where in it the IPv4 address is, only its operator knows
        ),
    )
)
#: The only part of IPv6 that is given out for public use.
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Networks whose last 32 bits are an IPv4 address: compatible, mapped, translated, NAT64.
IPV4_AT_THE_END = (*map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96")), NAT64)
IPV6_LOOPBACK = ipaddress.IPv6Address("::1")


class RefusedError(ConnectionProblemError):
    """The control plane does not connect to this host."""


@dataclass(frozen=True)
class Destination:
    """A host that may be connected to, at the one address that was decided on."""

    host: Host
    address: Address
    port: int

    @property
    def name(self) -> str:
        """What the server is called in TLS; an IPv6 address has no brackets there."""
        return str(self.host)

    def __str__(self) -> str:
        return (
            f"[{self.host}]:{self.port}" if isinstance(self.host, ipaddress.IPv6Address) else f"{self.host}:{self.port}"
        )


def resolve_name(name: str) -> list[str]:
    """The addresses of a name, of those families that this machine has."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(socket_address[0]) for *_, socket_address in found]


def destination_of(host: Host, port: int, *, deadline: Deadline, resolve: Resolver = resolve_name) -> Destination:
    """Where to connect to for a host and port; RefusedError if any of its addresses may not be connected to.

    This is the only look-up: whoever connects uses the address, so that a second answer of the name server changes
    nothing. Of a name's addresses an IPv4 one is preferred, since not every machine with IPv6 reaches the world by it.
    """
    addresses = list(_look_up(host, resolve, deadline)) if isinstance(host, str) else [host]
    for address in addresses:
        if is_forbidden(address):
            msg = f"The control plane never connects to {_shown(host, address)}: link-local, metadata or reserved."
            raise RefusedError(msg)
        if not _is_allowed(host, address, port):
            raise RefusedError(_why_not(host, address, port))
    if not addresses:
        msg = f"The name {host} has no address."
        raise ConnectionProblemError(msg)
    return Destination(host, min(addresses, key=lambda address: address.version), port)


def is_forbidden(address: Address) -> bool:
    """Whether nobody may connect there: link-local, metadata, unspecified, multicast, broadcast, reserved."""
    return any(part in network for part in (address, *embedded(address)) for network in FORBIDDEN) or _is_reserved(
        address
    )


def is_public(address: Address) -> bool:
    """Whether an address, and each IPv4 address within it, belongs to the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global
    is_given_out = (address in PUBLIC_IPV6 and address.is_global) or address in NAT64
    return is_given_out and all(part.is_global for part in embedded(address))


def embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address may be delivered to: mapped, NAT64, 6to4, Teredo and older forms."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address != IPV6_LOOPBACK and any(address in network for network in IPV4_AT_THE_END):
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.sixtofour:
        yield address.sixtofour
    yield from address.teredo or ()


def _is_reserved(address: Address) -> bool:
    """IPv6 beyond what is given out, private, loopback or a way to IPv4; IPv4's reserved networks are FORBIDDEN."""
    if isinstance(address, ipaddress.IPv4Address) or any(embedded(address)):
        return False
    return address.is_reserved and not address.is_loopback


def _is_allowed(host: Host, address: Address, port: int) -> bool:
    if settings.CONNECTION_HOSTS:
        return any(entry.allows(host, address, port) for entry in settings.CONNECTION_HOSTS)
    return is_public(address) or (settings.IS_LOCAL and address.is_loopback)


def _why_not(host: Host, address: Address, port: int) -> str:
    if settings.CONNECTION_HOSTS:
        return f"The setting CONNECTION_HOSTS does not name {host} with port {port}."
    return f"{_shown(host, address)} is not public: name it in the setting CONNECTION_HOSTS to allow it."


def _shown(host: Host, address: Address) -> str:
    return f"{host}, which is {address}" if isinstance(host, str) else str(host)


def _look_up(name: str, resolve: Resolver, deadline: Deadline) -> Iterator[Address]:
    """Asks in a thread, since a look-up knows no time-out; one that hangs ends by itself when the resolver gives up."""
    answers: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve(name))
        except OSError as error:
            answers.put(error)

    thread = threading.Thread(target=ask, name="look-up", daemon=True)
    thread.start()
    try:
        answer = answers.get(timeout=deadline.left())
    except (queue.Empty, TimeoutError):
        msg = f"The name {name} could not be looked up in time. {DIRECTLY}"
        raise ConnectionProblemError(msg) from None
    thread.join()
    if isinstance(answer, OSError):
        msg = f"The name {name} cannot be resolved. {DIRECTLY}"
        raise ConnectionProblemError(msg)
    for text in answer:
        address = ipaddress.ip_address(text)
        yield (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address
