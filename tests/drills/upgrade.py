"""The release before runs on while the database is migrated and its processes are replaced, under load.

The release before is this code; the one after is a copy of it with a change of its own (`tests.drills.next_release`). Two
services of the release before stand behind a proxy. While callers start workers, start in a queue, register, send
heartbeats and say goodbye, the new code's `migrate` runs: first in vain, since somebody reads a table, as a backup does,
then for good. The old code goes on with the new schema: the whole API, and what operators do in its console and by its
commands. Then one service after the other is taken out of the proxy, replaced, and put back, and one of them goes back to
the release before.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path

import psycopg

from controlplane.releases import CURRENT
from tests.drills.deeds import ask, failed_deeds
from tests.drills.drill import Figure, Scale, say
from tests.drills.load import SYSTEM_INFO, Answers, Call, Load, heartbeat_call, start_call
from tests.drills.next_release import NUMBER, WRITTEN, NextService
from tests.drills.proxy import ProxiedLoad, Proxy
from tests.drills.service import Fleet, Service, prepared_server

#: What somebody reads while `migrate` begins.
READ_FOR_LONG = "workers_workerstart"
MARKS = """
SELECT coalesce(system_info ->> 'mark', system_info -> 'worker_metadata' ->> 'mark') FROM workers_workerstart
"""


def run(scale: Scale, directory: Path) -> Figure:
    NextService.unpack(directory / "next")
    (database := directory / "database").mkdir()
    server = prepared_server(database, {})
    try:
        return _upgrade(scale, directory, server.url)
    finally:
        server.stop()


def _upgrade(scale: Scale, directory: Path, url: str) -> Figure:
    old = Service(directory, url, processes=scale.of(1, 2))
    old.prepare()
    everybody = old.create_fleet(60)
    olds = [old, old.beside()]
    news = [NextService(directory, url, processes=old.processes, **_shared(old)) for _ in olds]
    for service in olds:
        service.start()
    queue_id = ask(old.port, everybody.api_key, "GET", "/api/v1/worker-queues")[0]["id"]
    proxy = Proxy(*(service.port for service in olds))
    calls = _calls(everybody, queue_id, old.port)
    load = ProxiedLoad(proxy, calls, callers=scale.of(4, 32), pause=scale.of(30, 0) / 1000)
    calls_each = scale.of(100, 5_000)
    started: list[Service] = [*olds]
    load.start()
    try:
        with _phase("the old code on the old schema", load, calls_each):
            pass
        with _phase("migrate, first in vain", load, 0):
            failed = _checks(old, news[0], url)
        with _phase("the old code on the new schema", load, calls_each):
            failed += failed_deeds(old, everybody, queue_id, is_thorough=not scale.is_quick)
        with _phase("one service after the other is replaced", load, calls_each):
            for service, successor in zip(olds, news, strict=True):
                started.append(successor)
                _replace(service, successor, proxy)
        with _phase("one goes back to the release before", load, calls_each):
            _replace(news[0], old, proxy)
    finally:
        answers = load.stop()
        for each in started:
            each.stop()
    return _figure(answers, failed, url)


def _checks(old: Service, new: Service, url: str) -> list[str]:
    """Migrates, and tells what `check_upgrade` of either code says wrongly of the database before and after."""
    failed = []
    if f"code {NUMBER}, database {CURRENT}, pending" not in (text := new.manage("check_upgrade")):
        failed.append(f"check_upgrade of the new code says: {text}")
    _migrate_first_in_vain(new, url)
    if f"code {NUMBER}, database {NUMBER}, no migrations pending" not in (text := new.manage("check_upgrade")):
        failed.append(f"check_upgrade of the new code says: {text}")
    try:
        failed.append(f"check_upgrade of the old code has nothing against it: {old.manage('check_upgrade')}")
    except AssertionError as error:
        if "newer than this code" not in str(error):
            failed.append(str(error))
    return failed


def _shared(service: Service) -> dict[str, str]:
    """The settings that all services of one control plane have in common."""
    own = {"DATABASE_URL", "PORT"}
    return {name: value for name, value in service.environ.items() if name not in own}


def _calls(everybody: Fleet, queue_id: str, port: int) -> Iterator[Call]:
    """All that changes something, in turn, without an end; goodbyes only of workers of which no heartbeat is expected."""
    fleet, leaving = (
        replace(everybody, worker_ids=ids) for ids in (everybody.worker_ids[:40], everybody.worker_ids[40:])
    )
    for number in range(len(fleet.worker_ids)):
        first = start_call(fleet, -1 - number)
        ask(port, fleet.api_key, "POST", first.path, json.loads(first.body))
    kinds: list[Callable[[int], Call]] = [
        partial(start_call, fleet),
        partial(heartbeat_call, fleet),
        partial(start_call, leaving),
        partial(_full_heartbeat, fleet),
        partial(_start_in_queue, fleet, queue_id),
        partial(heartbeat_call, fleet),
        partial(_goodbye, leaving),
        partial(_simple_heartbeat, fleet),
        partial(_register, fleet),
    ]
    return (kinds[number % len(kinds)](number) for number in itertools.count())


def _full_heartbeat(fleet: Fleet, number: int) -> Call:
    light = heartbeat_call(fleet, number)
    body = {"system_info": SYSTEM_INFO, "logs": [f"line {number}"], "worker_metadata": {"number": number}}
    return replace(light, body=json.dumps(body).encode())


def _simple_heartbeat(fleet: Fleet, number: int) -> Call:
    body = {"worker_id": fleet.worker_ids[number % len(fleet.worker_ids)], "environment_name": "production"}
    return Call("/api/v1/workers/heartbeat", json.dumps(body).encode(), fleet.api_key)


def _start_in_queue(fleet: Fleet, queue_id: str, number: int) -> Call:
    mark = f"start-{number}"
    body = {"system_info": {**SYSTEM_INFO, "pid": number, "mark": mark}}
    return Call(f"/api/v1/worker-queues/{queue_id}/start", json.dumps(body).encode(), fleet.api_key, mark)


def _register(fleet: Fleet, number: int) -> Call:
    mark = f"start-{number}"
    body = {"environment_name": "production", "hostname": "host", "worker_metadata": {"mark": mark}}
    return Call("/api/v1/workers/register", json.dumps(body).encode(), fleet.api_key, mark)


def _goodbye(fleet: Fleet, number: int) -> Call:
    worker_id = fleet.worker_ids[number % len(fleet.worker_ids)]
    return Call(f"/api/v1/workers/{worker_id}/disconnect", b'{"reason": "shutdown"}', fleet.api_key)


@contextmanager
def _phase(name: str, load: Load, least: int) -> Iterator[None]:
    """Goes on until so many calls were answered in it, and says how they were."""
    before = len(load.answers.all)
    yield
    while len(load.answers.all) < before + least:
        time.sleep(0.05)
    answers = Answers(load.answers.all[before:])
    say(f"{name}: {len(answers.all)} calls, {answers.statuses()}, the slowest {answers.slowest():.1f} s")


def _migrate_first_in_vain(service: Service, url: str) -> None:
    """Somebody reads a table, as a backup does, until `migrate` has waited for it and given way."""
    with psycopg.connect(url) as reader:
        reader.execute(f"LOCK TABLE {READ_FOR_LONG} IN ACCESS SHARE MODE")
        migrate = subprocess.Popen(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            cwd=service.root,
            env=service.environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert migrate.stderr
        told = migrate.stderr.readline()
    told += migrate.communicate()[1]
    if not told.startswith("Attempt 1 of") or migrate.returncode:
        message = f"migrate did not give way once and then succeed; it exited with {migrate.returncode}:\n{told}"
        raise AssertionError(message)


def _replace(service: Service, successor: Service, proxy: Proxy) -> None:
    proxy.take_out(service.port)
    service.stop()
    successor.start()
    successor.process.wait_until(lambda: successor.status_of("/readyz") == HTTPStatus.OK)
    proxy.put_in(successor.port)


def _figure(answers: Answers, failed: list[str], url: str) -> Figure:
    for text in failed:
        say(text)
    refused = answers.other_than(HTTPStatus.OK, HTTPStatus.NO_CONTENT)
    for answer in refused[:5]:
        say(f"{answer.call.path} was answered {answer.status} after {answer.seconds:.1f} s: {answer.body[:200]!r}")
    missing = _marks(answers) - _recorded(url)
    remarks = _remarks(url)
    text = (
        f"{len(refused)} of {len(answers.all):,} calls failed during the upgrade from {CURRENT} to the next release and back, the "
        f"slowest took {answers.slowest():.1f} s, {len(missing)} acknowledged starts missing, {len(failed)} deeds of "
        f"operators failed with the old code on the new schema; {remarks[WRITTEN]:,} starts were written by the new code, "
        f"{remarks['']:,} by the old"
    )
    return Figure(text, is_met=not refused and not missing and not failed and all(remarks.values()))


def _marks(answers: Answers) -> set[str]:
    return {answer.call.mark for answer in answers.of(HTTPStatus.OK) if answer.call.mark}


def _recorded(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {mark for (mark,) in connection.execute(MARKS)}


def _remarks(url: str) -> dict[str, int]:
    """How many starts each code has written."""
    with psycopg.connect(url) as connection:
        found: dict[str, int] = dict(
            connection.execute("SELECT remark, count(*) FROM workers_workerstart GROUP BY remark").fetchall()
        )
    return {remark: found.get(remark, 0) for remark in ("", WRITTEN)}
