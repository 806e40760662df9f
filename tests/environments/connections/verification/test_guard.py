import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from environments.connections.verification.guard import FORBIDDEN, RefusedError, destination_of, is_forbidden, is_public
from environments.connections.verification.outcome import ConnectionProblemError, Deadline
from environments.endpoints.hosts import AllowedHost, HostError, read_host, read_host_and_port

pytestmark = pytest.mark.once

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address

EVERYTHING = (AllowedHost.parse("0.0.0.0/0"), AllowedHost.parse("::/0"), AllowedHost.parse("allowed.example.com"))
NEVER = [
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "febf::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "64:ff9b:1::a9fe:a9fe",
    "200::1",
    "4000::1",
    "fe00::1",
]
WITHIN: dict[str, Callable[[ipaddress.IPv4Address], int]] = {
    "mapped": lambda inner: 0xFFFF << 32 | int(inner),
    "compatible": int,
    "translated": lambda inner: 0xFFFF << 48 | int(inner),
    "NAT64": lambda inner: 0x64_FF9B << 96 | int(inner),
    "6to4": lambda inner: 0x2002 << 112 | int(inner) << 80 | 1,
    "Teredo server": lambda inner: 0x2001_0000 << 96 | int(inner) << 64,
    "Teredo client": lambda inner: 0x2001_0000 << 96 | 0x0808_0808 << 64 | int(inner) ^ 0xFFFF_FFFF,
}
forbidden_ipv4 = st.one_of(
    [st.ip_addresses(v=4, network=str(network)) for network in FORBIDDEN if network.version == 4]
)


def refused(host: str, *addresses: str) -> str:
    """The message of the refusal of a host, which as a name leads to these addresses."""
    with pytest.raises(RefusedError) as caught:
        destination_of(read_host(host), 443, deadline=Deadline(), resolve=lambda _: addresses)
    return str(caught.value)


def allowed(host: str, *addresses: str, port: int = 443) -> str:
    found = destination_of(read_host(host), port, deadline=Deadline(), resolve=lambda _: addresses)
    return str(found.address)


@pytest.fixture
def hosts(settings: Settings) -> Callable[[str], None]:
    """Sets CONNECTION_HOSTS, which is empty before, for a control plane that is not local."""

    def allow(text: str) -> None:
        settings.CONNECTION_HOSTS = tuple(AllowedHost.parse(entry) for entry in text.split(",") if entry)

    settings.IS_LOCAL = False
    allow("")
    return allow


@pytest.fixture(scope="module")
def everything() -> Iterator[None]:
    """Every host is on the allow-list; once for all examples of a property."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.conf.settings.CONNECTION_HOSTS", EVERYTHING)
        yield


# --- Addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", NEVER)
def test_never_connects_there_even_if_it_is_allowed(everything: None, address: str) -> None:
    assert "never connects" in refused(address)
    assert "never connects" in refused("allowed.example.com", address)


@given(inner=forbidden_ipv4, way=st.sampled_from(sorted(WITHIN)))
def test_never_connects_there_however_the_address_is_wrapped(
    everything: None, inner: ipaddress.IPv4Address, way: str
) -> None:
    address = ipaddress.IPv6Address(WITHIN[way](inner))
    for spelling in (str(address), address.exploded, address.exploded.upper()):
        refused(spelling)
        refused("allowed.example.com", spelling)


@given(address=st.ip_addresses())
def test_what_is_public_is_neither_forbidden_nor_private_for_python(address: Address) -> None:
    if is_public(address) and not is_forbidden(address):
        assert address.is_global
        assert not (address.is_multicast | address.is_unspecified | address.is_link_local | address.is_loopback)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "127.0.0.1",
        "198.18.0.1",
        "::1",
        "fd00::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:a00:1::1",
        "::10.0.0.1",
        "2001:db8::1",
    ],
)
def test_what_is_not_public_has_to_be_on_the_list(hosts: Callable[[str], None], address: str) -> None:
    assert "CONNECTION_HOSTS" in refused(address)
    assert "CONNECTION_HOSTS" in refused("name.example.com", address)
    hosts("name.example.com")
    assert ipaddress.ip_address(allowed("name.example.com", address)) == read_host(address)
    hosts(str(read_host(address)))
    assert allowed(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"])
def test_what_is_public_needs_no_list(hosts: Callable[[str], None], address: str) -> None:
    assert allowed("name.example.com", address)
    hosts("other.example.com")
    assert "CONNECTION_HOSTS does not name" in refused("name.example.com", address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_is_allowed_while_the_control_plane_is_local(
    hosts: Callable[[str], None], settings: Settings, address: str
) -> None:
    refused(address)
    settings.IS_LOCAL = True
    assert allowed(address) == address
    assert allowed("localhost", address) == address
    hosts("other.example.com")
    refused(address)


def test_one_bad_address_among_good_ones_is_enough(hosts: Callable[[str], None]) -> None:
    for addresses in (("8.8.8.8", "10.0.0.1"), ("169.254.169.254", "8.8.8.8"), ("2606:4700::1111", "::1")):
        refused("name.example.com", *addresses)


def test_prefers_ipv4(hosts: Callable[[str], None]) -> None:
    assert allowed("name.example.com", "2606:4700::1111", "8.8.4.4", "8.8.8.8") == "8.8.4.4"


# --- The look-up -----------------------------------------------------------------------------------------------------


def test_looks_up_once_and_never_for_an_address(hosts: Callable[[str], None]) -> None:
    asked: list[str] = []

    def rebinding(name: str) -> list[str]:
        asked.append(name)
        return ["8.8.8.8"] if len(asked) == 1 else ["127.0.0.1"]

    found = destination_of("name.example.com", 443, deadline=Deadline(), resolve=rebinding)
    assert (str(found.address), found.name, str(found)) == ("8.8.8.8", "name.example.com", "name.example.com:443")
    destination_of(read_host("8.8.4.4"), 443, deadline=Deadline(), resolve=rebinding)
    assert asked == ["name.example.com"]


def test_a_name_without_addresses_and_an_unknown_one_are_problems() -> None:
    def unknown(_name: str) -> list[str]:
        raise socket.gaierror

    for resolve, message in ((unknown, "cannot be resolved"), (lambda _: [], "has no address")):
        with pytest.raises(ConnectionProblemError, match=message):
            destination_of("name.example.com", 443, deadline=Deadline(), resolve=resolve)


def test_a_look_up_that_hangs_is_given_up() -> None:
    end = threading.Event()

    def hanging(_name: str) -> list[str]:
        end.wait()
        return []

    started = time.monotonic()
    with pytest.raises(ConnectionProblemError, match="in time"):
        destination_of("name.example.com", 443, deadline=Deadline(0.1), resolve=hanging)
    end.set()
    assert time.monotonic() - started < 2


# --- Spellings -------------------------------------------------------------------------------------------------------


@given(text=st.text(alphabet="0123456789abcdefx.:", max_size=20))
def test_what_reads_as_a_name_is_no_address_for_the_system(text: str) -> None:
    try:
        host = read_host(text)
    except HostError:
        return
    if isinstance(host, str):
        with pytest.raises(OSError):  # noqa: PT011  # inet_aton's error for what is no address has no other name
            socket.inet_aton(host)


@pytest.mark.parametrize(
    "host",
    [
        "2852039166",
        "0xa9fea9fe",
        "0xA9.254.169.254",
        "0251.0376.0251.0376",
        "169.254.43518",
        "127.1",
        "1.2.3.4.5",
        "127.0.0.1.0x1",
        "0x",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1.",
        "１２７.0.0.1",
        "①②⑦.0.0.1",
        "bücher.example",
        "ⓛocalhost",
        "127。0。0。1",
        "\N{KELVIN SIGN}.example.com",
        "user@host",
        "host%2eexample",
        "fe80::1%eth0",
        "fe80::1%25eth0",
        "a..b",
        ".a",
        "a..",
        "-a.example",
        "",
        ".",
        "*",
        "a b",
        "a\tb",
        "a\n",
        "a\0b",
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "a:b:c",
        "[::1]",
        "x" * 64,
        "a." * 127 + "aa",
    ],
)
def test_refuses_odd_spellings(host: str) -> None:
    with pytest.raises(HostError) as caught:
        read_host(host)
    assert str(caught.value)


@pytest.mark.parametrize(
    ("host", "read"),
    [
        ("Temporal.Example.COM", "temporal.example.com"),
        ("localhost.", "localhost"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("my_host-1.example", "my_host-1.example"),
        ("::FFFF:7f00:1", ipaddress.ip_address("127.0.0.1")),
        ("0:0::1", ipaddress.ip_address("::1")),
    ],
)
def test_gives_a_host_one_spelling(host: str, read: object) -> None:
    assert read_host(host) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a.example", ("a.example", 7)),
        ("a.example:7233", ("a.example", 7233)),
        ("[::1]:7233", (ipaddress.ip_address("::1"), 7233)),
        ("[::1]", (ipaddress.ip_address("::1"), 7)),
    ],
)
def test_reads_host_and_port(text: str, read: object) -> None:
    assert read_host_and_port(text, default_port=7) == read


@pytest.mark.parametrize(
    "text",
    [
        "a:0",
        "a:65536",
        "a:",
        "a:x",
        "a:+1",
        "a:１",
        "::1",
        "::1:7233",
        "[127.0.0.1]:1",
        "[::1]x:1",
        "[::1",
        "u:p@a:1",
        "[::1%1]:7",
        "[a]:7",
        "http://a:1",
        "a:1\n",
    ],
)
def test_refuses_another_host_and_port(text: str) -> None:
    with pytest.raises(HostError):
        read_host_and_port(text, default_port=7)


# --- The allow-list --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "is_allowed"),
    [
        ("a.example", "a.example", "10.0.0.1", 1, True),
        ("A.example.", "a.example", "10.0.0.1", 1, True),
        ("a.example", "b.a.example", "10.0.0.1", 1, False),
        ("a.example:7233", "a.example", "10.0.0.1", 7233, True),
        ("a.example:7233", "a.example", "10.0.0.1", 7234, False),
        ("*.a.example:1", "b.a.example", "10.0.0.1", 1, True),
        ("*.a.example", "c.b.a.example", "10.0.0.1", 1, True),
        ("*.a.example", "a.example", "10.0.0.1", 1, False),
        ("*.a.example", "evila.example", "10.0.0.1", 1, False),
        ("*.a.example:1", "b.a.example", "10.0.0.1", 2, False),
        ("10.0.0.0/8", "any.example", "10.9.9.9", 1, True),
        ("10.0.0.0/8", "any.example", "11.0.0.1", 1, False),
        ("10.0.0.0/8:443", "any.example", "10.0.0.1", 80, False),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1", 1, True),
        ("10.0.0.1:2", "10.0.0.1", "10.0.0.1", 1, False),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1", 1, True),
        ("fd00::/8", "any.example", "fd00::1", 1, True),
        ("[fd00::/8]:5", "any.example", "fd00::1", 1, False),
        ("fd00::1", "fd00::1", "fd00::1", 1, True),
        ("[fd00::1]:7233", "fd00::1", "fd00::1", 7233, True),
        ("[fd00::1]:7233", "fd00::1", "10.0.0.1", 7233, False),
    ],
)
def test_an_entry_allows_what_it_names(entry: str, host: str, address: str, port: int, is_allowed: bool) -> None:
    assert AllowedHost.parse(entry).allows(read_host(host), ipaddress.ip_address(address), port) is is_allowed


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "*:7233",
        "*.",
        "*.10.0.0.1",
        "a.*.example",
        "http://a",
        "a:port",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "a/24",
        "fe80::1%eth0",
        "a b",
        "127.1",
        "",
        "[]:1",
    ],
)
def test_refuses_a_malformed_entry(entry: str) -> None:
    with pytest.raises(HostError):
        AllowedHost.parse(entry)
