"""A machine of the database fails, and the service goes on with the other one: nothing acknowledged is lost.

Once with the service on PostgreSQL itself and once through PgBouncer, the machine of the primary is killed with all that
runs on it while the fleet starts and beats; then it is started again, rejoins, and the other one is killed.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.drills.cluster import Cluster
from tests.drills.drill import Figure, Scale, say
from tests.drills.load import Answers, Load, endless, heartbeat_call, load, start_call
from tests.drills.service import Fleet, Service

WORKERS = 200
CALLERS = 8
#: Seconds of load before a machine is killed, and after the service is back.
BEFORE, AFTER = 5, 5
#: Seconds within which starts must succeed again, with the monitor's settings as in tests/drills/cluster.py.
PROMISED = 60
#: The last is a connection that the server closed, having answered 503 before it read the body: nothing was acknowledged.
EXPECTED = (200, 204, 503, 0)


@dataclass
class Failover:
    """What came of one machine's end."""

    acknowledged: int
    missing: int
    away: float
    is_same_service: bool
    strangers: dict[int, int]


def run(scale: Scale, directory: Path) -> Figure:
    kills = scale.of(1, 3)
    cluster = Cluster(directory / "cluster")
    service = Service(directory, cluster.url())
    try:
        service.prepare()
        fleet = service.create_fleet(WORKERS)
        found = _serve(cluster, service, fleet, range(kills))
        service.environ |= {"DATABASE_URL": cluster.url(is_pooled=True), "DATABASE_IS_POOLED": "true"}
        _check_limits(cluster)
        found += _serve(cluster, service, fleet, range(kills, 2 * kills))
    finally:
        cluster.stop()
    missing, longest = sum(each.missing for each in found), max(each.away for each in found)
    is_met = not missing and longest <= PROMISED and all(each.is_same_service and not each.strangers for each in found)
    text = (
        f"{missing} of {sum(each.acknowledged for each in found):,} acknowledged starts missing after the primary's"
        f" machine was killed {len(found)} times, half of them through PgBouncer; starts succeeded again after"
        f" {min(each.away for each in found):.0f} to {longest:.0f} s, without restart of the service"
    )
    strangers = {status for each in found for status in each.strangers}
    return Figure(f"{text}; also answered {sorted(strangers)}" if strangers else text, is_met)


def _serve(cluster: Cluster, service: Service, fleet: Fleet, numbers: range) -> list[Failover]:
    """The service's processes are the same ones throughout."""
    service.start()
    try:
        load(service.port, [start_call], fleet, WORKERS, callers=CALLERS)  # without a start, a heartbeat is refused
        return [_fail_over(cluster, service, fleet, number) for number in numbers]
    finally:
        service.stop()


def _fail_over(cluster: Cluster, service: Service, fleet: Fleet, number: int) -> Failover:
    cluster.wait_until_synchronous()
    machine, processes = cluster.primary(), service.worker_processes()
    calls = endless((start_call, heartbeat_call), fleet, first=(number + 1) * 1_000_000)
    callers = Load(service.port, calls, callers=CALLERS).start()
    time.sleep(BEFORE)
    killed_at = time.monotonic()
    cluster.kill(machine)
    back_at = _wait_for_a_start(callers, killed_at)
    time.sleep(AFTER)
    answers = callers.stop()
    is_same = service.worker_processes() == processes
    way = "through PgBouncer" if "DATABASE_IS_POOLED" in service.environ else "directly"
    away = back_at - killed_at
    say(
        f"{machine.name} killed, reached {way}: starts again after {away:.1f} s; statuses {answers.statuses()},"
        f" the slowest took {answers.slowest():.1f} s"
    )
    acknowledged = [answer.call.mark for answer in answers.of(200)]
    missing = set(acknowledged) - _recorded(cluster)
    strangers = Answers(answers.other_than(*EXPECTED)).statuses()
    cluster.start(machine)
    return Failover(len(acknowledged), len(missing), away, is_same, strangers)


def _wait_for_a_start(callers: Load, killed_at: float) -> float:
    """When the first start that began after the kill was acknowledged."""
    while time.monotonic() < killed_at + 2 * PROMISED:
        ended = [a.began_at + a.seconds for a in callers.answers.of(200) if a.began_at > killed_at + 0.5]
        if ended:
            return min(ended)
        time.sleep(0.2)
    return time.monotonic()


def _recorded(cluster: Cluster) -> set[str]:
    """The marks of all starts in the ledger of the machine that is primary now."""
    with psycopg.connect(cluster.url()) as connection:
        return {mark for (mark,) in connection.execute("SELECT system_info->>'mark' FROM workers_workerstart")}


def _check_limits(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url(is_pooled=True), prepare_threshold=None) as connection:
        for name, limit in (("lock_timeout", "2s"), ("statement_timeout", "5s")):
            assert connection.execute(f"SHOW {name}").fetchone() == (limit,), name
