"""A LiteLLM gateway on this machine."""

from typing import TYPE_CHECKING, Any

from tests.support.endpoints import KEY, Endpoint, answer, request_of

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = "Content-Type: application/json"


class Gateway(Endpoint):
    """A LiteLLM that knows its keys, and remembers which keys it was shown."""

    def __init__(self) -> None:
        self.keys = {KEY}
        self.shown: list[str] = []
        self.before_answer: Callable[[], object] = lambda: None
        super().__init__(self._handle)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def _handle(self, sock: Any) -> None:
        request = request_of(sock)
        self.shown += [line.split()[-1] for line in request.splitlines() if line.startswith("Authorization")]
        self.before_answer()
        if self.shown and self.shown[-1] in self.keys:
            sock.sendall(f"HTTP/1.1 200 OK\r\n{JSON}\r\nx-litellm-version: 1.80.5\r\n\r\n{{}}".encode())
        else:
            answer(sock, request, "401 Unauthorized", JSON)
