"""Runs drills: `python -m tests.drills [--quick] [NAME ...]`; all of them unless some are named."""

import argparse
import importlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from tests.drills.cluster import missing_programs
from tests.drills.drill import Figure, Scale
from tests.drills.service import prepare_server

#: One module each, in the order of docs/design/reliability.md.
NAMES = (
    "crash",
    "outage",
    "sqlite",
    "encryption_rotation",
    "key_rotation",
    "tokens",
    "fuzzing",
    "odd_clients",
    "isolation",
    "canaries",
    "slow_clients",
    "neighbours",
    "notifications",
    "restore",
    "upgrade",
    "memory",
)
#: Mostly waits, for minutes, so that a quick one runs beside two others.
IDLE = "notifications"
#: The one that needs more than `make development` installs: run when named and, at full size, where its programs are.
FAILOVER = "failover"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*NAMES, FAILOVER]))
    parser.add_argument("--quick", action="store_true", help="the size for every change instead of the full one")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32), help="the one that an earlier run printed")
    options = parser.parse_args()
    if strangers := set(options.names) - {*NAMES, FAILOVER}:
        parser.error(f"there is no drill {', '.join(sorted(strangers))}; there are {', '.join([*NAMES, FAILOVER])}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"seed: --seed={options.seed}")
    scale = Scale(is_quick=options.quick, seed=options.seed)
    names = options.names or [*NAMES, *_failover(is_quick=options.quick)]
    is_beside = options.quick and len(names) > 1
    found = _run_beside(names, options.seed) if is_beside else [run(name, scale) for name in names]
    if len(found) > 1:
        print("\n".join(["", *found]))
    failed, untried = (sum(mark in line for line in found) for mark in ("NOT AS PROMISED", "NOT TRIED"))
    print(f"drills: {len(found) - failed - untried} passed, {failed} failed, {untried} not tried")
    return 1 if failed else 0


def _failover(*, is_quick: bool) -> list[str]:
    """Its name if it is to run, too; a full run says why not."""
    if is_quick:
        return []
    if missing := missing_programs():
        print(f"{FAILOVER}: not run, since {' and '.join(missing)} are not installed: see docs/operate/scale.md")
        return []
    return [FAILOVER]


def _run_beside(names: list[str], seed: int) -> list[str]:
    """Runs quick drills two at a time, and one that waits, each in a process whose output is shown when it has ended.

    A quick one keeps about one core busy; and what is promised has to hold beside other work.
    """
    running: list[subprocess.Popen[str]] = []

    def run_apart(name: str) -> str:
        command = [sys.executable, "-m", "tests.drills", "--quick", f"--seed={seed}", name]
        with nullcontext() if name == IDLE else cores:
            if is_over.is_set():
                return f"{name}: not begun"
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603  # our own
            running.append(process)
            output, _ = process.communicate()
        print(output, flush=True)
        figures = [line for line in output.splitlines() if line.startswith(f"{name} (")]
        return figures[-1] if figures else f"{name}: ended with {process.returncode}: NOT AS PROMISED"

    cores, is_over, pool = threading.Semaphore(2), threading.Event(), ThreadPoolExecutor(len(names))
    try:
        with tempfile.TemporaryDirectory(prefix="drills-", ignore_cleanup_errors=True) as directory:
            prepare_server(Path(directory))
            return list(pool.map(run_apart, names))
    except KeyboardInterrupt:
        is_over.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()
        raise
    finally:
        pool.shutdown()


def run(name: str, scale: Scale) -> str:
    """Runs one drill and prints its figure last; an error is a figure too, after its traceback."""
    module = importlib.import_module(f"tests.drills.{name}")
    print(f"{name}: {(module.__doc__ or '').partition('\n')[0]}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"drill-{name}-", ignore_cleanup_errors=True) as directory:
        try:
            figure: Figure = module.run(scale, Path(directory))
        except Exception as error:  # noqa: BLE001  # the other drills are still to run
            traceback.print_exc()
            figure = Figure(f"ended by {type(error).__name__}: {error}", is_met=False)
    line = f"{name} ({time.monotonic() - began:.0f} s): {figure}"
    print(line, flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main())
