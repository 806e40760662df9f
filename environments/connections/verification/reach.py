"""Opens a connection to the address that the guard decided on, with or without TLS, and cuts it off in time."""

import errno
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from environments.connections.verification.guard import Destination, is_public
from environments.connections.verification.outcome import DIRECTLY, TIME_LIMIT, ConnectionProblemError, Deadline

#: RFC 9113, 3.4: a client begins with these words and a SETTINGS frame, here an empty one; so does a server.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
FRAME_HEADER_BYTES = 9
#: How a server ends TLS that misses a client's certificate; the first two mean nothing else to one that offers none.
CERTIFICATE_REQUIRED = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE")
HANDSHAKE_FAILURE = "HANDSHAKE_FAILURE"
#: X509_V_ERR_*: self-signed, or signed by nobody whom this machine knows.
UNKNOWN_AUTHORITY = {18, 19, 20, 21}
CLIENT_CERTIFICATE = (
    "a client certificate, which connections do not hold yet: let it take an API key, or give the certificate to the"
    " workers (docs/operate/private-networks.md)."
)


@contextmanager
def connected(
    destination: Destination, deadline: Deadline, *, is_tls: bool, protocols: Sequence[str] = ()
) -> Iterator[socket.socket]:
    """A socket that is connected to the destination; ConnectionProblemError if that, or what is done with it, fails.

    `protocols` are offered in TLS (ALPN). The server's certificate has to be valid for the destination's name.
    """
    try:
        with ExitStack() as stack:
            sock = stack.enter_context(socket.socket(_family(destination), socket.SOCK_STREAM))
            sock.settimeout(deadline.left())
            _connect(sock, destination)
            if is_tls:
                sock.settimeout(deadline.left())
                context = ssl.create_default_context()
                context.set_alpn_protocols(list(protocols))
                sock = stack.enter_context(context.wrap_socket(sock, server_hostname=destination.name))
            stack.enter_context(_cut_off(sock, deadline))
            try:
                yield sock
            except ConnectionError:
                _hear_out(sock)
                raise
    except OSError as error:
        raise ConnectionProblemError(problem_of(error, destination, deadline)) from None


def problem_of(error: BaseException, destination: Destination, deadline: Deadline) -> str:
    """A sentence for what went wrong on the way to a server."""
    if isinstance(error, TimeoutError) or deadline.is_over():
        return f"{destination} did not answer within {TIME_LIMIT:.0f} seconds."
    match error:
        case ssl.SSLError():
            return _tls_problem_of(error, destination)
        case ConnectionRefusedError():
            listens = f"Nothing listens at {destination}."
            return f"{listens} {DIRECTLY}" if is_public(destination.address) else listens
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH | errno.EADDRNOTAVAIL):
            return f"There is no way from here to {destination}. {DIRECTLY}"
    return f"{destination} closed the connection."


def greet(sock: socket.socket) -> bytes:
    """Begins to speak HTTP/2; the head of the frame that a server begins with, or as much as there is of it."""
    sock.sendall(HTTP2_PREFACE)
    with sock.makefile("rb") as stream:
        return stream.read(FRAME_HEADER_BYTES)


def _hear_out(sock: socket.socket) -> None:
    """Raises what a server said in TLS before it closed the connection: whoever still sends does not read it."""
    if isinstance(sock, ssl.SSLSocket):
        with suppress(ConnectionError):
            sock.recv(1)


def _tls_problem_of(error: ssl.SSLError, destination: Destination) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        found = f"The certificate of {destination} is not trusted: {error.verify_message.rstrip('.')}."
        is_private = error.verify_code in UNKNOWN_AUTHORITY
        return f"{found} Name a private authority's file in SSL_CERT_FILE." if is_private else found
    reason = error.reason or ""
    if reason.endswith(CERTIFICATE_REQUIRED):
        return f"{destination} asks for {CLIENT_CERTIFICATE}"
    if reason.endswith(HANDSHAKE_FAILURE):
        return f"{destination} refuses the TLS handshake. Perhaps it asks for {CLIENT_CERTIFICATE}"
    return f"{destination} does not complete a TLS handshake: is TLS on there?"


def _connect(sock: socket.socket, destination: Destination) -> None:
    """To a numeric address: nothing is looked up again."""
    try:
        sock.connect((str(destination.address), destination.port))
    except TimeoutError:
        msg = f"{destination} did not answer within {TIME_LIMIT:.0f} seconds. {DIRECTLY}"
        raise ConnectionProblemError(msg) from None


def _family(destination: Destination) -> socket.AddressFamily:
    return {4: socket.AF_INET, 6: socket.AF_INET6}[destination.address.version]


@contextmanager
def _cut_off(sock: socket.socket, deadline: Deadline) -> Iterator[None]:
    """Ends the connection at the deadline: a socket's own time-out begins anew with every byte that drips in."""
    timer = threading.Timer(deadline.left(), _shut_down, [sock])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # the server was faster
        # Not SSLSocket's own method, which would pull the TLS state from under the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
