"""A process that serves a million starts and heartbeats does not grow by more than 10 MB.

One process of the production server answers starts and heartbeats, one to four, over HTTP. Its resident memory is read
from the kernel; and since that moves by pages and arenas, the blocks that Python's allocator holds are counted in the
process too. 10 MB a million calls are 10 bytes a call: one small object that is kept every tenth call. That shows in the
blocks after some hundred calls, in the resident memory it does not; what is lost outside of Python shows only there.
"""

from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from tests.drills.drill import Figure, Scale, say
from tests.drills.load import PATIENCE, Answers, heartbeat_call, load, start_call
from tests.drills.service import Fleet, Service, prepared_server

MIX = (start_call, heartbeat_call, heartbeat_call, heartbeat_call, heartbeat_call)
CALLERS = 8
PARTS = 20
#: Few, and no multiple of the kinds of calls, so that each worker makes all of them. The throttles keep an entry for each
#: worker that started and each minute, up to 100,000 of them: with many workers these would be all that is seen to grow.
WORKERS = 3
MEGABYTE = 1_000_000
#: At small size.
MOST_TRIES = 3
#: Bytes that the process may grow by in a million calls.
MOST_GROWTH = 10 * MEGABYTE
#: 10 bytes a call, in blocks of 100 bytes.
MOST_BLOCKS_PER_CALL = 0.1


def run(scale: Scale, directory: Path) -> Figure:
    (database := directory / "database").mkdir()
    server = prepared_server(database, {})
    service = CountedService(directory, server.url, processes=1)
    service.prepare()
    fleet = service.create_fleet(WORKERS)
    service.start()
    try:
        return _try(service, fleet, scale)
    finally:
        service.stop()
        server.stop()


def _try(service: "CountedService", fleet: Fleet, scale: Scale) -> Figure:
    """The first figure that is small enough, else the last: what is kept of each call shows in every one.

    At small size a process is hardly warm on a busy machine, where a thread may get its first call late.
    """
    for _ in range(scale.of(MOST_TRIES, 1)):
        figure = measure(service, fleet, warm_up=scale.of(3_000, 20_000), calls=scale.of(2_000, 1_000_000))
        if figure.is_met:
            break
        say(f"not yet: {figure.text}")
    return figure


class CountedService(Service):
    """The service with its count of what it holds."""

    def command(self) -> list[str]:
        return self.granian("tests.drills.allocations:application")

    def held(self) -> "Held":
        """What its one process holds."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("GET", "/allocated")
        blocks = int(connection.getresponse().read())
        status = Path(f"/proc/{self.worker_processes()[-1]}/status").read_text()
        (resident,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
        return Held(blocks, 1024 * int(resident))


@dataclass(frozen=True)
class Held:
    """Blocks of Python's allocator, and bytes of resident memory."""

    blocks: int
    resident: int


def measure(service: CountedService, fleet: Fleet, *, warm_up: int, calls: int) -> Figure:
    """Calls in parts, after each of which it is said what the process holds."""
    load(service.port, MIX, fleet, warm_up, callers=CALLERS)
    held, failed = [service.held()], 0
    for part in range(1, PARTS + 1):
        answers = load(service.port, MIX, fleet, calls // PARTS, callers=CALLERS)
        failed += len(odd := answers.other_than(HTTPStatus.OK, HTTPStatus.NO_CONTENT))
        if odd:
            say(f"  failed: {Answers(odd).statuses()}, {odd[0].body[:100]!r}")
        held.append(now := service.held())
        more = now.blocks - held[0].blocks
        say(f"{part * calls // PARTS:,} calls: {more:+,} blocks, {now.resident / MEGABYTE:.1f} MB resident")
    return _figure(held, calls, failed)


def _figure(held: list[Held], calls: int, failed: int) -> Figure:
    grown = held[-1].resident - held[0].resident
    blocks = _blocks_per_call(held, calls)
    text = (
        f"{grown / MEGABYTE:+.1f} MB resident and {blocks:+.3f} blocks a call after {calls:,} starts and heartbeats in one "
        f"process of {held[0].resident / MEGABYTE:.0f} MB, {failed} failed"
    )
    is_small = grown <= MOST_GROWTH and blocks <= MOST_BLOCKS_PER_CALL
    return Figure(text, is_met=is_small and not failed)


def _blocks_per_call(held: list[Held], calls: int) -> float:
    """From the median of the first half to that of the second, since what is held for a moment comes and goes."""
    half = len(held) // 2
    first, second = (median(each.blocks for each in part) for part in (held[1 : half + 1], held[half + 1 :]))
    return (second - first) / (calls / 2)
