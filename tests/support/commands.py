"""Management commands in forks of one process that has loaded everything, which takes longer than most commands do.

A fork runs what `manage.py` runs, with input, output, environment and exit code of its own. What is about processes
themselves (their arguments, or the settings as they load) runs `manage.py`.
"""

import atexit
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import ROOT

SERVER = "from tests.support import forks; forks.serve(); import manage; manage.main()"
#: Seconds that a command may take.
PATIENCE = 120


class Commands:
    """The commands of one control plane; loads it with the first one, and anew when its environment has changed."""

    def __init__(self) -> None:
        self._environ: dict[str, str] = {}
        self._server: subprocess.Popen[bytes] | None = None

    def run(
        self,
        *arguments: str,
        environ: Mapping[str, str],
        input: str | None = None,  # noqa: A002  # as subprocess has it
        more: Mapping[str, str] | None = None,
        onto: Mapping[str, Path] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs one; the settings were made of `environ`, to which `more` adds what the command alone reads.

        `onto` says where `stdout` or `stderr` goes instead of into what is returned.
        """
        with tempfile.TemporaryDirectory() as name:
            stdin, stdout, stderr = (Path(name) / stream for stream in ("stdin", "stdout", "stderr"))
            for path, text in ((stdin, input or ""), (stdout, ""), (stderr, "")):
                path.write_text(text)
            streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr} | dict(onto or {})
            request = {
                "arguments": arguments,
                "environ": dict(more or {}),
                "streams": [str(path) for path in streams.values()],
            }
            code = self._ask(self._serving(environ), json.dumps(request).encode() + b"\n")
            return subprocess.CompletedProcess(["manage.py", *arguments], code, stdout.read_text(), stderr.read_text())

    def close(self) -> None:
        """Ends the process; safe to call again."""
        atexit.unregister(self.close)
        if self._server:
            self._server.communicate()
            self._server = None

    def _serving(self, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        if self._server and self._environ == environ:
            return self._server
        self.close()
        self._environ = dict(environ)
        self._server = subprocess.Popen(  # noqa: S603  # our own
            [sys.executable, "-c", SERVER],
            cwd=ROOT,
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        atexit.register(self.close)
        return self._server

    def _ask(self, server: subprocess.Popen[bytes], request: bytes) -> int:
        """The exit code of what was asked for."""
        assert server.stdin
        assert server.stdout
        server.stdin.write(request)
        ready, _, _ = select.select([server.stdout], [], [], PATIENCE)
        answer = server.stdout.readline() if ready else b""
        if not answer:
            server.kill()
            message = f"The command did not end within {PATIENCE} s, or its process ended: {request.decode()}"
            raise AssertionError(message)
        return int(answer)
