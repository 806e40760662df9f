"""The existing worker, from its install script to its end; the tests build on each other in their order."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

from tests.support.planes import console_of
from tests.support.servers import ControlPlane, TemporalServer
from tests.upstream.conftest import HEARTBEAT_INTERVAL, PYTHON, Queue, Worker
from workers.installation.queue import WORKER_SDK_VERSION
from workers.models.liveness import OFFLINE_AFTER_AT_LEAST

TASK_QUEUE = "demo.development.existing"
#: Seconds that asking may take beside what is asked for, on a machine that has other work.
TOLERANCE = 15


def wait_for[Answer](ask: Callable[[], Answer], *, seconds: float) -> Answer:
    """The first answer that is not empty."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"Nothing after {seconds} seconds."
        time.sleep(0.5)
    return answer


def last_heartbeat(worker: Worker) -> datetime:
    return datetime.fromisoformat(worker.shown()["last_heartbeat"])


def shown_in_list(plane: ControlPlane, worker: Worker) -> str:
    """The words of the worker's row in the console's list."""
    page = console_of(plane).get("/admin/workers/worker/")
    (row,) = [row for row in page.split("<tr") if worker.shown()["worker_id"] in row]
    return " ".join(words(row.partition("</tr>")[0]))


def shown_on_page(plane: ControlPlane, worker: Worker) -> str:
    """The words of the worker's page."""
    return " ".join(words(console_of(plane).get(f"/admin/workers/worker/{worker.shown()['worker_id']}/change/")))


def words(html: str) -> list[str]:
    texts = [part.partition(">")[2] for part in f">{html}".split("<")]
    return unescape(" ".join(texts)).split()


def python_version() -> str:
    """The version of the Python that the install script chose."""
    command = [PYTHON, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


# --- It runs -----------------------------------------------------------------------------------------------------------


def test_the_install_script_runs_the_worker(worker: Worker) -> None:
    shown = worker.shown()
    assert shown["status"] == "active"
    assert shown["system_info"]["hostname"] == socket.gethostname()
    assert shown["system_info"]["sdk_version"] == WORKER_SDK_VERSION


def test_it_polls_its_task_queue_on_temporal(worker: Worker, temporal_server: TemporalServer) -> None:
    program = Path(sys.executable).with_name("temporal")
    command = [program, "task-queue", "describe", "--task-queue", TASK_QUEUE, "--address", temporal_server.host]

    def pollers() -> list[dict[str, Any]]:
        done = subprocess.run([*command, "-o", "json"], capture_output=True, check=True, text=True)  # noqa: S603
        return json.loads(done.stdout).get("pollers") or []

    identities = {poller["identity"] for poller in wait_for(pollers, seconds=20)}
    assert identities == {f"{worker.pid}@{socket.gethostname()}"}


def test_it_is_online_in_the_console_with_its_machine(worker: Worker, control_plane: ControlPlane) -> None:
    """It sends no heartbeat while it gets ready, so at this interval it is Late at first."""
    online = f"Online {TASK_QUEUE} {socket.gethostname()}"
    wait_for(lambda: online in shown_in_list(control_plane, worker), seconds=HEARTBEAT_INTERVAL + TOLERANCE)
    page = shown_on_page(control_plane, worker)
    for text in ("Current, Online", f"Host {socket.gethostname()} Process {worker.pid}", f"Python {python_version()}"):
        assert text in page
    assert f"SDK {WORKER_SDK_VERSION}" in page


def test_its_log_is_in_the_console(worker: Worker, control_plane: ControlPlane) -> None:
    assert f"Worker starting for queue {worker.queue.id}" in shown_on_page(control_plane, worker)


def test_its_heartbeats_come_at_the_queue_s_interval(worker: Worker) -> None:
    first = last_heartbeat(worker)
    second = wait_for(lambda: max(last_heartbeat(worker), first) - first, seconds=HEARTBEAT_INTERVAL + TOLERANCE)
    assert second >= timedelta(seconds=HEARTBEAT_INTERVAL)
    assert worker.shown()["system_info"]["pid"] == worker.pid  # which a light heartbeat does not tell


def test_it_takes_this_control_plane_for_one_of_its_own_version(worker: Worker) -> None:
    assert "SDK version mismatch" not in worker.process.log_text()


def test_it_survives_a_restart_of_the_control_plane(worker: Worker, control_plane: ControlPlane) -> None:
    control_plane.restart()
    restarted_at = datetime.now(UTC)
    wait_for(lambda: last_heartbeat(worker) > restarted_at, seconds=HEARTBEAT_INTERVAL + TOLERANCE)
    assert worker.shown()["status"] == "active"
    assert "Online" in shown_in_list(control_plane, worker)


# --- It ends -----------------------------------------------------------------------------------------------------------


def offline_in(queue: Queue, worker: Worker, plane: ControlPlane) -> dict[str, bool]:
    """Where the worker is taken for offline."""
    return {
        "list": "Offline" in shown_in_list(plane, worker),
        "workers": worker.shown()["status"] == "offline",
        "queue": queue.read()["active_workers"] == 0,
        "metrics": queue.read("/metrics")["active_workers"] == 0,
    }


def test_a_killed_worker_is_offline_everywhere_at_once(
    worker: Worker, queue: Queue, control_plane: ControlPlane
) -> None:
    nowhere = dict.fromkeys(("list", "workers", "queue", "metrics"), False)
    assert offline_in(queue, worker, control_plane) == nowhere
    worker.kill()
    time.sleep(1)  # a heartbeat may be on its way
    due = last_heartbeat(worker) + max(3 * timedelta(seconds=HEARTBEAT_INTERVAL), OFFLINE_AFTER_AT_LEAST)
    time.sleep((due - datetime.now(UTC)).total_seconds() - TOLERANCE)
    early = offline_in(queue, worker, control_plane)
    assert datetime.now(UTC) < due
    assert early == nowhere
    time.sleep((due - datetime.now(UTC)).total_seconds())
    assert offline_in(queue, worker, control_plane) == dict.fromkeys(nowhere, True)
    assert datetime.now(UTC) < due + timedelta(seconds=TOLERANCE)
    assert "Current, Offline" in shown_on_page(control_plane, worker)


def test_a_worker_that_does_not_reach_temporal_tells_why_it_stopped(
    worker: Worker, unreachable_queue: Queue, control_plane: ControlPlane, tmp_path: Path
) -> None:
    stranded = Worker(unreachable_queue, tmp_path)
    wait_for(lambda: stranded.shown().get("status") == "disconnected", seconds=60)
    page = shown_on_page(control_plane, stranded)
    assert "Current, Stopped" in page
    assert "exit code 1: Failed client connect" in page
    assert unreachable_queue.read()["active_workers"] == 0
    wait_for(lambda: "it is started again in" in stranded.process.log_text(), seconds=10)
    stranded.process.stop()


def test_a_worker_whose_control_plane_is_away_starts_once_it_is_back(
    worker: Worker, queue: Queue, control_plane: ControlPlane, tmp_path: Path
) -> None:
    """It ends itself when its start is not answered; the install script brings it back, and takes it along."""
    waiting = Worker(queue, tmp_path)
    control_plane.process.stop()
    wait_for(lambda: "it is started again in" in waiting.process.log_text(), seconds=180)
    control_plane.start()
    wait_for(waiting.is_ready, seconds=180)
    pid = waiting.pid
    waiting.process.stop()
    assert not Path(f"/proc/{pid}").exists()
