"""Texts that start a worker in containers and clusters, and what they are filled with."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support import factories
from tests.support.factories import Fleet
from tests.support.installing import CLUSTER, KEY, calls, container, deployment, in_container, values, variables
from workers.installation.queue import (
    BACKLOG_METRIC,
    PACKAGES_UNTIL,
    PROGRAM,
    REQUIREMENTS,
    SCALERS,
    DeploymentType,
    install_script,
    worker_command,
)
from workers.models import WorkerQueue

#: What no URL of a careful person looks like, with everything that shells, YAML and HTML take for their own.
HOSTILE_URL = "https://plane.example.com/'\"$(touch pwned)`touch pwned`${HOME};{x}&<y> #z: *a !b %c|\\d"
each_cluster = pytest.mark.parametrize("deployment_type", CLUSTER)


def test_docker_runs_one_container_that_installs_and_runs_the_worker(fleet: Fleet, programs: Path) -> None:
    (docker,) = calls(install_script(fleet.queue, DeploymentType.DOCKER), programs)
    *options, image, bash, strict, pipefail, c, script = docker["arguments"]
    assert options[:3] == ["run", "--rm", "--init"]
    assert [image, bash, strict, pipefail, c] == ["python:3.12", "bash", "-euo", "pipefail", "-c"]
    *_, worker = calls(f"set -euo pipefail\nPATH={programs}:$PATH\n{in_container(programs, script)}", programs)
    assert worker["program"] == PROGRAM


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


@pytest.mark.parametrize("limit", [None, 3])
def test_what_scales_names_the_deployment_the_gauge_and_the_limit(fleet: Fleet, limit: int | None) -> None:
    fleet.queue.max_workers = limit
    name = deployment(fleet.queue, CLUSTER[0])["metadata"]["name"]
    labels = {"organization": fleet.organization.pk, "environment": "production", "queue": "default"}
    keda, hpa = (deployment(fleet.queue, kind) for kind in SCALERS)
    assert keda["spec"]["scaleTargetRef"] == {"name": name}
    assert hpa["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    assert keda["spec"]["maxReplicaCount"] == hpa["spec"]["maxReplicas"] == (limit or 10)
    asked = keda["spec"]["triggers"][0]["metadata"]["query"]
    matched = ",".join(f'{label}="{value}"' for label, value in labels.items())
    assert asked == f"max({BACKLOG_METRIC}{{{matched}}})"
    metric = hpa["spec"]["metrics"][0]["external"]["metric"]
    assert metric == {"name": BACKLOG_METRIC, "selector": {"matchLabels": labels}}
