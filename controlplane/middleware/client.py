"""Where a request comes from: a proxy's word for it, and health checks that know no name."""

import ipaddress
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from controlplane.middleware import Handler
from controlplane.serving.proxies import IS_HIDDEN, PEER, address_of, canonical, told_by_proxies

PROBED_PATHS = ("/livez", "/readyz", "/metrics")


class ProbeMiddleware:
    """Lets health checks and Prometheus ask by address: what they are told depends on no name, and they know none."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info in PROBED_PATHS and settings.ALLOWED_HOSTS:
            request.META["HTTP_HOST"] = settings.ALLOWED_HOSTS[0]
        return self.get_response(request)


class ProxyMiddleware:
    """Takes the client's address and scheme from X-Forwarded-For and -Proto, if a trusted proxy wrote them.

    The address is the rightmost that is no trusted proxy: what lies further left, the client may have invented. If that
    one is no address, the request is its peer's. Forwarded counts only where neither of both is, or tells the
    same address: a proxy that writes them lets the client's own Forwarded through.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self._is_trusted = lru_cache(1024)(_is_trusted)  # here, since the settings of tests differ

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        meta = request.META
        peer = address = canonical(meta.get("REMOTE_ADDR", ""))
        meta[PEER], meta[IS_HIDDEN] = peer, False
        if peer and self._is_trusted(peer):
            hops, scheme = told_by_proxies(meta)
            client = next((hop for hop in map(address_of, reversed(hops)) if not self._is_trusted(hop)), peer)
            address = client or peer
            meta[IS_HIDDEN] = not client
            if scheme == "https":
                request.environ["wsgi.url_scheme"] = "https"  # type: ignore[attr-defined]  # served by WSGI
        meta["REMOTE_ADDR"] = address
        return self.get_response(request)


def _is_trusted(address: str) -> bool:
    if not address:
        return False
    found = ipaddress.ip_address(address)
    return any(found in network for network in settings.TRUSTED_PROXIES)
