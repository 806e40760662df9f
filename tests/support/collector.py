"""A collector of OpenTelemetry's traces, over HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Collector(ThreadingHTTPServer):
    """Keeps the bodies that it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @classmethod
    @contextmanager
    def serving(cls) -> Iterator[Self]:
        """One in a thread of its own."""
        with cls() as collector:
            threading.Thread(target=collector.serve_forever, daemon=True).start()
            yield collector
            collector.shutdown()

    @property
    def environ(self) -> dict[str, str]:
        """OpenTelemetry's own variables by which a service finds it."""
        url = f"http://127.0.0.1:{self.server_port}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Not on the terminal."""
