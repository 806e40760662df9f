"""What a tenant's people, keys and programs do to others, as hard as they can: `python -m tests.drills.mischief`.

A process of its own, so that its callers take no time from those whose answers are timed. The first line that it reads
tells what it needs; each further one names the kind that begins, and an empty one ends it. It then prints one line of JSON:
by kind of deed how often which status was answered.
"""

import ipaddress
import itertools
import json
import random
import secrets
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote, urlencode

from tests.drills.load import SYSTEM_INFO
from tests.support.crawler import Console, Fields, fields_of
from tests.support.processes import ROOT

WORKERS, QUEUES = "/admin/workers/worker/", "/api/v1/worker-queues"
ENVIRONMENTS = "/admin/environments"
#: Three kilobytes of words, none of which occurs.
WORDS = quote(" ".join(f"{letter}x" for letter in itertools.islice(itertools.cycle("abcdefgh"), 1_000)))
SEARCHES = (
    f"{WORKERS}?q={WORDS}",
    f"/admin/workers/workerstart/?q={WORDS}",
    f"/admin/autocomplete/?app_label=workers&model_name=worker&field_name=queue&term={WORDS}",
    f"/admin/search/?s={WORDS}",
)
HEAVY = (
    "/admin/?period=7d",
    f"{WORKERS}?attention=outdated",
    f"{WORKERS}?attention=crash-loop",
    f"{WORKERS}?liveness=Offline&o=-2.1.3",
    "/admin/workers/workerstart/?p=40",
    "/admin/workers/workerinstance/",
    f"{ENVIRONMENTS}/auditevent/",
)
#: As large as a start's body may be.
BIG = json.dumps({"system_info": {f"member-{number}": "x" * 60 for number in range(800)}})
#: What an administrator of the service runs beside it; the last is a part of nightly work.
COMMANDS = (
    ("list_workers", "--outdated"),
    ("doctor",),
    ("rotate_encryption", "--data-keys"),
    ("prune_starts", "--older-than", "20d"),
    ("prune_workers",),
    ("export",),
)


@dataclass(frozen=True)
class Target:
    """Where the service listens, and what of it belongs to the tenant."""

    port: int
    passwords: dict[str, str]
    organization_id: str
    queue_id: str
    connection_id: str
    worker_ids: list[str]
    queue_key: str
    organization_key: str
    #: The two documents that differ in each worker, and the environment of the command that applies them.
    documents: list[str]
    environ: dict[str, str]


class Person:
    """Somebody, signed in if it is told as whom; may do several things at once."""

    def __init__(self, port: int, username: str = "", password: str = "") -> None:
        console = Console(f"http://127.0.0.1:{port}", username, password)
        console.get("/admin/login/")
        cookies = {cookie.name: cookie.value or "" for cookie in console.cookies}
        self._port, self._token = port, cookies["csrftoken"]
        self._cookies = "; ".join(f"{name}={value}" for name, value in cookies.items())

    def get(self, path: str) -> tuple[int, str]:
        return ask(self._port, "GET", path, Cookie=self._cookies)

    def post(self, path: str, fields: Fields, **headers: str) -> tuple[int, str]:
        body = urlencode(fields | {"csrfmiddlewaretoken": [self._token]}, doseq=True)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return ask(self._port, "POST", path, body, Cookie=self._cookies, **form, **headers)

    def edit(self, path: str, form_id: str, **typed: str) -> int:
        """Saves a page's form with what is typed, and says yes to what that does."""
        status, page = self.get(path)
        if status == 200:
            status, page = self.post(path, fields_of(page, form_id) | {name: [text] for name, text in typed.items()})
        if status == 200 and 'id="confirm-change"' in page:
            status, page = self.post(path, fields_of(page, "confirm-change"))
        return status


def ask(port: int, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    """The status and text of an answer; 0 when there is none."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, HTTPException):
        return 0, ""
    finally:
        connection.close()


class Mischief:
    """All kinds of it. A deed takes its number and returns the status that it was answered."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.viewer, self.operator, self.administrator = (
            Person(target.port, role, target.passwords[role]) for role in ("viewer", "operator", "administrator")
        )
        self.stranger = Person(target.port)
        #: By kind: the deeds, and how many callers do them in turn.
        self.kinds: dict[str, tuple[list[Callable[[int], int]], int]] = {
            "viewer": ([self.search, self.open_heavy_page, self.watch_boot], 8),
            "bulk": ([self.change_many], 2),
            "apply": ([self.apply], 1),
            "silent server": ([self.verify, self.watch_boot], 8),
            "queue key": ([self.start_in_queue, self.read, self.talk_nonsense], 12),
            "edits": ([self.edit], 3),
            "strangers": ([self.guess_password, self.read_document, self.talk_nonsense], 8),
            "commands": ([self.run_command], 1),
        }
        self.kinds["all at once"] = ([], 0)

    def search(self, number: int) -> int:
        return self.viewer.get(SEARCHES[number % len(SEARCHES)])[0]

    def open_heavy_page(self, number: int) -> int:
        return self.viewer.get(HEAVY[number % len(HEAVY)])[0]

    def watch_boot(self, number: int) -> int:
        """Of a worker that runs, so that Temporal is asked, which never answers."""
        worker_id = self.target.worker_ids[number % 8]
        if number % 16 < 2:  # each of them lives, now and then
            self._call("POST", f"/api/v1/workers/{worker_id}/start", "{}", self.target.organization_key)
        return self.viewer.get(f"{WORKERS}{worker_id}/boot/steps/")[0]

    def change_many(self, number: int) -> int:
        """As many workers as one action takes."""
        ids = ",".join(worker_id.replace("-", "") for worker_id in self.target.worker_ids[-5_000:])
        verb = ("drain", "enable")[number % 2]
        return self.operator.post(f"{WORKERS}bulk/{verb}/", {"workers": [ids], "list": [""]})[0]

    def apply(self, number: int) -> int:
        """By the command, as a person at a shell does; 200 stands for its success."""
        return self._manage("apply", self.target.documents[number % 2])

    def run_command(self, number: int) -> int:
        """The rarer ones, which take longer, in turn."""
        return self._manage(*COMMANDS[number % len(COMMANDS)])

    def verify(self, number: int) -> int:  # noqa: ARG002  # each time the same
        path = f"{ENVIRONMENTS}/temporalconnection/{self.target.connection_id}/verify/"
        return self.administrator.post(path, {})[0]

    def start_in_queue(self, number: int) -> int:
        """A queue that is full, with bodies as large as they may be."""
        body = BIG if number % 2 else json.dumps({"system_info": {**SYSTEM_INFO, "pid": number}})
        return self._call("POST", f"{QUEUES}/{self.target.queue_id}/start", body)

    def read(self, number: int) -> int:
        own = f"{QUEUES}/{self.target.queue_id}"
        paths = (f"{own}/workers?status=all", f"{own}/metrics", QUEUES, own, f"{own}/workers", f"{own}/worker-command")
        return self._call("GET", paths[number % len(paths)])

    def talk_nonsense(self, number: int) -> int:
        """Forged keys, bodies that are none, and ids of nobody."""
        own = f"{QUEUES}/{self.target.queue_id}/start"
        calls = (
            (own, "{}", self.target.queue_key[:-8] + secrets.token_urlsafe(6)),
            (own, "[" * 30_000, self.target.queue_key),
            (own, BIG[:-1], self.target.queue_key),
            (f"/api/v1/workers/{secrets.token_hex(16)}/start", BIG, self.target.queue_key),
            ("/api/v1/workers/register", "x" * 70_000, self.target.queue_key),
        )
        path, body, key = calls[number % len(calls)]
        return self._call("POST", path, body, key)

    def edit(self, number: int) -> int:
        """What all workers of the organization depend on."""
        text = str(number)
        edits = (
            (f"organization/{self.target.organization_id}", "organization_form", {"name": f"Seed {text}"}),
            (f"temporalconnection/{self.target.connection_id}", "temporalconnection_form", {"namespace": f"n{text}"}),
            (f"organization/{self.target.organization_id}", "organization_form", {"name": f"Seed {text}"}),
        )
        name, form_id, typed = edits[number % len(edits)]
        return self.administrator.edit(f"{ENVIRONMENTS}/{name}/change/", form_id, **typed)

    def guess_password(self, number: int) -> int:
        """With names that nobody has, from many networks, so that no limit is reached."""
        fields = {"username": [f"nobody-{number}"], "password": ["a guess"]}
        networks = ipaddress.ip_network("10.0.0.0/8")
        return self.stranger.post(
            "/admin/login/", fields, **{"X-Forwarded-For": str(networks[random.getrandbits(24)])}
        )[0]

    def read_document(self, number: int) -> int:
        paths = ("/api/openapi.json", "/admin/login/", "/api/docs", f"/api/openapi.json?version={number}", "/livez")
        return ask(self.target.port, "GET", paths[number % len(paths)], **{"X-Large": "x" * 30_000})[0]

    def _manage(self, *arguments: str) -> int:
        """200 stands for the success of a command, 500 for anything else."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.target.environ, check=False, capture_output=True)  # noqa: S603
        return 200 if done.returncode == 0 else 500

    def _call(self, method: str, path: str, body: str | None = None, key: str = "") -> int:
        headers = {"Authorization": f"Bearer {key or self.target.queue_key}", "Content-Type": "application/json"}
        return ask(self.target.port, method, path, body, **headers)[0]

    @contextmanager
    def going_on(self, kind: str) -> Iterator[dict[str, Counter[int]]]:
        """The callers of a kind, or of all, at work; counts what they are answered."""
        answers: dict[str, Counter[int]] = defaultdict(Counter)
        is_over, lock = threading.Event(), threading.Lock()

        def run(deeds: list[Callable[[int], int]], first: int) -> None:
            for number in itertools.count(first):
                if is_over.is_set():
                    return
                deed = deeds[number % len(deeds)]
                status = deed(number // len(deeds))
                with lock:
                    answers[deed.__name__][status] += 1
                is_over.wait(0.02 if status in {0, 429, 503} else 0)  # else they would only be refused

        chosen = self.kinds.values() if kind == "all at once" else [self.kinds[kind]]
        callers = [(deeds, caller) for deeds, count in chosen for caller in range(count)]
        offset = random.randrange(1_000)  # noqa: S311  # nothing secret comes of it
        threads = [threading.Thread(target=run, args=(deeds, offset + 7 * caller)) for deeds, caller in callers]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            is_over.set()
            for thread in threads:
                thread.join()


def main() -> None:
    mischief = Mischief(Target(**json.loads(sys.stdin.readline())))
    print("ready", flush=True)
    while kind := sys.stdin.readline().strip():
        with mischief.going_on(kind) as answers:
            sys.stdin.readline()
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
