"""One HTTP request to a guarded address: no redirect is followed, no proxy asked, and no body read but for one word."""

import http.client
import socket
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from environments.connections.verification.guard import Destination, Resolver, destination_of
from environments.connections.verification.outcome import DIRECTLY, ConnectionProblemError, Deadline
from environments.connections.verification.reach import CLIENT_CERTIFICATE, connected, problem_of
from environments.endpoints.rules import PORTS, Endpoint

#: By which words nginx says with 400, after a handshake without trouble, that it misses a client's certificate.
MISSES_CERTIFICATE = b"SSL certificate"
LONGEST_PAGE = 1024


class Answer(NamedTuple):
    """A server's answer without its body."""

    status: int
    headers: http.client.HTTPMessage
    destination: Destination


class _Connection(http.client.HTTPConnection):
    """Speaks HTTP on a socket that is already connected, so that it has nothing to look up."""

    def __init__(self, destination: Destination, sock: socket.socket, *, default_port: int) -> None:
        super().__init__(destination.name, destination.port)
        self.default_port = default_port  # which the Host header leaves out
        self.sock = sock


def call(  # noqa: PLR0913  # a request has that many parts
    method: str,
    endpoint: Endpoint,
    path: str,
    *,
    headers: Mapping[str, str],
    deadline: Deadline,
    resolve: Resolver,
    body: bytes | None = None,
) -> Answer:
    """The answer to one request; ConnectionProblemError if there is none."""
    destination = destination_of(endpoint.host, endpoint.port, deadline=deadline, resolve=resolve)
    with connected(destination, deadline, is_tls=endpoint.is_tls) as sock:
        connection = _Connection(destination, sock, default_port=PORTS["https" if endpoint.is_tls else "http"])
        try:
            connection.request(method, path, body, {"Connection": "close", **headers})
            with connection.getresponse() as response:
                deadline.left()  # http.client takes headers that were cut off for complete ones
                if response.status == HTTPStatus.BAD_REQUEST and MISSES_CERTIFICATE in response.read(LONGEST_PAGE):
                    msg = f"{destination} asks for {CLIENT_CERTIFICATE}"
                    raise ConnectionProblemError(msg)
                return Answer(response.status, response.headers, destination)
        except http.client.HTTPException as error:
            if isinstance(error, ConnectionError) or deadline.is_over():
                raise ConnectionProblemError(problem_of(error, destination, deadline)) from None
            msg = f"{destination} answers, but not in HTTP."
            raise ConnectionProblemError(msg) from None


def refusal_of(answer: Answer) -> str:
    """A sentence for an answer that is no success, in general terms."""
    status = answer.status
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"{answer.destination} redirects ({status}), which is not followed: enter the URL that it leads to."
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return f"A proxy on the way to {answer.destination} asks who calls (407). {DIRECTLY}"
    if status == HTTPStatus.NOT_FOUND:
        return f"{answer.destination} knows no such path (404): is the URL complete?"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return f"{answer.destination} asks to slow down (429): try again later."
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"{answer.destination} has a problem of its own ({status})."
    return f"{answer.destination} refuses the request ({status})."
