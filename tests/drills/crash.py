"""Nothing acknowledged is lost: PostgreSQL, one application process, and both are killed under a load of starts.

Every caller that was answered 200 holds secrets, so its start must be on record however abruptly anything ends.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.drills.drill import Figure, Scale, say
from tests.drills.load import Answers, Load, endless, start_call
from tests.drills.records import missing_starts
from tests.drills.service import Service, prepared_server
from tests.support.databases import PostgresqlServer

#: Seconds without a single acknowledged start after which the drill gives up.
STANDSTILL = 60


def run(scale: Scale, directory: Path) -> Figure:
    (directory / "postgresql").mkdir()
    server = prepared_server(directory / "postgresql", {})
    service = Service(directory, server.url)
    service.prepare()
    fleet = service.create_fleet(scale.of(32, 200))
    service.start()
    starts, kills = scale.of(400, 10_000), scale.of(3, 9)
    load = Load(service.port, endless([start_call], fleet)).start()
    crash = Crash(server, service, load.answers)
    for number in range(kills):
        crash.wait_for(starts * (number + 1) // (kills + 1))
        crash.kill(number)
    crash.wait_for(starts)
    answers = load.stop()
    missing = missing_starts(server.url, answers)
    service.stop()
    server.stop()
    acknowledged, odd = len(answers.of(200)), answers.other_than(200, 503, 0)
    text = (
        f"{len(missing)} of {acknowledged:,} acknowledged starts missing after {kills} kills, {len(odd)} answers other"
        f" than 200 and 503; starts passed again within {max(crash.recoveries):.1f} s"
    )
    return Figure(text, not missing and not odd and acknowledged >= starts)


class Crash:
    """Kills, in turn, PostgreSQL, one application process, and both; and waits until starts pass again."""

    def __init__(self, server: PostgresqlServer, service: Service, answers: Answers) -> None:
        self.server, self.service, self.answers = server, service, answers
        self.recoveries: list[float] = []

    def wait_for(self, acknowledged: int) -> None:
        """Returns once so many starts are acknowledged."""
        seen, since = 0, time.monotonic()
        while (count := len(self.answers.of(200))) < acknowledged:
            if count > seen:
                seen, since = count, time.monotonic()
            if time.monotonic() - since > STANDSTILL:
                message = f"no start passed for {STANDSTILL} s: {self.answers.statuses()}"
                raise AssertionError(message)
            time.sleep(0.02)

    def kill(self, number: int) -> None:
        """Kills what the turn of this number is, and returns when starts pass again."""
        name, victims = (
            ("PostgreSQL", (self._kill_postgresql,)),
            ("an application process", (self._kill_process,)),
            ("PostgreSQL and an application process", (self._kill_process, self._kill_postgresql)),
        )[number % 3]
        _do_all(victims)
        began = time.monotonic()
        before = len(self.answers.of(200))
        # A call that began before the kill may still be answered; one for each caller is more than those.
        self.wait_for(before + len(self.service.worker_processes()) + 32)
        self.recoveries.append(time.monotonic() - began)
        say(f"killed {name} after {before:,} starts; starts passed again {self.recoveries[-1]:.1f} s later")

    def _kill_postgresql(self) -> None:
        self.server.kill()
        self.server.start()

    def _kill_process(self) -> None:
        os.kill(self.service.worker_processes()[0], signal.SIGKILL)


def _do_all(actions: tuple[Callable[[], None], ...]) -> None:
    for action in actions:
        action()
