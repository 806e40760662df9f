"""`manage.py list_workers`: the console's liveness and Outdated, for scripts and for cron."""

import io
import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments.encryption import Secret
from environments.sealing.data_keys import seal_api_key
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from tests.support.processes import ROOT
from workers.models import WorkerInstance

pytestmark = pytest.mark.django_db


@pytest.fixture
def fleet() -> Fleet:
    """One worker online, one offline, one stopped, one never started."""
    fleet = fresh_fleet()
    now = timezone.now()
    start(fleet, {"system_info": {"hostname": "host-1"}})
    for name, values in (
        ("offline", {"last_heartbeat_at": now - timedelta(hours=1)}),
        ("stopped", {"stopped_at": now}),
        ("never", None),
    ):
        worker = factories.create_worker(fleet.queue, name)
        if values is not None:
            start(fleet, worker_id=worker.pk, token=factories.issue_token(worker))
            WorkerInstance.objects.filter(worker=worker).update(**values)
    return fleet


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("list_workers", *arguments, stdout=out)
    return out.getvalue()


def run_json(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, "--format=json").splitlines()]


def names(*arguments: str) -> list[str]:
    return [row["path"].rpartition("/")[2] for row in run_json(*arguments)]


def replace_secret(fleet: Fleet) -> None:
    seal_api_key(fleet.temporal, Secret("another secret"), now=timezone.now())
    fleet.temporal.save()


# --- What it prints ----------------------------------------------------------------------------------------------------


def test_each_line_of_json_is_one_worker_in_the_order_of_paths(fleet: Fleet) -> None:
    rows = run_json()
    path = f"{fleet.organization.pk}/production/default"
    assert [(row["path"], row["liveness"]) for row in rows] == [
        (f"{path}/never", "Never started"),
        (f"{path}/offline", "Offline"),
        (f"{path}/stopped", "Stopped"),
        (f"{path}/worker-1", "Online"),
    ]
    online = rows[-1]
    instance = WorkerInstance.objects.get(worker=fleet.worker)
    assert online == {
        "id": str(fleet.worker.pk),
        "path": f"{path}/worker-1",
        "liveness": "Online",
        "is_outdated": False,
        "hostname": "host-1",
        "started_at": instance.started_at.isoformat(),
        "last_heartbeat_at": instance.last_heartbeat_at.isoformat(),
        "is_disabled": False,
        "is_draining": False,
        "state_reason": None,
        "state_ends_at": None,
        "is_ephemeral": False,
        "work": None,
        "refusal": None,
        "refused_since": None,
        "refusals": 0,
        "missing": None,
    }
    assert rows[0]["hostname"] is rows[0]["started_at"] is rows[0]["last_heartbeat_at"] is None


def test_a_line_for_a_person_cannot_steer_the_terminal(fleet: Fleet) -> None:
    WorkerInstance.objects.filter(worker=fleet.worker).update(hostname="h\x1b[2J")
    fleet.worker.is_draining = True
    fleet.worker.save()
    (line,) = run("--liveness=online").splitlines()
    assert line.startswith("Online ")
    assert line.endswith(f"worker-1 ({fleet.worker.pk})  h\\u001b[2J  draining")


# --- What is wanted ----------------------------------------------------------------------------------------------------


def test_lists_by_liveness(fleet: Fleet) -> None:
    assert names("--liveness=online") == ["worker-1"]
    assert names("--liveness=offline", "--liveness=never-started") == ["never", "offline"]
    assert names("--liveness=late") == []


def test_lists_one_queue_by_its_path_or_its_id_and_one_organization(fleet: Fleet) -> None:
    queue = factories.create_queue(fleet.environment, "other")
    factories.create_worker(queue, "elsewhere")
    factories.create_fleet()
    assert names(f"--queue={fleet.organization.pk}/production/other") == names(f"--queue={queue.pk}") == ["elsewhere"]
    assert len(names(f"--organization={fleet.organization.pk}")) == 5
    assert len(names()) == 6


def test_lists_live_workers_that_run_with_an_older_configuration(fleet: Fleet) -> None:
    assert names("--outdated") == []
    replace_secret(fleet)
    assert names("--outdated") == ["worker-1"]
    assert [row["is_outdated"] for row in run_json()] == [False, False, False, True]


def test_a_worker_that_could_not_start_again_is_not_outdated(fleet: Fleet) -> None:
    factories.point(fleet.organization, litellm_connection=None)
    assert names("--outdated") == []
    assert [row["is_outdated"] for row in run_json()] == [False] * 4
    line = run("--liveness=online")
    assert "cannot start: no LiteLLM connection at any level" in line
    assert "outdated" not in line


def test_is_outdated_by_the_workers_own_connection_alone(fleet: Fleet) -> None:
    second = factories.create_worker(fleet.queue, "second")
    start(fleet, worker_id=second.pk, token=factories.issue_token(second))
    factories.point(second, temporal_connection=factories.create_temporal(fleet.organization, "own"))
    assert names("--outdated") == ["second"]
    assert [row["path"] for row in run_json() if row["is_outdated"]] == [row["path"] for row in run_json("--outdated")]


# --- For cron ----------------------------------------------------------------------------------------------------------


def test_fails_when_any_is_listed_only_if_asked(fleet: Fleet) -> None:
    run("--liveness=offline")
    run("--liveness=late", "--fail-if-any")
    with pytest.raises(CommandError, match="Workers listed: 1") as caught:
        run("--liveness=offline", "--fail-if-any")
    assert caught.value.returncode == 1


@pytest.mark.parametrize("queue", ["nowhere", "a/b/c", "a/b/c/d", "\0/x/y", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"])
def test_a_queue_that_is_not_there_is_told_from_one_without_workers(fleet: Fleet, queue: str) -> None:
    with pytest.raises(CommandError, match="There is no such queue") as caught:
        run(f"--queue={queue}")
    assert caught.value.returncode == 2


@pytest.mark.parametrize("arguments", [["--liveness=dead"], ["--organization=A B"], ["--format=xml"], ["extra"]])
def test_refuses_nonsense(fleet: Fleet, arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)


def test_the_exit_code_of_the_program_is_2_when_it_could_not_look() -> None:
    environ = os.environ | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    command = [sys.executable, "manage.py", "list_workers"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


# --- At size -----------------------------------------------------------------------------------------------------------


def test_takes_as_many_statements_for_many_workers_as_for_few(fleet: Fleet) -> None:
    def statements(*arguments: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            run(*arguments)
        return len(queries)

    replace_secret(fleet)
    few = statements(), statements("--outdated")
    for number in range(50):
        factories.create_worker(fleet.queue, f"more-{number}")
    assert (statements(), statements("--outdated")) == few
    assert few == (4, 6)
