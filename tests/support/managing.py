"""Asks as a manager's tool does: with headers of its own, and a look at all of the answer."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from django.db import connection

from tests.support import factories
from tests.support.calls import shared_client
from workers.models import KeyRole


class Manager:
    """A manager's key for a target, and calls with it."""

    def __init__(self, target: Any, role: KeyRole = KeyRole.MANAGER, **kwargs: Any) -> None:
        issued = factories.issue_key(target, role=role, **kwargs)
        self.key, self.token = issued.row, issued.token.reveal()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The response; headers are named as in Python, such as `if_match`."""
        sent = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        environ: dict[str, Any] = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        environ["HTTP_AUTHORIZATION"] = f"Bearer {self.token}"
        return shared_client().generic(method, f"/api/v1{path}", sent, "application/json" if sent else "", **environ)

    def told(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        """The answer's JSON; the status has to be this."""
        response = self.ask(method, path, body, **headers)
        assert response.status_code == status, (response.status_code, response.content[:500])
        return json.loads(response.content) if response.content else None


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each of the calls gives, all made at the same moment, in threads of their own."""
    barrier = Barrier(len(calls))

    def make(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(make, calls))
