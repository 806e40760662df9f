"""The database is away, stalled, locked and full under a load of starts: only 503 in bounded time, then all is well.

Meanwhile `/livez` and `/readyz` are asked again and again: the first must answer although the database does not, and the
second must say so.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tests.drills.absences import SmallDisk, disk_full, locked, sqlite_full, stalled, stopped, write_locked
from tests.drills.drill import Figure, Scale, say
from tests.drills.load import Answer, Answers, Load, endless, heartbeat_call, load, start_call
from tests.drills.records import missing_starts
from tests.drills.service import Fleet, Service, prepared_server

#: Seconds that an answer may take, and within which the service must have recovered.
BOUND = 5
OK, UNAVAILABLE = 200, 503
#: Seconds between two questions after the service's health.
PACE = 0.25
#: Starts in a row that pass before the service counts as recovered: more than there are callers.
CALM = 64
KINDS = (start_call, heartbeat_call, start_call)
ALL_TABLES = "LOCK TABLE workers_worker, workers_workerinstance, workers_workerstart IN ACCESS EXCLUSIVE MODE"
ONE_ROW = "SELECT 1 FROM workers_worker WHERE id = %s FOR UPDATE"
NOT_TRIED = "full disks not tried here: no right to mount"


@dataclass(frozen=True)
class Case:
    """A way in which the database is away for so many seconds; `is_gone` when nobody can reach it."""

    name: str
    away: Callable[[], AbstractContextManager[None]]
    seconds: float
    is_gone: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a case; `recovery` is when, in seconds after its end, the last call came that was refused."""

    name: str
    answers: Answers
    problems: list[str]
    recovery: float
    slowest_livez: float

    def __str__(self) -> str:
        return (
            f"{self.answers.statuses()}, slowest {self.answers.slowest():.1f} s, last refusal {self.recovery:.1f} s after it,"
            f" /livez within {self.slowest_livez:.1f} s"
        )


def run(scale: Scale, directory: Path) -> Figure:
    directory.chmod(0o711)  # PostgreSQL's account has to get at its disk
    with _small_disk(directory / "postgresql-disk") as disk:
        outcomes = _on_postgresql(scale, directory, disk)
    with _small_disk(directory / "sqlite-disk") as disk:
        outcomes += _on_sqlite(scale, directory, disk)
    problems = [f"{outcome.name}: {problem}" for outcome in outcomes for problem in outcome.problems]
    for problem in problems:
        say(problem)
    text = (
        f"{len(problems)} promises broken in {len(outcomes)} outages;"
        f" {sum(len(each.answers.of(503)) for each in outcomes):,} calls refused, all answered within"
        f" {max(each.answers.slowest() for each in outcomes):.1f} s, last refusal within"
        f" {max(each.recovery for each in outcomes):.1f} s after an outage, /livez within"
        f" {max(each.slowest_livez for each in outcomes):.1f} s"
    )
    if disk is None:
        text += f"; {NOT_TRIED}"
    return Figure(text, not problems and (disk is not None or scale.is_quick))


def _on_postgresql(scale: Scale, directory: Path, disk: SmallDisk | None) -> list[Outcome]:
    place = disk.directory if disk else directory / "postgresql"
    place.mkdir(exist_ok=True)
    server = prepared_server(place, {})
    with _trial(scale, directory, server.url) as trial:
        row = trial.fleet.worker_ids[0]
        cases = [
            Case("PostgreSQL stopped", partial(stopped, server), scale.of(2, 30), is_gone=True),
            Case("PostgreSQL stalled", partial(stalled, server), scale.of(4, 30), is_gone=True),
            Case("tables locked", partial(locked, server, ALL_TABLES), scale.of(3, 12)),
        ]
        if not scale.is_quick:
            cases.append(Case("one row locked", partial(locked, server, ONE_ROW, row), 12))
        if disk:
            cases.append(Case("PostgreSQL's disk full", partial(disk_full, server, disk), scale.of(2, 30)))
        outcomes = [trial.outcome(case) for case in cases]
    server.stop()
    return outcomes


def _on_sqlite(scale: Scale, directory: Path, disk: SmallDisk | None) -> list[Outcome]:
    path = (disk.directory if disk else directory) / "database.sqlite3"
    with _trial(scale, directory, f"sqlite:///{path}") as trial:
        cases = [Case("SQLite locked", partial(write_locked, path), scale.of(4, 12))]
        if disk:
            cases.append(Case("SQLite's disk full", partial(sqlite_full, path, disk), scale.of(2, 30)))
        return [trial.outcome(case) for case in cases]


@contextmanager
def _small_disk(directory: Path) -> Iterator[SmallDisk | None]:
    """None without the right to mount."""
    try:
        disk = SmallDisk(directory)
    except PermissionError:
        yield None
        return
    try:
        yield disk
    finally:
        disk.remove()


@contextmanager
def _trial(scale: Scale, directory: Path, url: str) -> Iterator["Trial"]:
    """The service under load on a database; afterwards every acknowledged start must be on record."""
    service = Service(directory, url)
    service.prepare()
    fleet = service.create_fleet(scale.of(32, 200), organization_id=urlsplit(url).scheme)
    service.start()
    load(service.port, [start_call], fleet, len(fleet.worker_ids))  # else a heartbeat may be a worker's first word
    trial = Trial(service, fleet)
    try:
        yield trial
    finally:
        trial.load.stop()
        service.stop()
    if missing := missing_starts(url, trial.load.answers):
        message = f"{len(missing)} acknowledged starts missing"
        raise AssertionError(message)


class Trial:
    """The service, its callers, and what watches its health."""

    def __init__(self, service: Service, fleet: Fleet) -> None:
        self.service = service
        self.load = Load(service.port, endless(KINDS, fleet)).start()
        self.fleet = fleet
        self.secrets = [
            fleet.api_key,
            fleet.temporal_api_key,
            fleet.litellm_api_key,
            urlsplit(service.environ["DATABASE_URL"]).password or fleet.api_key,
        ]
        self._await_calm(time.monotonic())

    def outcome(self, case: Case) -> Outcome:
        """Takes the database away and gives it back."""
        livez, readyz = Watch(self.service, "/livez"), Watch(self.service, "/readyz")
        first = len(self.load.answers.all)
        with case.away():
            began = time.monotonic()
            time.sleep(case.seconds)
            ended = time.monotonic()
        back = time.monotonic()
        is_calm = self._await_calm(back)
        livez.stop()
        readyz.stop(back + BOUND)
        answers = Answers(self.load.answers.all[first:])
        recovery = max([answer.began_at - back for answer in answers.of(503)] + [0.0])
        problems = [*self._problems(answers), *_health_problems(livez, readyz)]
        if case.is_gone and (untrue := {status for status in readyz.within(began, ended) if status != UNAVAILABLE}):
            problems.append(f"/readyz answered {untrue} meanwhile")
        if not is_calm or recovery > BOUND:
            problems.append(f"not recovered within {BOUND} s")
        outcome = Outcome(case.name, answers, problems, recovery, livez.slowest())
        say(f"{case.name} for {case.seconds:.0f} s: {outcome}; /readyz within {readyz.slowest():.1f} s")
        return outcome

    def _problems(self, answers: Answers) -> Iterator[str]:
        if (odd := Answers(answers.other_than(200, 204, 503))).all:
            yield f"answered {odd.statuses()}"
        if late := [answer for answer in answers.all if answer.seconds > BOUND]:
            yield f"{len(late)} of {len(answers.all)} answers after more than {BOUND} s"
        if not answers.of(503):
            yield "nothing was refused, so nothing was tried"
        if any(not (answer.retry_after or "").isdigit() for answer in answers.of(503)):
            yield "503 without Retry-After"
        if any(self._has_secret(answer) for answer in answers.other_than(200)):
            yield "a secret in a refusal"

    def _has_secret(self, answer: Answer) -> bool:
        return any(secret.encode() in answer.body for secret in self.secrets)

    def _await_calm(self, since: float) -> bool:
        """Whether, within twice the bound, so many starts in a row passed that began since then."""
        while time.monotonic() < since + 2 * BOUND:
            latest = self.load.answers.all[-CALM:]
            if len(latest) == CALM and all(each.status in {200, 204} and each.began_at > since for each in latest):
                return True
            time.sleep(0.05)
        return False


class Watch:
    """Asks a path four times a second: when it was asked, its status and how long it took."""

    def __init__(self, service: Service, path: str) -> None:
        self.seen: list[tuple[float, int, float]] = []
        self._service, self._path = service, path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def stop(self, patience_until: float = 0.0) -> None:
        """Ends it, and asks once more, so that the last answer is of the time after all; until that time, until it is 200.

        For a moment one process may still refuse when the other serves already.
        """
        self._is_over.set()
        self._thread.join()
        self._ask_once()
        while self.seen[-1][1] != OK and time.monotonic() < patience_until:
            time.sleep(PACE)
            self._ask_once()

    def slowest(self) -> float:
        """Seconds."""
        return max(seconds for _, _, seconds in self.seen)

    def within(self, began: float, ended: float) -> list[int]:
        """The statuses of what was asked and answered between these times."""
        return [status for at, status, seconds in self.seen if at > began and at + seconds < ended]

    def _ask(self) -> None:
        while not self._is_over.is_set():
            self._ask_once()
            self._is_over.wait(PACE)

    def _ask_once(self) -> None:
        began = time.monotonic()
        status = self._service.status_of(self._path)
        self.seen.append((began, status, time.monotonic() - began))


def _health_problems(livez: Watch, readyz: Watch) -> Iterator[str]:
    """What is wrong with their answers in any outage."""
    if odd := {status for _, status, _ in livez.seen} - {OK}:
        yield f"/livez answered {odd}"
    if odd := {status for _, status, _ in readyz.seen} - {OK, UNAVAILABLE}:
        yield f"/readyz answered {odd}"
    if readyz.seen[-1][1] == UNAVAILABLE:
        yield "/readyz says 503 when all is well again"
    if (slowest := max(livez.slowest(), readyz.slowest())) > BOUND:
        yield f"/livez or /readyz took {slowest:.1f} s"
