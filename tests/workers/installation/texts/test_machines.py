"""Texts that start a worker on a machine."""

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.factories import Fleet
from tests.support.installing import (
    BASH,
    CLUSTER,
    KEY,
    PYTHON_LINE,
    calls,
    container,
    deployment,
    in_container,
    run,
    variables,
    write_program,
)
from tests.support.processes import ServerProcess
from workers.installation.queue import (
    PACKAGES_UNTIL,
    PROGRAM,
    REQUIREMENTS,
    SCALERS,
    WORKER_PACKAGE_VERSION,
    DeploymentType,
    install_script,
    worker_command,
)
from workers.models import WorkerQueue

SHELL = (DeploymentType.LOCAL, DeploymentType.DOCKER)
each_type = pytest.mark.parametrize("deployment_type", DeploymentType)


def texts(queue: WorkerQueue) -> list[str]:
    command = worker_command(queue)
    return [command.command, *command.parts.values(), *(install_script(queue, kind) for kind in DeploymentType)]


def test_no_text_holds_a_secret(fleet: Fleet) -> None:
    everything = "".join(texts(fleet.queue))
    for secret in (fleet.token, fleet.temporal_secret, fleet.litellm_secret, fleet.temporal.sealed_api_key):
        assert secret not in everything


@each_type
def test_a_text_says_which_queue_it_is_for(fleet: Fleet, deployment_type: DeploymentType) -> None:
    comments = [line for line in install_script(fleet.queue, deployment_type).splitlines() if line.startswith("#")]
    assert f"the queue {fleet.queue.task_queue_name}" in "".join(comments)


@pytest.mark.parametrize("deployment_type", SHELL)
def test_a_script_is_bash_and_ends_with_a_line(fleet: Fleet, deployment_type: DeploymentType) -> None:
    script = install_script(fleet.queue, deployment_type)
    assert script.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in script.splitlines()
    assert script.endswith("\n")
    assert not script.endswith("\n\n")
    checked = subprocess.run([BASH, "-n"], input=script, capture_output=True, text=True, check=False)  # noqa: S603
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("deployment_type", SHELL)
def test_a_script_without_a_key_says_what_to_set(fleet: Fleet, deployment_type: DeploymentType, programs: Path) -> None:
    done = run(install_script(fleet.queue, deployment_type), programs)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Set KUBIYA_API_KEY to an API key of this queue")


def test_local_installs_the_pinned_worker_once_and_runs_it(fleet: Fleet, programs: Path) -> None:
    script = install_script(fleet.queue, DeploymentType.LOCAL)
    pip, uv, worker = calls(script, programs)
    assert pip["arguments"] == ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"]
    assert uv["arguments"][:3] == ["pip", "install", "--quiet"]
    assert uv["arguments"][-4:] == ["--exclude-newer", PACKAGES_UNTIL, *REQUIREMENTS]
    assert (worker["program"], worker["arguments"]) == (PROGRAM, [])
    assert [call["program"] for call in calls(script, programs)] == [PROGRAM]
    assert (programs.parent / "home" / ".control-plane-worker" / WORKER_PACKAGE_VERSION / "is-installed").exists()


def test_local_installs_again_what_was_broken_off(fleet: Fleet, programs: Path) -> None:
    script = install_script(fleet.queue, DeploymentType.LOCAL)
    directory = programs.parent / "elsewhere"
    assert len(calls(script, programs, WORKER_DIRECTORY=str(directory))) == 3
    (directory / WORKER_PACKAGE_VERSION / "is-installed").unlink()
    assert len(calls(script, programs, WORKER_DIRECTORY=str(directory))) == 3


def test_local_tells_the_worker_its_queue_and_its_key(fleet: Fleet, programs: Path) -> None:
    *_, worker = calls(install_script(fleet.queue, DeploymentType.LOCAL), programs)
    assert worker["environ"].items() >= {**variables(fleet.queue), "KUBIYA_API_KEY": KEY}.items()


def test_local_says_that_no_python_was_found(fleet: Fleet, programs: Path) -> None:
    bare = programs.parent / "bare"
    bare.mkdir()
    done = run(
        install_script(fleet.queue, DeploymentType.LOCAL), programs, KUBIYA_API_KEY=KEY, PATH=str(bare), PYTHON=""
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("No Python 3.10 or newer was found")


#: Ends as the existing worker does when its start is answered 503, so often, and then well.
FAILS = """#!/usr/bin/env bash
echo started >> "$HOME/starts"
[ "$(wc -l < "$HOME/starts")" -gt {times} ]
"""
#: Ends in good order on SIGINT only, as the existing worker does.
RUNS = f"""{PYTHON_LINE}
import signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
print("running", flush=True)
signal.pause()
"""


def script_that_runs(program: str, queue: WorkerQueue, kind: DeploymentType, programs: Path) -> str:
    """The script of this kind as far as it is bash, with this program for the worker."""
    write_program(programs / "worker", program)
    if kind in CLUSTER:
        (script,) = container(deployment(queue, kind))["args"]
    else:
        script = install_script(queue, kind)
    if kind == DeploymentType.DOCKER:
        (docker,) = calls(script, programs)
        script = docker["arguments"][-1]
    return in_container(programs, f"set -euo pipefail\n{script}")


@pytest.mark.parametrize("deployment_type", [kind for kind in DeploymentType if kind not in SCALERS])
def test_a_worker_whose_start_fails_is_started_again_later_and_later(
    fleet: Fleet, deployment_type: DeploymentType, programs: Path
) -> None:
    script = script_that_runs(FAILS.format(times=10), fleet.queue, deployment_type, programs)
    write_program(programs / "sleep", '#!/bin/sh\necho "$1" >> "$HOME/pauses"\n')
    done = run(script, programs, KUBIYA_API_KEY=KEY)
    assert done.returncode == 0
    home = programs.parent / "home"
    # Shims of the machine's own may sleep for parts of a second.
    pauses = [int(line) for line in (home / "pauses").read_text().split() if line.isdigit()]
    assert done.stderr.splitlines() == [f"The worker has ended; it is started again in {pause} s." for pause in pauses]
    assert len((home / "starts").read_text().splitlines()) == 11
    longest = [2, 4, 8, 16, 32, 64, 120, 120, 120, 120]
    assert all(1 <= pause <= most for pause, most in zip(pauses, longest, strict=True))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    ("program", "told"),
    [(RUNS, "running"), (FAILS.format(times=99), "The worker has ended")],
    ids=["while it runs", "before it is started again"],
)
def test_whatever_ends_the_script_ends_the_worker_in_the_same_way(
    fleet: Fleet, programs: Path, number: int, program: str, told: str
) -> None:
    script = script_that_runs(program, fleet.queue, DeploymentType.LOCAL, programs)
    write_program(programs / "sleep", f"#!/bin/sh\nexec {shutil.which('sleep')} 300\n")
    (programs.parent / "home").mkdir(exist_ok=True)
    environ = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(programs.parent / "home"), "KUBIYA_API_KEY": KEY}
    process = ServerProcess(
        [BASH, "-c", script], log=programs / "log", env=environ | {"PYTHON": str(programs / "python-stand-in")}
    )
    process.wait_until(lambda: told in process.log_text(), seconds=60)
    process.wait_until(lambda: len(process.descendants()) == 1, seconds=60)
    process._process.send_signal(number)
    is_handled = program == RUNS and number == signal.SIGINT
    assert process._process.wait(10) == (0 if is_handled else 128 + number)
    assert in_session(process.pid) == []


def test_no_moment_is_there_in_which_a_signal_is_taken_for_a_failure(
    fleet: Fleet, programs: Path, seeded_random: random.Random
) -> None:
    """A child is born, and the signal comes before the script's next command."""
    write_program(programs / "fails", "#!/bin/sh\nexit 3\n")
    script = install_script(fleet.queue, DeploymentType.LOCAL)
    loop = script[script.index("set -m") :].replace(f'"$environment/bin/{PROGRAM}"', "fails")
    assert "until began=$SECONDS && run fails;" in loop
    environ = {"PATH": f"{programs}:{os.environ['PATH']}"}
    for number in range(40):
        process = ServerProcess([BASH, "-c", f"set -euo pipefail\n{loop}"], log=programs / f"log-{number}", env=environ)
        time.sleep(seeded_random.uniform(0, 0.02))
        process._process.terminate()
        # Before the script says what a signal does, the signal just ends it; 3 is a child that had ended by itself.
        assert process._process.wait(10) in {128 + signal.SIGTERM, -signal.SIGTERM, 3}
        assert in_session(process.pid) == []


def in_session(leader: int) -> list[int]:
    """The ids of a session's processes that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that has ended since
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            found += [int(path.parent.name)] if int(session) == leader and state not in {"Z", "X"} else []
    return found
