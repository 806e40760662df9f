"""Starts a worker, tells the control plane that it lives, and says goodbye. Your work goes where it says so.

It ends when it is told to. Whatever else goes wrong between it and the control plane, it says so and tries again.
"""

import email.utils
import getpass
import http.client
import json
import os
import platform
import random
import re
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

#: What the environment does not tell; the page "New worker" fills in the first two.
SETTINGS = {"CONTROL_PLANE_URL": "", "WORKER_ID": "", "API_KEY": ""}
#: The exit status after which nobody is to start this program again: another process has taken its place.
SUPERSEDED = 3
#: Docker, containerd, CRI-O and Podman mount a file of the container's own there.
OF_CONTAINER = r"([0-9a-f]{64})\S* /etc/hostname "


def told_by_linux(path: str, pattern: str) -> str:
    try:
        return "".join(re.findall(pattern, Path(path).read_text(errors="replace"))[:1])
    except OSError:
        return ""


#: Tells this process from any other one of the same worker, and stays the same for as long as it lives.
SYSTEM_INFO = {
    "hostname": socket.gethostname(),
    "pid": os.getpid(),
    "process_started_at": datetime.now(timezone.utc).isoformat(),
    "boot_id": told_by_linux("/proc/sys/kernel/random/boot_id", r"\S+"),
    "container_id": told_by_linux("/proc/self/mountinfo", OF_CONTAINER),
    "os_name": platform.system(),
    "python_version": platform.python_version(),
    "cpu_count": os.cpu_count(),
}


class Refused(Exception):
    """The control plane means it: its words, and the status."""


class Unanswered(Exception):
    """It may answer another time: what went wrong, and the seconds that it asks to wait."""


class EveryAnswer(urllib.request.HTTPErrorProcessor):
    """Takes each answer as it is: no redirect is followed, which would take the key to another address."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


OPENER = urllib.request.build_opener(EveryAnswer)


def setting(name: str) -> str:
    return (os.environ.get(name) or SETTINGS[name]).strip()


def call(verb: str, body: dict[str, Any], seconds: float = 10) -> Any:
    """POSTs to the worker's address at the control plane; the answer's JSON, None without one."""
    request = urllib.request.Request(
        f"{setting('CONTROL_PLANE_URL').rstrip('/')}/api/v1/workers/{setting('WORKER_ID')}/{verb}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {setting('API_KEY')}", "Content-Type": "application/json"},
        method="POST",
    )
    deadline, text = time.monotonic() + seconds, b""
    try:
        with OPENER.open(request, timeout=seconds) as answer:
            while (part := answer.read1()) and time.monotonic() < deadline and len(text) < 2**20:
                text += part
    except (OSError, http.client.HTTPException) as error:
        raise Unanswered(f"{type(error).__name__}: {error}", 0) from None
    return content(answer, text)


def content(answer: Any, text: bytes) -> Any:
    try:
        said = json.loads(text or "{}")
    except (RecursionError, ValueError):
        said = None
    is_json = isinstance(said, dict)
    if is_json and answer.status in range(200, 300):
        return said
    words = f"{answer.status} {said.get('detail', answer.reason) if is_json else 'and a page of something else'}"
    # A proxy's page knows nothing of workers: nobody ends for it.
    is_ours = is_json and ("detail" in said or not said)
    if is_ours and answer.status in range(400, 500) and answer.status not in {408, 425, 429}:
        raise Refused(words, answer.status)
    raise Unanswered(words, seconds_of(answer.headers.get("Retry-After", "")))


def seconds_of(retry_after: str) -> float:
    """A number of seconds or a date as seconds from now: at most 5 minutes, and none for anything else."""
    try:
        date = email.utils.parsedate_to_datetime
        seconds = float(retry_after) if retry_after.isdecimal() else date(retry_after).timestamp() - time.time()
    except (OverflowError, TypeError, ValueError):
        return 0
    return min(max(seconds, 0), 300)


def start() -> Any:
    """Tells the control plane about this process and gets the configuration; tries until it has it or is refused."""
    longest = 1
    while True:
        trouble, asked = "the answer holds no configuration", 0
        try:
            configuration = call("start", {"system_info": SYSTEM_INFO})
            if "heartbeat_interval" in configuration:
                return configuration
        except Refused as refusal:
            sys.exit(f"The control plane refused the start: {refusal.args[0]}")
        except Unanswered as error:
            trouble, asked = error.args
        # Anything up to the longest: a thousand workers that wait for one control plane do not come all at once.
        pause = asked + random.uniform(0, longest)
        print(f"Not started: {trouble}. Trying again in {pause:.0f} s.", file=sys.stderr)
        time.sleep(pause)
        longest = min(2 * longest, 60)


def keep_heartbeating(interval: float, ending: threading.Event) -> None:
    """Tells the control plane every interval (seconds) that this process lives; ends it when it is told to."""
    pause, is_in_phase = 0.0, False
    while not ending.wait(pause):
        began, asked = time.monotonic(), 0.0
        try:
            call("heartbeat", {"status": "active", "system_info": SYSTEM_INFO})
        except Refused as refusal:
            words, status = refusal.args
            if status in {401, 403, 404, 409, 410}:
                end(f"The control plane ends this worker: {words}")
            print(f"Heartbeat refused: {words}", file=sys.stderr)
        except Unanswered as error:
            trouble, asked = error.args
            print(f"Heartbeat not delivered: {trouble}", file=sys.stderr)
            is_in_phase = False
        # A moment of its own in the interval, and a new one after trouble, which others have had at the same time.
        pause = began + interval - time.monotonic() if is_in_phase else random.uniform(0, interval)
        pause, is_in_phase = asked + max(pause, 0), True


def end(words: str) -> None:
    if "superseded" not in words:
        sys.exit(words)
    print(words, file=sys.stderr)
    sys.exit(SUPERSEDED)


def say_goodbye(reason: str, exit_code: int, error_message: str) -> None:
    told = {"reason": reason, "exit_code": exit_code, "error_message": error_message, "system_info": SYSTEM_INFO}
    for _ in range(2):
        try:
            call("disconnect", told, seconds=4)
            break
        except (Refused, Unanswered) as error:
            print(f"Goodbye not delivered: {error.args[0]}", file=sys.stderr)


def run(work: Callable[[Any], None]) -> None:
    """Starts, works with the configuration that this worker is given, and says goodbye, however the work ends."""
    if sys.stdin.isatty() and not setting("API_KEY"):
        SETTINGS["API_KEY"] = getpass.getpass("API key: ")
    if missing := [name for name in SETTINGS if not re.fullmatch("[\x21-\x7e]+", setting(name))]:
        sys.exit(f"Set {', '.join(missing)}.")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    configuration = start()
    print(f"Started as worker {setting('WORKER_ID')} of queue {configuration.get('worker_queue_name')}.", flush=True)
    goodbye = ("error", 1, "")
    try:
        work(configuration)
        goodbye = ("finished", 0, "")
    except SystemExit as ending:
        status, words = (1, ending.code) if isinstance(ending.code, str) else (ending.code or 0, "")
        goodbye = ("error" if status else "shutdown", status, words)
        raise
    except Exception as error:
        goodbye = ("error", 1, type(error).__name__)
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if goodbye[1] != SUPERSEDED:  # which has been noted, and the one in its place is not to be taken for it
            # A thread, since this process ends within seconds even if a name server or a proxy keeps no time.
            thread = threading.Thread(target=say_goodbye, args=goodbye, daemon=True)
            thread.start()
            thread.join(8)


def do_work(configuration: Any) -> None:
    # Here connect to configuration["temporal_host"] with configuration["temporal_api_key"], and let your worker poll
    # configuration["task_queue_name"] in configuration["temporal_namespace"], until the heartbeats end.
    keep_heartbeating(configuration["heartbeat_interval"], threading.Event())


if __name__ == "__main__":
    run(do_work)
