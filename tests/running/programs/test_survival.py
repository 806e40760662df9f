"""The programs that we hand out outlive what happens on the way."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import plain_worker
import pytest
import yaml
from pytest_django import Settings

from tests.support import factories
from tests.support.factories import Fleet
from tests.support.faults import (
    Play,
    ScriptedPlane,
    answer,
    close,
    hang,
    in_seconds,
    page,
    raw,
    refusal,
    reset,
    trickle,
)
from tests.support.processes import ROOT, ServerProcess
from tests.support.programs import KEY, TAKEN
from workers.installation.worker import IMAGE, commands_for

KINDS = ("shell", "docker", "systemd", "kubernetes", "python", "temporal")
SUPERSEDED = "superseded: another process of this worker has taken over."
STARTED = answer(200, {"heartbeat_interval": 0.1, "worker_id": "w", "worker_queue_name": "default"})
#: What is no word of the control plane's: nobody ends for it.
FAULTS: dict[str, Play] = {
    "closed": close,
    "reset": reset,
    "half an answer": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
    "half a chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"),
    "half a head": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a page with 200": page(200),
    "a page with 502": page(502),
    "a page with 404": page(404),
    "a page with 403": page(403),
    "a page in Latin-1": raw(b"HTTP/1.1 504 Zu sp\xe4t\r\nContent-Length: 2\r\n\r\n\xe4\xff"),
    "another one's JSON with 403": answer(403, {"message": "Forbidden"}),
    "another one's JSON with 200": answer(200, "[1, 2]"),
    "a redirect": answer(302, Location="http://127.0.0.1:1/login"),
    "500": refusal(500, "Internal error."),
    "503": refusal(503, "The database is not available."),
    "408": refusal(408, "Too slow."),
    "an odd Retry-After": refusal(429, "Too many requests.", Retry_After="soon"),
    "a huge Retry-After that is over": refusal(503, "Away.", Retry_After="Sun, 06 Nov 1994 08:49:37 GMT"),
}


def in_python(program: str) -> list[str]:
    return [sys.executable, "-u", "-c", program]


class Programs:
    """The texts of *New worker*, with stand-ins for Docker, systemd and a cluster, which run the program here."""

    def __init__(self, fleet: Fleet, settings: Settings, directory: Path) -> None:
        self.fleet, self.settings, self.directory = fleet, settings, directory
        self.path = directory / "programs"
        self.path.mkdir()
        for name in ("python", "python3"):
            (self.path / name).symlink_to(sys.executable)
        self.write("docker", DOCKER.format(image=IMAGE))
        self.write("systemctl", "#!/bin/sh\n")
        (self.path / "sitecustomize.py").write_text(CHANCE)

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def start(self, kind: str, plane: ScriptedPlane) -> ServerProcess:
        """Runs the text of this kind."""
        self.settings.CONTROL_PLANE_URL = plane.url
        texts = {command.kind: command.text for command in commands_for(self.fleet.worker, KEY)}
        command, environ = getattr(self, kind)(texts.get(kind, texts["python"]))
        given = {"PATH": f"{self.path}:{os.environ['PATH']}", "PYTHONPATH": str(self.path), "HOME": str(self.directory)}
        log = self.directory / f"{kind}-{time.monotonic_ns()}"
        return ServerProcess(command, log=log, env=given | environ, cwd=self.directory)

    def shell(self, text: str) -> tuple[list[str], dict[str, str]]:
        script = self.directory / f"{time.monotonic_ns()}.sh"
        script.write_text(text)
        return ["sh", str(script)], {}

    docker = shell

    def systemd(self, text: str) -> tuple[list[str], dict[str, str]]:
        """Installs below the test's folder, and runs what the unit names as systemd would."""
        for place in ("/etc/", "/usr/local/"):
            (self.directory / place.strip("/") / "systemd/system").mkdir(parents=True, exist_ok=True)
            (self.directory / "usr/local/lib").mkdir(parents=True, exist_ok=True)
            text = re.sub(f"(?<![\\w/]){place}", f"{self.directory}{place}", text)
        command, _ = self.shell(text)
        subprocess.run(command, env={"PATH": f"{self.path}:{os.environ['PATH']}"}, check=True)  # noqa: S603
        (unit,) = re.findall(r"cat > (\S+\.service)", text)
        lines = dict(line.split("=", 1) for line in Path(unit).read_text().splitlines() if "=" in line)
        assert (lines["Restart"], lines["RestartPreventExitStatus"]) == ("on-failure", "3")
        environ = dict(line.split("=", 1) for line in Path(lines["EnvironmentFile"]).read_text().splitlines())
        return shlex.split(lines["ExecStart"]), environ

    def kubernetes(self, text: str) -> tuple[list[str], dict[str, str]]:
        secret, deployment = yaml.safe_load_all(text)
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        environ = {one["name"]: one.get("value", secret["stringData"].get(one["name"])) for one in container["env"]}
        return [*container["command"], *container["args"]], environ

    def python(self, text: str) -> tuple[list[str], dict[str, str]]:
        return in_python(text), {"API_KEY": KEY}

    def temporal(self, _: str) -> tuple[list[str], dict[str, str]]:
        """The heartbeats of the example that polls Temporal, beside which it awaits its work."""
        told = {"CONTROL_PLANE_URL": self.settings.CONTROL_PLANE_URL, "WORKER_ID": "w", "API_KEY": KEY}
        return in_python(TEMPORAL), told | {"PYTHONPATH": f"{self.path}:{ROOT / 'examples'}"}


#: Starts the image's program as a container's main process.
DOCKER = """#!/usr/bin/env bash
while [ "$1" != {image} ]; do
  [ "$1" != --env ] || case $2 in *=*) export "$2" ;; esac
  shift
done
shift
exec "$@"
"""
#: Plays chance: what would be any time up to the longest is short here, so that a test waits for nothing else. And a
#: program that waits for an answer has a quarter of its patience.
CHANCE = """
import random, urllib.request
random.uniform = lambda low, high: low + (high - low) / 1000
patient = urllib.request.OpenerDirector.open
urllib.request.OpenerDirector.open = lambda self, request, timeout: patient(self, request, timeout=timeout / 4)
"""
TEMPORAL = """
import asyncio, plain_worker, temporal_worker
async def work(interval):
    await asyncio.gather(temporal_worker.keep_heartbeating(interval), asyncio.sleep(3600))
plain_worker.run(lambda configuration: asyncio.run(work(configuration["heartbeat_interval"])))
"""


@pytest.fixture
def programs(db: None, settings: Settings, tmp_path: Path) -> Programs:
    return Programs(factories.create_fleet(), settings, tmp_path)


def status_of(process: ServerProcess, seconds: float = 20) -> int:
    """Its exit status, once it has ended by itself."""
    return process._process.wait(seconds)


def gaps(calls: list[Any]) -> list[float]:
    return [later.at - earlier.at for earlier, later in pairwise(calls)]


#: What happens to each program's goodbye: it ends all the same, in time, and with its own status.
GOODBYES: dict[str, list[Play]] = {
    "shell": [reset, TAKEN],
    "docker": [close],
    "systemd": [refusal(503, "Away.", Retry_After="3600")],
    "kubernetes": [hang],
    "python": [trickle, TAKEN],
    "temporal": [page(502), refusal(401, "This API key is not valid.")],
}


def test_every_program_outlives_every_fault_and_says_goodbye_when_it_is_ended(programs: Programs) -> None:
    """All at once, since each has to wait until an answer that never comes counts as none."""
    planes, running = {}, {}
    for kind in KINDS:
        faults = [
            *FAULTS.values(),
            refusal(429, "Too many.", Retry_After="1"),
            refusal(503, "Away.", Retry_After=in_seconds(2)),
        ]
        beats = [TAKEN, *faults, hang, TAKEN, TAKEN, TAKEN]
        planes[kind] = ScriptedPlane(start=[*faults, STARTED], heartbeat=beats, disconnect=GOODBYES[kind])
        running[kind] = programs.start(kind, planes[kind])
    for kind, plane in planes.items():
        starts, beats = plane.wait_for("start", len(FAULTS) + 3), plane.wait_for("heartbeat", len(FAULTS) + 7)
        del beats[len(FAULTS) + 7 :]  # of a program that is ahead of those before it
        told = running[kind].log_text()
        assert (len(starts), len(beats)) == (len(FAULTS) + 3, len(FAULTS) + 7), f"{kind}:\n{told}"
        assert running[kind].is_running()
        assert {call.key for call in starts + beats} == {KEY}
        assert KEY not in told
        assert "Traceback" not in told
        infos = [call.body["system_info"] for call in starts + beats]
        assert all(info == infos[0] for info in infos)
        assert {"hostname", "pid", "process_started_at", "boot_id"} <= set(infos[0])
        assert gaps(starts)[len(FAULTS)] >= 1
        running[kind]._process.terminate()
    for kind, process in running.items():
        assert status_of(process) == 0, f"{kind}:\n{process.log_text()}"
        goodbye = planes[kind].calls("disconnect")[0].body
        assert (goodbye["reason"], goodbye["exit_code"]) == ("shutdown", 0)
        planes[kind].close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("detail", "status"), [(SUPERSEDED, 3), ("This worker is disabled.", 1)])
def test_told_to_end_a_program_ends_with_the_server_s_words(
    programs: Programs, kind: str, detail: str, status: int
) -> None:
    plane = ScriptedPlane(start=[STARTED], heartbeat=[TAKEN, reset, refusal(409, detail)], disconnect=[reset])
    process = programs.start(kind, plane)
    assert status_of(process) == status
    assert detail in process.log_text()
    assert len(plane.calls("heartbeat")) == 3
    goodbyes = plane.calls("disconnect")
    # Whoever took its place could be taken for the one that says goodbye.
    assert [call.body["exit_code"] for call in goodbyes] == ([] if status == 3 else [1, 1])
    plane.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_start_ends_a_program_with_the_server_s_words(programs: Programs, kind: str) -> None:
    plane = ScriptedPlane(start=[refusal(403, "This worker is disabled.")])
    process = programs.start(kind, plane)
    assert status_of(process) == 1
    assert process.log_text() == "The control plane refused the start: 403 This worker is disabled.\n"
    assert len(plane.calls("start")) == 1
    plane.close()


REFUSALS = [
    (400, "Bad request."),
    (401, "This API key is not valid."),
    (404, "Not found."),
    (409, "Another process of this worker is online."),
    (413, "The body is too large."),
    (422, [{"loc": ["body", "system_info"], "msg": "Field required", "type": "missing"}]),
]


@pytest.mark.parametrize(("status", "detail"), REFUSALS)
def test_what_the_control_plane_means_is_not_tried_again(programs: Programs, status: int, detail: Any) -> None:
    plane = ScriptedPlane(start=[reset, refusal(status, detail)])
    process = programs.start("python", plane)
    assert status_of(process) == 1
    assert f"refused the start: {status} {detail}\n" in process.log_text()
    assert len(plane.calls("start")) == 2
    plane.close()


@pytest.mark.parametrize(("status", "detail"), REFUSALS)
def test_a_heartbeat_ends_a_program_only_if_it_is_to_end(programs: Programs, status: int, detail: Any) -> None:
    """What is refused of a heartbeat's body costs that heartbeat, not the worker."""
    plane = ScriptedPlane(start=[STARTED], heartbeat=[refusal(status, detail), TAKEN], disconnect=[TAKEN])
    process = programs.start("python", plane)
    if status in {400, 413, 422}:
        assert len(plane.wait_for("heartbeat", 3)) == 3
        process._process.terminate()
        assert status_of(process) == 0
    else:
        assert status_of(process) == 1
        assert len(plane.calls("heartbeat")) == 1
        (goodbye,) = plane.calls("disconnect")
        assert (goodbye.body["exit_code"], goodbye.body["reason"]) == (1, "error")
        assert str(detail) in goodbye.body["error_message"]
    assert f"{status} {detail}" in process.log_text()
    plane.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_waits_for_the_control_plane_ends_when_it_is_told_to(programs: Programs, number: int) -> None:
    plane = ScriptedPlane(start=[refusal(503, "Away.", Retry_After="300")])
    process = programs.start("python", plane)
    process.wait_until(lambda: "Trying again in 300 s." in process.log_text())
    process._process.send_signal(number)
    assert status_of(process) == 0
    plane.close()


def test_a_program_waits_until_there_is_a_control_plane(programs: Programs) -> None:
    away = ScriptedPlane()
    away.close()
    process = programs.start("python", away)
    process.wait_until(lambda: "Connection refused" in process.log_text())
    plane = ScriptedPlane(port=away.port, start=[STARTED], heartbeat=[TAKEN], disconnect=[TAKEN])
    assert plane.wait_for("heartbeat", 2)
    process.stop()
    assert plane.calls("disconnect")
    plane.close()


def test_no_key_follows_a_redirect(programs: Programs) -> None:
    other = ScriptedPlane(login=[STARTED])
    plane = ScriptedPlane(
        start=[*(answer(status, Location=f"{other.url}/login") for status in (301, 302, 303, 307, 308)), STARTED],
        heartbeat=[TAKEN],
        disconnect=[TAKEN],
    )
    process = programs.start("python", plane)
    assert plane.wait_for("heartbeat", 1)
    process.stop()
    assert not other.calls("login")
    plane.close()
    other.close()


@pytest.mark.parametrize(
    ("work", "status", "goodbye"),
    [
        ("1 / 0", 1, ("error", 1, "ZeroDivisionError")),
        ("sys.exit('Temporal cannot be reached.')", 1, ("error", 1, "Temporal cannot be reached.")),
        ("sys.exit(7)", 7, ("error", 7, "")),
        ("None", 0, ("finished", 0, "")),
    ],
)
def test_a_goodbye_that_fails_hides_neither_reason_nor_status(
    programs: Programs, work: str, status: int, goodbye: tuple[str, int, str]
) -> None:
    plane = ScriptedPlane(start=[STARTED], disconnect=[reset, close])
    program = f"import sys, plain_worker; plain_worker.run(lambda configuration: {work})"
    environ = {"CONTROL_PLANE_URL": plane.url, "WORKER_ID": "w", "API_KEY": KEY, "PYTHONPATH": str(ROOT / "examples")}
    done = subprocess.run(in_python(program), env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == status
    assert goodbye[2] in done.stderr
    bodies = [call.body for call in plane.calls("disconnect")]
    assert [(body["reason"], body["exit_code"], body["error_message"]) for body in bodies] == [goodbye] * 2
    plane.close()


@pytest.mark.parametrize("key", ["", " ", "acp-\u20ac", "acp-1\nX-Injected: 1"])
def test_a_key_that_is_none_is_told_without_being_shown(key: str) -> None:
    environ = {"CONTROL_PLANE_URL": "http://127.0.0.1:1", "WORKER_ID": "w", "API_KEY": key}
    done = subprocess.run(  # noqa: S603
        [sys.executable, plain_worker.__file__], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "Set API_KEY.\n")
