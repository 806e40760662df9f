"""What receives notifications, and the verifier that it is told to use."""

import json
import re
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.support.endpoints import Endpoint
from tests.support.processes import ROOT

SECRET = "a-secret-of-thirty-two-characters-or-more"


class Received(NamedTuple):
    """A request as a receiver has it."""

    head: str
    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> Any:
        return json.loads(self.body)


def documented_verifier() -> Callable[[dict[str, str], bytes, str, set[str]], str]:
    """What docs/operate/notifications.md has receivers do, as it stands there."""
    page = (ROOT / "docs" / "operate" / "notifications.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102  # our own page
    return names["check"]  # type: ignore[no-any-return]  # as the page has it


class Receiver(Endpoint):
    """Takes messages by HTTP, or refuses them with another status."""

    def __init__(self, status: str = "200 OK") -> None:
        self.status = status
        self.received: list[Received] = []
        super().__init__(self._handle)

    @property
    def url(self) -> str:
        return f"http://{self.host}/hooks/T0/secret-part?key=secret-key"

    @property
    def messages(self) -> list[str]:
        return [each.payload["message"] for each in self.received]

    def _handle(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            head = stream.readline().decode().strip()
            lines = iter(lambda: stream.readline().decode().strip(), "")
            headers = dict(line.split(": ", 1) for line in lines)
            body = stream.read(int(headers["Content-Length"]))
        self.received.append(Received(head, headers, body))
        connection.sendall(f"HTTP/1.1 {self.status}\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".encode())
