"""Opens a connection to the address that the guard decided on, with or without TLS, and cuts it off in time."""

import errno
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from environments.verification.guard import Destination
from environments.verification.outcome import TIME_LIMIT, ConnectionProblemError, Deadline


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
            # A numeric address: nothing is looked up again.
            sock.connect((str(destination.address), destination.port))
            if is_tls:
                sock.settimeout(deadline.left())
                context = ssl.create_default_context()
                context.set_alpn_protocols(list(protocols))
                sock = stack.enter_context(context.wrap_socket(sock, server_hostname=destination.name))
            stack.enter_context(_cut_off(sock, deadline))
            yield sock
    except OSError as error:
        raise ConnectionProblemError(problem_of(error, destination, deadline)) from None


def problem_of(error: BaseException, destination: Destination, deadline: Deadline) -> str:
    """A sentence for what went wrong on the way to a server."""
    if isinstance(error, TimeoutError) or deadline.is_over():
        return f"{destination} did not answer within {TIME_LIMIT:.0f} seconds."
    match error:
        case ssl.SSLCertVerificationError():
            return f"The certificate of {destination} is not trusted: {error.verify_message.rstrip('.')}."
        case ssl.SSLError():
            return f"{destination} does not complete a TLS handshake: is TLS on there?"
        case ConnectionRefusedError():
            return f"Nothing listens at {destination}."
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH | errno.EADDRNOTAVAIL):
            return f"There is no way from here to {destination}."
    return f"{destination} closed the connection."


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
