"""SQLite carries a fleet on one machine: 32 callers start and heartbeat at once and nothing fails."""

from pathlib import Path

from tests.drills.drill import Figure, Scale
from tests.drills.load import heartbeat_call, load, start_call
from tests.drills.records import missing_starts
from tests.drills.service import Service


def run(scale: Scale, directory: Path) -> Figure:
    url = f"sqlite:///{directory}/database.sqlite3"
    service = Service(directory, url)
    service.prepare()
    fleet = service.create_fleet(scale.of(32, 200))
    service.start()
    load(service.port, [start_call], fleet, len(fleet.worker_ids))  # a heartbeat of what never started is refused
    answers = load(service.port, [start_call, heartbeat_call], fleet, scale.of(600, 4_000))
    service.stop()
    failed, missing = answers.other_than(200, 204), missing_starts(url, answers)
    text = (
        f"{len(failed)} of {len(answers.all):,} starts and heartbeats of 32 clients failed, {len(missing)} starts missing;"
        f" half within {answers.percentile(0.5) * 1000:.0f} ms, all within {answers.slowest() * 1000:.0f} ms"
    )
    return Figure(text, not failed and not missing)
