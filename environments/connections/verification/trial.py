"""Finds out whether what may be Temporal listens where a connection leads, before anybody loads Temporal's client."""

from environments.connections.verification.guard import Destination, RefusedError, Resolver, destination_of
from environments.connections.verification.outcome import ConnectionProblemError, Deadline
from environments.connections.verification.reach import connected, greet
from environments.endpoints.hosts import UnusableError
from environments.endpoints.rules import read_target
from environments.models import TemporalConnection


def try_out(connection: TemporalConnection, deadline: Deadline, resolve: Resolver) -> Destination:
    """Where the connection leads, once somebody listens there; ConnectionProblemError otherwise.

    It connects once without Temporal's client, which puts every trouble with network and TLS into one text.
    """
    is_tls = connection.is_tls_enabled
    try:
        host, port = read_target(connection.host, is_tls=is_tls)
    except UnusableError as error:
        raise RefusedError(str(error)) from None
    destination = destination_of(host, port, deadline=deadline, resolve=resolve)
    with connected(destination, deadline, is_tls=is_tls, protocols=["h2"]) as sock:
        selected = getattr(sock, "selected_alpn_protocol", lambda: "h2")()
        if is_tls and selected == "h2":
            # In TLS 1.3 the first that is read tells whether the server goes on without a client's certificate.
            greet(sock)
    if selected != "h2":
        msg = f"{destination} speaks TLS, but not gRPC: is this Temporal's port?"
        raise ConnectionProblemError(msg)
    return destination
