"""The texts that start a worker are run here, with stand-ins for the programs that would be fetched from the network.

`tests/upstream` runs them with the real worker.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import factories
from tests.support.factories import Fleet
from tests.support.processes import ServerProcess
from workers.installation.queue import (
    PACKAGES_UNTIL,
    PROGRAM,
    REQUIREMENTS,
    WORKER_PACKAGE_VERSION,
    DeploymentType,
    install_script,
    worker_command,
)
from workers.models import WorkerQueue

BASH = shutil.which("bash") or "bash"
KEY = "the-key-of-this-test"
#: What no URL of a careful person looks like, with everything that shells, YAML and HTML take for their own.
HOSTILE_URL = "https://plane.example.com/'\"$(touch pwned)`touch pwned`${HOME};{x}&<y> #z: *a !b %c|\\d"
SHELL = (DeploymentType.LOCAL, DeploymentType.DOCKER)
CLUSTER = (DeploymentType.KUBERNETES, DeploymentType.OPENSHIFT)
each_type = pytest.mark.parametrize("deployment_type", DeploymentType)
each_cluster = pytest.mark.parametrize("deployment_type", CLUSTER)
#: Tells how it was called, as one line of JSON.
RECORDER = """#!/usr/bin/env python3
import json, os, sys
print(json.dumps({"program": os.path.basename(sys.argv[0]), "arguments": sys.argv[1:], "environ": dict(os.environ)}))
"""
#: A Python that is suitable, and whose venv module puts recorders where the programs would be.
PYTHON = """#!/usr/bin/env bash
set -eu
[ "$1" = -c ] && exit 0
[ "$1 $2 $3" = "-m venv --clear" ]
rm -rf "$4" && mkdir -p "$4/bin"
for program in python uv; do cp {recorder} "$4/bin/$program"; done
cp {worker} "$4/bin/{program}"
"""


@pytest.fixture
def fleet(db: None) -> Fleet:
    return factories.create_fleet()


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with recorders named `docker`, `uvx` and, once it is installed, as the worker, and a stand-in for Python."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("docker", "recorder", "uvx", "worker"):
        write_program(folder / name, RECORDER)
    paths = {"recorder": folder / "recorder", "worker": folder / "worker"}
    write_program(folder / "python-stand-in", PYTHON.format(program=PROGRAM, **paths))
    return folder


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def run(script: str, programs: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs bash in a home of its own, with the recorders before all other programs."""
    home = programs.parent / "home"
    home.mkdir(exist_ok=True)
    given = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home), "PYTHON": str(programs / "python-stand-in")}
    return subprocess.run(  # noqa: S603
        [BASH], input=script, env=given | environ, cwd=home, capture_output=True, text=True, check=False, timeout=60
    )


def calls(script: str, programs: Path, **environ: str) -> list[dict[str, Any]]:
    """How the recorders were called, in their order; nothing else is printed, and nothing goes wrong."""
    done = run(script, programs, KUBIYA_API_KEY=KEY, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def variables(queue: WorkerQueue, url: str = "http://127.0.0.1:8000") -> dict[str, str]:
    interval = str(queue.heartbeat_interval)
    return {"CONTROL_PLANE_URL": url, "QUEUE_ID": str(queue.pk), "HEARTBEAT_INTERVAL": interval}


def deployment(queue: WorkerQueue, deployment_type: DeploymentType) -> dict[str, Any]:
    (document,) = yaml.safe_load_all(install_script(queue, deployment_type))
    return document  # type: ignore[no-any-return]


def container(document: dict[str, Any]) -> dict[str, Any]:
    (found,) = document["spec"]["template"]["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def values(document: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(document)["env"] if "value" in variable}


def texts(queue: WorkerQueue) -> list[str]:
    command = worker_command(queue)
    return [command.command, *command.parts.values(), *(install_script(queue, kind) for kind in DeploymentType)]


# --- Every text --------------------------------------------------------------------------------------------------------


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


# --- On this machine ---------------------------------------------------------------------------------------------------


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


# --- It is brought back ------------------------------------------------------------------------------------------------

#: Ends as the existing worker does when its start is answered 503, so often, and then well.
FAILS = """#!/usr/bin/env bash
echo started >> "$HOME/starts"
[ "$(wc -l < "$HOME/starts")" -gt {times} ]
"""
#: Ends in good order on SIGINT only, as the existing worker does.
RUNS = """#!/usr/bin/env python3
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


@each_type
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


def in_session(leader: int) -> list[int]:
    """The ids of a session's processes that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that has ended since
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            found += [int(path.parent.name)] if int(session) == leader and state not in {"Z", "X"} else []
    return found


# --- In a container ----------------------------------------------------------------------------------------------------


def test_docker_runs_one_container_that_installs_and_runs_the_worker(fleet: Fleet, programs: Path) -> None:
    (docker,) = calls(install_script(fleet.queue, DeploymentType.DOCKER), programs)
    *options, image, bash, strict, pipefail, c, script = docker["arguments"]
    assert options[:3] == ["run", "--rm", "--init"]
    assert [image, bash, strict, pipefail, c] == ["python:3.12", "bash", "-euo", "pipefail", "-c"]
    *_, worker = calls(f"set -euo pipefail\nPATH={programs}:$PATH\n{in_container(programs, script)}", programs)
    assert worker["program"] == PROGRAM


def in_container(programs: Path, script: str) -> str:
    """The container's script, with the stand-in for the image's Python."""
    return script.replace("python=python", f"python={programs}/python-stand-in")


def test_docker_passes_the_variables_and_hands_the_key_over_by_name(fleet: Fleet, programs: Path) -> None:
    (docker,) = calls(install_script(fleet.queue, DeploymentType.DOCKER), programs)
    arguments = docker["arguments"]
    passed = [arguments[index + 1] for index, argument in enumerate(arguments) if argument == "--env"]
    assert passed == ["HOME=/tmp", "KUBIYA_API_KEY", *(f"{n}={v}" for n, v in variables(fleet.queue).items())]
    assert KEY not in " ".join(arguments)
    assert docker["environ"]["KUBIYA_API_KEY"] == KEY
    assert arguments[arguments.index("--user") + 1] == "1000:1000"


@pytest.mark.parametrize("is_local", [True, False])
def test_docker_shares_the_network_only_with_a_control_plane_on_this_machine(
    is_local: bool, fleet: Fleet, programs: Path, settings: Any
) -> None:
    settings.IS_LOCAL = is_local
    (docker,) = calls(install_script(fleet.queue, DeploymentType.DOCKER), programs)
    assert ("--network" in docker["arguments"]) == is_local


# --- In a cluster ------------------------------------------------------------------------------------------------------


@each_cluster
def test_a_manifest_is_one_deployment_whose_parts_name_each_other(
    fleet: Fleet, deployment_type: DeploymentType
) -> None:
    document = deployment(fleet.queue, deployment_type)
    assert (document["apiVersion"], document["kind"]) == ("apps/v1", "Deployment")
    name, spec = document["metadata"]["name"], document["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == {"app": name}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(document)["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    assert mounts == {"home": values(document)["HOME"], "tmp": "/tmp"}  # noqa: S108  # within a container
    assert values(document)["HOME"] == container(document)["workingDir"]


@pytest.mark.parametrize(("deployment_type", "client"), [(CLUSTER[0], "kubectl"), (CLUSTER[1], "oc")])
def test_a_manifest_takes_the_key_from_the_secret_that_its_comment_creates(
    fleet: Fleet, deployment_type: DeploymentType, client: str
) -> None:
    (variable,) = [v for v in container(deployment(fleet.queue, deployment_type))["env"] if "valueFrom" in v]
    assert variable["name"] == "KUBIYA_API_KEY"
    reference = variable["valueFrom"]["secretKeyRef"]
    created = f"{client} create secret generic {reference['name']} --from-file={reference['key']}=/dev/stdin"
    comments = [line for line in install_script(fleet.queue, deployment_type).splitlines() if line.startswith("#")]
    assert [line for line in comments if line.endswith(f'printf %s "$KUBIYA_API_KEY" | {created}')]


@each_cluster
def test_a_manifest_passes_the_variables_as_texts(fleet: Fleet, deployment_type: DeploymentType) -> None:
    document = deployment(fleet.queue, deployment_type)
    assert values(document) == {"HOME": "/home/worker", **variables(fleet.queue)}


@each_cluster
def test_a_pod_has_no_rights_that_it_does_not_need(fleet: Fleet, deployment_type: DeploymentType) -> None:
    document = deployment(fleet.queue, deployment_type)
    pod = document["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert container(document)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    # OpenShift chooses the user itself, and refuses one that a manifest names.
    expected = {} if deployment_type == DeploymentType.OPENSHIFT else user
    profile = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["securityContext"] == expected | profile


@each_cluster
def test_a_pod_installs_and_runs_the_worker(fleet: Fleet, deployment_type: DeploymentType, programs: Path) -> None:
    found = container(deployment(fleet.queue, deployment_type))
    assert (found["image"], found["command"]) == ("python:3.12", ["bash", "-euo", "pipefail", "-c"])
    (script,) = found["args"]
    _, uv, worker = calls(f"set -euo pipefail\n{in_container(programs, script)}", programs)
    assert uv["arguments"][-4:] == ["--exclude-newer", PACKAGES_UNTIL, *REQUIREMENTS]
    assert (worker["program"], worker["arguments"]) == (PROGRAM, [])


@each_cluster
@pytest.mark.parametrize("is_local", [True, False])
def test_a_manifest_warns_of_a_control_plane_that_no_pod_reaches(
    is_local: bool, fleet: Fleet, deployment_type: DeploymentType, settings: Any
) -> None:
    settings.IS_LOCAL = is_local
    assert ("which no pod reaches" in install_script(fleet.queue, deployment_type)) == is_local


@each_cluster
@pytest.mark.parametrize("queue_name", ["123", "no", "null", "1e5", "0x1f", "a" * 63, f"{'a' * 37}-{'b' * 25}"])
def test_names_in_a_cluster_are_texts_that_it_takes(
    queue_name: str, fleet: Fleet, deployment_type: DeploymentType
) -> None:
    queue = factories.create_queue(fleet.environment, queue_name)
    name = deployment(queue, deployment_type)["metadata"]["name"]
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,56}[a-z0-9])", name)


# --- The command -------------------------------------------------------------------------------------------------------


def test_the_command_runs_the_pinned_worker_with_the_key_of_the_environment(fleet: Fleet, programs: Path) -> None:
    command = worker_command(fleet.queue).command
    assert "\n" not in command
    (uvx,) = calls(command, programs)
    assert uvx["environ"].items() >= {**variables(fleet.queue), "KUBIYA_API_KEY": KEY}.items()
    assert uvx["arguments"][-5:] == ["--from", REQUIREMENTS[0], "--with", REQUIREMENTS[1], PROGRAM]
    assert PACKAGES_UNTIL in uvx["arguments"]


def test_the_command_is_made_of_its_parts(fleet: Fleet) -> None:
    command = worker_command(fleet.queue)
    program = command.parts["program"]
    assert command.parts == {**variables(fleet.queue), "program": program}
    key, *words = shlex.split(command.command)
    assert key == "KUBIYA_API_KEY=$KUBIYA_API_KEY"
    assert words == [f"{name}={value}" for name, value in variables(fleet.queue).items()] + shlex.split(program)


# --- What they are filled with -----------------------------------------------------------------------------------------


def test_a_hostile_url_is_only_ever_a_value(fleet: Fleet, programs: Path, settings: Any) -> None:
    settings.CONTROL_PLANE_URL = HOSTILE_URL
    *_, worker = calls(install_script(fleet.queue, DeploymentType.LOCAL), programs)
    assert worker["environ"]["CONTROL_PLANE_URL"] == HOSTILE_URL
    (docker,) = calls(install_script(fleet.queue, DeploymentType.DOCKER), programs)
    assert f"CONTROL_PLANE_URL={HOSTILE_URL}" in docker["arguments"]
    (uvx,) = calls(worker_command(fleet.queue).command, programs)
    assert uvx["environ"]["CONTROL_PLANE_URL"] == HOSTILE_URL
    for deployment_type in CLUSTER:
        assert values(deployment(fleet.queue, deployment_type))["CONTROL_PLANE_URL"] == HOSTILE_URL
    assert not list(programs.parent.rglob("pwned"))


@pytest.mark.parametrize("interval", [5, 3600])
def test_the_interval_is_the_queue_s(interval: int, fleet: Fleet, programs: Path) -> None:
    fleet.queue.heartbeat_interval = interval
    *_, worker = calls(install_script(fleet.queue, DeploymentType.LOCAL), programs)
    assert worker["environ"]["HEARTBEAT_INTERVAL"] == str(interval)


def test_tls_is_left_out_exactly_if_the_connection_that_wins_has_none(fleet: Fleet, programs: Path) -> None:
    plain = factories.create_temporal(fleet.organization, "plain", is_tls_enabled=False)
    assert "TEMPORAL_HOST" not in worker_command(fleet.queue).parts
    factories.point(fleet.environment, temporal_connection=plain)
    queue = WorkerQueue.objects.get(pk=fleet.queue.pk)
    assert worker_command(queue).parts["TEMPORAL_HOST"] == "temporal:"
    assert values(deployment(queue, DeploymentType.KUBERNETES))["TEMPORAL_HOST"] == "temporal:"
    *_, worker = calls(install_script(queue, DeploymentType.LOCAL), programs)
    assert worker["environ"]["TEMPORAL_HOST"] == "temporal:"
    factories.point(queue, temporal_connection=fleet.temporal)
    assert "TEMPORAL_HOST" not in worker_command(queue).parts


def test_a_queue_without_a_temporal_connection_has_a_command_too(fleet: Fleet) -> None:
    factories.point(fleet.organization, temporal_connection=None)
    assert worker_command(fleet.queue).parts.keys() == {*variables(fleet.queue), "program"}


def test_a_queue_that_is_loaded_with_its_chain_costs_no_more_statements(
    fleet: Fleet, django_assert_num_queries: Any
) -> None:
    queue = WorkerQueue.objects.with_chain().get(pk=fleet.queue.pk)
    with django_assert_num_queries(0):
        install_script(queue, DeploymentType.KUBERNETES)
        worker_command(queue)
