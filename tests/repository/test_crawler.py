"""The crawler of the drills behaves as a person does with what the service answers."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.support import crawler
from tests.support.crawler import Console

pytestmark = pytest.mark.once


class Crowded(BaseHTTPRequestHandler):
    """Has room for a page at the second try only."""

    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if self.path in self.asked[:-1] and self.path != "/full" else 503)
        self.end_headers()
        self.wfile.write(b"there")

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    monkeypatch.setattr(crawler, "PAUSE", 0.01)
    monkeypatch.setattr(crawler, "PATIENCE", 0.2)
    Crowded.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Crowded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Console(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_comes_again_where_there_was_no_room(console: Console) -> None:
    assert console.get("/page") == "there"
    assert Crowded.asked == ["/page", "/page"]


def test_gives_up_where_there_never_is(console: Console) -> None:
    with pytest.raises(crawler.urllib.error.HTTPError) as refused:
        console.get("/full")
    refused.value.close()
    assert len(Crowded.asked) > 1


def test_takes_an_answer_of_any_status_that_it_did_not_wait_for(console: Console) -> None:
    assert console.send("/page") == "there"
    assert Crowded.asked == ["/page"]
