"""Encryption is rotated under load: nothing is lost, no start fails, and nothing stays on an old key.

Starts and edits of secrets go on while the key ring and then every data key is rotated by the steps of
docs/operate/operations.md. The command is killed in the middle and run again. At the end the old keys are gone for
good, and every start has to give what its editors were told is stored. Then sealed texts are damaged and moved.
"""

import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import psycopg

from tests.drills.console import Editor, create_editors
from tests.drills.damage import count_damages_that_open
from tests.drills.drill import Figure, Scale, say
from tests.drills.load import Answers, Load
from tests.drills.proxy import ProxiedLoad, Proxy
from tests.drills.rings import Pair, RingFile
from tests.drills.service import Service, prepared_server
from tests.drills.tenants import Credential, Tenants, create_tenants
from tests.support.processes import ROOT

#: Seconds that a person takes for one more edit.
PAUSE = 0.2
PROGRESS = re.compile(r"(.+): (\d+) of (\d+)")
RESUME = re.compile(r"--data-keys --made-before \S+")


@dataclass(frozen=True)
class Course:
    """What happened while encryption was rotated."""

    starts: Answers
    edits: dict[int, int]
    kills: int

    def failed_edits(self) -> int:
        return sum(count for status, count in self.edits.items() if status != HTTPStatus.FOUND)


def run(scale: Scale, directory: Path) -> Figure:
    server = prepared_server(directory, {})
    service = Service(directory, server.url, processes=scale.of(1, 2))
    ring = RingFile(service, "ENCRYPTION_KEYS", "ek")
    service.prepare()
    tenants = create_tenants(service, organizations=scale.of(4, 125), workers=scale.of(20, 40))
    total = len(tenants.all_credentials())
    say(f"{total:,} secrets in {len(tenants.api_keys)} organizations")
    course = rotate_under_load(service, ring, tenants, scale)
    left = rows_on_old_keys(server.url, ring.active)
    forget_old_keys(service, ring, server.url)
    lost = count_lost(service, tenants)
    damages, opened = count_damages_that_open(service, tenants, server.url, step=scale.of(16, 1))
    service.stop()
    server.stop()
    failed, refused = sum(not tenants.is_right(answer) for answer in course.starts.all), course.failed_edits()
    return Figure(
        f"{failed} of {len(course.starts.all):,} starts failed or gave a wrong secret, {refused} of"
        f" {sum(course.edits.values()):,} edits failed, {lost} of {total:,} secrets lost, {left} rows on an old key after"
        f" {course.kills} kills; {opened} of {damages:,} damaged or moved secrets opened",
        is_met=not (failed or refused or lost or left or opened) and course.kills > 0 and bool(course.edits),
    )


def rotate_under_load(service: Service, ring: RingFile, tenants: Tenants, scale: Scale) -> Course:
    """Begins where every process knows the new key, and ends when no row needs the old one."""
    people = create_editors(service, scale.of(1, 2))
    ring.append()
    pair = Pair(service)
    calls = tenants.start_calls()
    load = ProxiedLoad(pair.proxy, calls, callers=scale.of(4, 32), pause=scale.of(160, 0) / 1000).start()
    editing = Editing(pair.proxy, people, tenants.all_credentials())
    ring.activate_last()
    pair.restart("the new key is the first")
    kills = rotate(service, [["--data-keys"]] if scale.is_quick else [[], ["--data-keys"]])
    course = Course(edits=editing.stop(), starts=load.stop(), kills=kills)
    pair.stop()
    say(f"starts {course.starts.statuses()}, p99 {course.starts.percentile(0.99):.2f} s; edits {course.edits}")
    return course


def rotate(service: Service, commands: list[list[str]]) -> int:
    """Each command is killed in its middle and run again, then everything is verified; how often it was killed."""
    kills = 0
    for arguments in commands:
        resume = start_and_kill(service, *arguments)
        if resume is not None:
            kills += 1
            say(f"killed, again: {service.manage('rotate_encryption', *resume.split(), '--format', 'json').strip()}")
    say(f"verified: {service.manage('rotate_encryption', '--verify', '--format', 'json').strip()}")
    return kills


def start_and_kill(service: Service, *arguments: str) -> str | None:
    """Rotates until half of a step is done and kills that then; how to go on, None if it ended before."""
    command = [sys.executable, "manage.py", "rotate_encryption", *arguments, "--format", "json"]
    with subprocess.Popen(command, cwd=ROOT, env=service.environ, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stderr
        resume = ""
        for line in process.stderr:
            resume = found[0] if (found := RESUME.search(line)) else resume
            progress = PROGRESS.match(line)
            if progress and progress[1] != "data keys replaced" and is_midway(int(progress[2]), int(progress[3])):
                process.kill()
                return resume
    assert process.returncode == 0, f"rotate_encryption exited with {process.returncode}."
    return None


def is_midway(done: int, total: int) -> bool:
    return total / 2 <= done < total


class Editing:
    """People who replace one secret after another, until they are stopped."""

    def __init__(self, proxy: Proxy, people: list[Editor], credentials: list[Credential]) -> None:
        self._proxy = proxy
        self._is_over = threading.Event()
        self._edits: list[int] = []
        # Each has credentials of their own, all over the organizations, so that it is known which edit came last.
        shares = [credentials[number :: len(people)] for number in range(len(people))]
        pairs = zip(people, shares, strict=True)
        self._threads = [threading.Thread(target=self._edit, args=pair, daemon=True) for pair in pairs]
        for thread in self._threads:
            thread.start()

    def stop(self) -> dict[int, int]:
        """How many edits were answered with which status."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        return dict(Counter(self._edits).most_common())

    def _edit(self, person: Editor, credentials: list[Credential]) -> None:
        for number in itertools.count():
            if self._is_over.is_set():
                break
            with self._proxy.port() as port:  # in steps, so that neighbours lie in different organizations
                self._edits.append(person.replace(port, credentials[number * 101 % len(credentials)]))
            time.sleep(PAUSE)


def rows_on_old_keys(database_url: str, active: str) -> int:
    """Counted by the database, which knows nothing of our code."""
    queries = ["SELECT count(*) FROM environments_datakey WHERE active_for_id IS NOT NULL AND wrapped_by <> %(active)s"]
    queries += [
        f"SELECT count(*) FROM environments_{kind}connection c WHERE NOT EXISTS (SELECT FROM environments_datakey k"  # noqa: S608
        " WHERE k.active_for_id = c.organization_id AND c.sealed_api_key LIKE 'cp1.' || k.id || '.%%')"
        for kind in ("temporal", "litellm")
    ]
    with psycopg.connect(database_url) as connection:
        counts = [connection.execute(query, {"active": active}).fetchone() for query in queries]
    return sum(count[0] for count in counts if count)


def forget_old_keys(service: Service, ring: RingFile, database_url: str) -> None:
    """Starts the service with nothing but the new keys, in its ring as in its database."""
    with psycopg.connect(database_url) as connection:
        gone = connection.execute("DELETE FROM environments_datakey WHERE active_for_id IS NULL").rowcount
    say(f"{gone} old data keys are deleted, and the ring has but the new key")
    ring.keep_active()
    service.start()


def count_lost(service: Service, tenants: Tenants) -> int:
    """How many secrets a start of each worker does not give as they were acknowledged last."""
    answers = Load(service.port, tenants.start_calls(rounds=1)).start().wait()
    told = {answer.call.mark: json.loads(answer.body) if answer.status == 200 else {} for answer in answers.all}
    return sum(
        told[worker_id].get(f"{kind}_api_key") != credential.current()
        for worker_id, pair in tenants.credentials.items()
        for kind, credential in pair.items()
    )
