"""What proxies and balancers write of their clients, and whom the ledger, the limits and the log then name."""

import ipaddress
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from controlplane.middleware.client import ProxyMiddleware
from controlplane.serving.proxies import canonical, network_of
from tests.support.calls import start
from tests.support.factories import Fleet
from workers.models import WorkerStart

HTTPS = {"wsgi.url_scheme": "https"}
PROXY = "127.0.0.1"


def seen(**environ: str) -> tuple[str, bool, str]:
    """The address, whether by https, and the network that limits count, of a request with this environment."""
    request = RequestFactory().get("/livez", **({"REMOTE_ADDR": PROXY} | environ))
    found: list[tuple[str, bool, str]] = []

    def get_response(request: Any) -> HttpResponse:
        found.append((request.META["REMOTE_ADDR"], request.is_secure(), network_of(request)))
        return HttpResponse()

    ProxyMiddleware(get_response)(request)
    return found[0]


# --- The ledger --------------------------------------------------------------------------------------------------------

#: The address of the connection, X-Forwarded-For, and whom the ledger then names.
ADDRESSES: dict[str, tuple[str, str | None, str | None]] = {
    "no proxy": ("203.0.113.7", None, "203.0.113.7"),
    "no proxy, an invented header": ("203.0.113.7", "198.51.100.1", "203.0.113.7"),
    "no proxy, this machine invented": ("203.0.113.7", "127.0.0.1", "203.0.113.7"),
    "a proxy": (PROXY, "203.0.113.7", "203.0.113.7"),
    "a proxy over IPv6": ("::1", "203.0.113.7", "203.0.113.7"),
    "a proxy, an IPv6 client": (PROXY, "2001:db8::7", "2001:db8::7"),
    "a proxy that appends to an invented header": (PROXY, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
    "a proxy that appends to this machine, invented": (PROXY, "127.0.0.1, 203.0.113.7", "203.0.113.7"),
    "a proxy that appends to nonsense": (PROXY, "nonsense,, <script>, 203.0.113.7", "203.0.113.7"),
    "two proxies": (PROXY, "198.51.100.1, 203.0.113.7, 127.0.0.1", "203.0.113.7"),
    "two proxies without spaces": (PROXY, "203.0.113.7,127.0.0.1,::1", "203.0.113.7"),
    "a proxy without header": (PROXY, None, PROXY),
    "a proxy with an empty header": (PROXY, "", PROXY),
    "a proxy with commas": (PROXY, " , ,", PROXY),
    "only proxies": (PROXY, "127.0.0.1", PROXY),
    "nonsense from the proxy": (PROXY, "203.0.113.7, unknown", PROXY),
    "a port from the proxy": (PROXY, "203.0.113.7:5000", "203.0.113.7"),
    "a port from the proxy, IPv6": (PROXY, "[2001:db8::5]:51234", "2001:db8::5"),
    "a name from the proxy": (PROXY, "client.example.com", PROXY),
    "an obfuscated address": (PROXY, "_hidden", PROXY),
    "leading zeros": (PROXY, "203.000.113.007", PROXY),
    "no address": ("", None, None),
    "a socket's path": ("/run/socket", None, None),
}


@pytest.mark.parametrize(("address", "header", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_the_ledger_names_the_rightmost_address_that_is_no_trusted_proxy(
    fleet: Fleet, address: str, header: str | None, expected: str | None
) -> None:
    environ: dict[str, Any] = {"REMOTE_ADDR": address, **HTTPS}
    if header is not None:
        environ["HTTP_X_FORWARDED_FOR"] = header
    assert start(fleet, **environ).status_code == 200
    assert WorkerStart.objects.get().client_address == expected


@pytest.mark.parametrize("address", ["fe80::1%eth0", "::ffff:203.0.113.7", f"fe80::1%{'x' * 300}", "2001:DB8::7"])
def test_an_odd_spelling_of_an_address_costs_no_worker_its_start(fleet: Fleet, address: str) -> None:
    for environ in ({"REMOTE_ADDR": address}, {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": address}):
        assert start(fleet, **environ, **HTTPS).status_code == 200


def test_another_proxy_is_trusted_when_it_is_named(fleet: Fleet, settings: Settings) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/8")]
    start(fleet, REMOTE_ADDR="10.1.2.3", HTTP_X_FORWARDED_FOR="203.0.113.7, 10.9.9.9", **HTTPS)
    assert WorkerStart.objects.get().client_address == "203.0.113.7"


def test_a_server_that_tells_no_address_is_no_error(rf: RequestFactory) -> None:
    request = rf.get("/livez")
    del request.META["REMOTE_ADDR"]
    response = ProxyMiddleware(lambda told: HttpResponse(told.META["REMOTE_ADDR"] or "none"))(request)
    assert response.content == b"none"


# --- As each proxy writes it -------------------------------------------------------------------------------------------

V4, V6 = "203.0.113.7", "2001:db8::5"
#: What it sends, and whom it means.
WRITTEN: dict[str, tuple[dict[str, str], str]] = {
    "nginx": ({"X_FORWARDED_FOR": V4, "X_FORWARDED_PROTO": "https"}, V4),
    "nginx that appends": ({"X_FORWARDED_FOR": f"198.51.100.1, {V4}", "X_FORWARDED_PROTO": "https"}, V4),
    "HAProxy, a line of its own": ({"X_FORWARDED_FOR": f"198.51.100.1,{V4}", "X_FORWARDED_PROTO": "https"}, V4),
    "HAProxy's Forwarded": ({"FORWARDED": f"proto=https;for={V4}"}, V4),
    "HAProxy's Forwarded, IPv6": ({"FORWARDED": f'proto=https;for="[{V6}]:51234"'}, V6),
    "Envoy": ({"X_FORWARDED_FOR": V6, "X_FORWARDED_PROTO": "https"}, V6),
    "AWS ALB": ({"X_FORWARDED_FOR": f"198.51.100.1, {V4}", "X_FORWARDED_PROTO": "https"}, V4),
    "AWS ALB with the client's port": ({"X_FORWARDED_FOR": f"{V4}:51234", "X_FORWARDED_PROTO": "https"}, V4),
    "AWS ALB with the client's port, IPv6": ({"X_FORWARDED_FOR": f"[{V6}]:51234", "X_FORWARDED_PROTO": "https"}, V6),
    "Azure Application Gateway": ({"X_FORWARDED_FOR": f"{V4}:51234", "X_FORWARDED_PROTO": "https"}, V4),
    "Traefik": ({"X_FORWARDED_FOR": V4, "X_FORWARDED_PROTO": "https", "X_REAL_IP": "198.51.100.1"}, V4),
    "Cloudflare": ({"X_FORWARDED_FOR": V6, "X_FORWARDED_PROTO": "https", "CF_CONNECTING_IP": "198.51.100.1"}, V6),
    "two proxies": ({"X_FORWARDED_FOR": f"{V4}:1, 127.0.0.1:2", "X_FORWARDED_PROTO": "https,http"}, V4),
    "brackets without a port": ({"X_FORWARDED_FOR": f"[{V6}]", "X_FORWARDED_PROTO": "HTTPS"}, V6),
    "quotes": ({"X_FORWARDED_FOR": f'"{V4}"', "X_FORWARDED_PROTO": '"https"'}, V4),
    "quoted IPv6": ({"X_FORWARDED_FOR": f'"[{V6}]:51234"', "X_FORWARDED_PROTO": " https "}, V6),
    "a long IPv6": ({"X_FORWARDED_FOR": "2001:0DB8:0:0:0:0:0:5", "X_FORWARDED_PROTO": "https"}, V6),
    "IPv4 as IPv6": ({"X_FORWARDED_FOR": f"::ffff:{V4}", "X_FORWARDED_PROTO": "https"}, V4),
    "IPv4 as IPv6 with a port": ({"X_FORWARDED_FOR": f"[::ffff:{V4}]:1", "X_FORWARDED_PROTO": "https"}, V4),
    "tabs and blanks": ({"X_FORWARDED_FOR": f" ,\t{V4}\t, ", "X_FORWARDED_PROTO": ",https"}, V4),
    "a zone": ({"X_FORWARDED_FOR": "fe80::1%eth0", "X_FORWARDED_PROTO": "https"}, "fe80::1"),
    "HAProxy's both": ({"X_FORWARDED_FOR": V4, "FORWARDED": f"proto=https;for={V4}"}, V4),
    "HAProxy's both, IPv6": ({"X_FORWARDED_FOR": V6, "FORWARDED": f'proto=https;for="[{V6}]:51234"'}, V6),
    "Forwarded in capitals": ({"FORWARDED": f"For={V4};PROTO=HTTPS;by=203.0.113.43"}, V4),
    "Forwarded of two": ({"FORWARDED": f'for=198.51.100.1;proto=https, for="{V4}:_odd" ; proto=http'}, V4),
    "Forwarded through a trusted one": ({"FORWARDED": f"for={V4};proto=https,for=127.0.0.1;proto=http"}, V4),
    "Forwarded with commas in quotes": ({"FORWARDED": f'host="a,b;for=198.51.100.1";for={V4};proto="https"'}, V4),
    "Forwarded with escapes": ({"FORWARDED": f'for="{V4[:-1]}\\{V4[-1]}";proto=https'}, V4),
    "Forwarded after somebody's open quote": ({"FORWARDED": f'proto=https;for=", for={V4}'}, V4),
}


@pytest.mark.parametrize(("headers", "address"), WRITTEN.values(), ids=WRITTEN)
def test_a_proxys_way_to_write_leads_to_the_clients_plain_address(headers: dict[str, str], address: str) -> None:
    found = seen(**{f"HTTP_{name}": value for name, value in headers.items()})
    assert found[:2] == (address, True)


@pytest.mark.parametrize("header", ["X_FORWARDED_FOR", "FORWARDED"])
@pytest.mark.parametrize(
    "hop",
    ["unknown", "_hidden", '"_SEVKISEK"', "a name", "1.2.3", "1.2.3.4.5", "[::1", "]", '"', "1.2.3.4:5:6", "x" * 999],
)
def test_a_client_that_the_proxy_hides_is_its_peers_and_shares_no_count(header: str, hop: str) -> None:
    value = f"for=198.51.100.1, for={hop}" if header == "FORWARDED" else f"198.51.100.1, {hop}"
    assert seen(**{f"HTTP_{header}": value}) == (PROXY, False, "")


def test_forwarded_counts_for_nothing_beside_what_the_proxy_writes() -> None:
    """nginx and others let a client's own Forwarded through."""
    forwarded = {"HTTP_FORWARDED": "for=198.51.100.1;proto=https"}
    assert seen(HTTP_X_FORWARDED_FOR=V4, **forwarded) == (V4, False, V4)
    assert seen(HTTP_X_FORWARDED_PROTO="http", **forwarded) == (PROXY, False, PROXY)


@pytest.mark.parametrize(("address", "network"), [(V4, V4), (V6, "2001:db8::/64"), ("2001:db8::ffff", "2001:db8::/64")])
def test_limits_count_ipv6_by_network(address: str, network: str) -> None:
    assert seen(REMOTE_ADDR=address)[2] == network


@pytest.mark.parametrize("address", ["", "/run/socket", "unknown"])
def test_who_connects_without_an_address_shares_no_count(address: str) -> None:
    assert seen(REMOTE_ADDR=address) == ("", False, "")


ODD = st.text(st.sampled_from('0123456789abcdef.:[]%"\\,;= _-forptunkwhs\t\0é１'), max_size=80) | st.text(max_size=40)
PLAIN = st.ip_addresses().map(str)
HOPS = st.lists(ODD | PLAIN | PLAIN.map('"[{}]:1"'.format) | PLAIN.map("for={}".format), max_size=5).map(",".join)


@given(for_=st.none() | HOPS, proto=st.none() | ODD, forwarded=st.none() | HOPS, peer=PLAIN | st.just(PROXY) | ODD)
def test_whatever_is_sent_the_address_is_a_canonical_one_or_the_peers(
    for_: str | None, proto: str | None, forwarded: str | None, peer: str
) -> None:
    headers = {"HTTP_X_FORWARDED_FOR": for_, "HTTP_X_FORWARDED_PROTO": proto, "HTTP_FORWARDED": forwarded}
    address, _, network = seen(
        REMOTE_ADDR=peer, **{name: value for name, value in headers.items() if value is not None}
    )
    assert address == canonical(peer) or address == str(ipaddress.ip_address(address))
    assert network in {"", address} or ipaddress.ip_address(address) in ipaddress.ip_network(network)
