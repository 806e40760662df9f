"""Runs the benchmark: `python -m tests.bench`; one table: reference and product, and the product to the reference."""

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from controlplane.serving import server
from tests.bench import contest
from tests.bench.contest import PRODUCT, REFERENCE, Round, run, variants
from tests.bench.reference.databases import THREADS

ENGINES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
KINDS = ("start", "heartbeat", "queue start")
#: The columns that have a ratio: the name of the figure, its title, its decimals.
COLUMNS = (
    ("rate", "calls/s", 0),
    ("p50", "p50 ms", 1),
    ("p99", "p99 ms", 1),
    ("server_cpu", "server CPU", 2),
    ("database_cpu", "database CPU", 2),
    ("cpu", "both CPU", 2),
)
NAME, COLUMN = 36, 13


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="of each variant")
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        parser.error("the benchmark calls with wrk; on Debian and Ubuntu: apt-get install wrk")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(_heading(options.rounds, options.seconds), flush=True)
    failed = 0
    for engine in ENGINES if options.engine == "both" else [options.engine]:
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
            for kind, found in _bench(engine, Path(directory), options.rounds, options.seconds):
                print("\n".join(_rows(f"{ENGINES[engine]} {kind}", found)), flush=True)
                failed += sum(each.failed for rounds in found.values() for each in rounds)
    return 1 if failed else 0


def _bench(engine: str, directory: Path, rounds: int, seconds: int) -> Iterator[tuple[str, dict[str, list[Round]]]]:
    """Each kind of call with the rounds of both variants, which took turns."""
    with variants(engine, directory) as both:
        for kind in KINDS:
            for variant in both:
                run(variant, kind, directory, seconds=1)  # each thread compiles and prepares its statements
            found: dict[str, list[Round]] = {REFERENCE: [], PRODUCT: []}
            for variant in both * rounds:
                found[variant.name].append(run(variant, kind, directory, seconds=seconds))
            yield kind, found


def _heading(rounds: int, seconds: int) -> str:
    return (
        f"{contest.CALLERS} callers, {contest.WORKERS:,} workers in {contest.QUEUES} queues, {contest.API_KEYS} keys;"
        f" {contest.PROCESSES} server processes, of the reference with {THREADS} threads, of the product with"
        f" {server.THREADS}\nmedians of {rounds} x {seconds} s in turn; CPU is ms a call, user and system; a queue start"
        f" is compared to the reference's start\n\n{'':{NAME}}{''.join(f'{title:>{COLUMN}}' for _, title, _ in COLUMNS)}"
        f"{'failed':>{COLUMN}}"
    )


def _rows(name: str, found: dict[str, list[Round]]) -> Iterator[str]:
    """A row for each variant, then the product's figures in those of the reference.

    A ratio is the median of neighbouring rounds' ratios, so that a machine that slows down slows both.
    """
    for variant, rounds in found.items():
        cells = (_cell([getattr(each, figure) for each in rounds], decimals) for figure, _, decimals in COLUMNS)
        failed = sum(each.failed for each in rounds)
        yield f"{f'{name}, {variant}':{NAME}}{''.join(cells)}{failed:{COLUMN}}"
    pairs = list(zip(found[PRODUCT], found[REFERENCE], strict=True))
    yield f"{f'{name}, ratio':{NAME}}{''.join(_ratio(figure, pairs) for figure, _, _ in COLUMNS)}\n"


def _ratio(figure: str, pairs: list[tuple[Round, Round]]) -> str:
    rounds = [(getattr(product, figure), getattr(reference, figure)) for product, reference in pairs]
    return _cell([of_product / of_reference for of_product, of_reference in rounds if of_reference], 2)


def _cell(values: list[float], decimals: int) -> str:
    """The median; a dash where there is nothing to measure, as of SQLite, which has no process of its own."""
    return f"{statistics.median(values):{COLUMN},.{decimals}f}" if any(values) else f"{'-':>{COLUMN}}"


if __name__ == "__main__":
    sys.exit(main())
