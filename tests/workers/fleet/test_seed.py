import io
import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from environments.models import Environment, LiteLLMConnection, Organization, TemporalConnection
from environments.roles import EVERYWHERE
from environments.sealing.data_keys import open_api_key
from tests.support.documents import everything
from workers.configuration.effective import revision_of, sections_of, show_configuration
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue, WorkerStart
from workers.reports.attention import crash_looping, outdated

pytestmark = pytest.mark.django_db

SYSTEM_INFO = {
    *("hostname", "platform", "os_name", "os_version", "python_version", "cli_version", "sdk_version", "pid", "cwd"),
    *("supported_runtimes", "docker_available", "docker_version", "cpu_count", "cpu_percent", "memory_total"),
    *("memory_used", "memory_percent", "disk_total", "disk_used", "disk_percent", "uptime_seconds"),
}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "ids"


def run(
    output: Path, *, organizations: Any = 2, queues: Any = 3, workers: Any = 10, starts: Any = 25
) -> dict[str, int]:
    stdout = io.StringIO()
    arguments = [f"--organizations={organizations}", f"--queues={queues}", f"--workers={workers}", f"--starts={starts}"]
    call_command("seed_fleet", *arguments, f"--output={output}", "--format=json", stdout=stdout)
    counts: dict[str, int] = json.loads(stdout.getvalue())
    return counts


def test_makes_as_many_as_asked_for_spread_evenly(output: Path) -> None:
    counts = run(output)
    assert counts == {
        "organizations": 2,
        "queues": 3,
        "workers": 10,
        "starts": 25,
        "instances": WorkerInstance.objects.count(),
    }
    assert [organization.id for organization in Organization.objects.all()] == ["seed-1", "seed-2"]
    assert Environment.objects.count() == 2
    assert ApiKey.objects.count() == 4
    assert WorkerQueue.objects.count() == 3
    assert sorted(Counter(Worker.objects.values_list("queue", flat=True)).values()) == [3, 3, 4]
    assert sorted(Counter(WorkerStart.objects.values_list("worker", flat=True)).values()) == [2] * 5 + [3] * 5


def test_writes_the_ids_of_the_workers_one_a_line(output: Path) -> None:
    run(output)
    assert sorted(output.read_text().splitlines()) == sorted(
        str(pk) for pk in Worker.objects.values_list("pk", flat=True)
    )


def test_a_second_run_adds_to_the_first(output: Path) -> None:
    Organization.objects.create(id="seed-old", name="Not numbered")
    run(output, organizations=9)
    run(output, organizations=2)
    assert set(Organization.objects.values_list("id", flat=True)) >= {"seed-9", "seed-10", "seed-11"}
    assert Worker.objects.count() == 20
    assert len(output.read_text().splitlines()) == 10


def test_the_starts_are_what_real_ones_would_be(output: Path) -> None:
    run(output)
    now = timezone.now()
    for start in WorkerStart.objects.all():
        worker = Worker.objects.with_chain().get(pk=start.worker_id)
        assert set(start.system_info) == SYSTEM_INFO
        assert timedelta(0) <= now - start.started_at <= timedelta(days=30, minutes=1)
        assert start.task_queue_name == worker.queue.task_queue_name
        assert start.organization_id == worker.organization_id == start.api_key.organization_id
        current = revision_of(show_configuration(worker, sections_of(worker)), worker.queue)
        assert (start.configuration_revision == current) == (start.temporal_api_key_version == 2)


def test_instances_belong_to_the_last_start_and_differ_in_liveness(output: Path) -> None:
    run(output, workers=300, starts=600)
    now = timezone.now()
    instances = list(WorkerInstance.objects.filter(is_current=True).select_related("worker"))
    assert 250 < len(instances) < 300
    for instance in instances:
        last = instance.worker.starts.latest("started_at")
        assert (instance.pk, instance.started_at) == (last.pk, last.started_at)
        assert instance.started_at <= instance.last_heartbeat_at <= now
    liveness = Counter(instance.liveness for instance in WorkerInstance.objects.with_liveness(now))
    assert len(liveness) == 4
    assert liveness.most_common(1)[0][0] == "Online"


def test_every_organization_has_the_troubles_that_a_console_shows(output: Path) -> None:
    run(output, workers=120, starts=360)
    now = timezone.now()
    for organization in Organization.objects.all():
        workers = Worker.objects.filter(organization=organization)
        mine = {"organization": organization}
        assert WorkerInstance.objects.duplicates(now).filter(**mine).count() == 1
        assert crash_looping(now).filter(**mine).count() == 1
        assert 0 < outdated(workers.with_liveness(now), EVERYWHERE, now).count() < 20
        assert ApiKey.objects.filter(**mine, expires_at__lt=now + timedelta(days=13)).count() == 1
        assert LiteLLMConnection.objects.filter(**mine).exclude(verification_problem="").count() == 1
        assert TemporalConnection.objects.filter(**mine, api_key_expires_on__isnull=False).count() == 1


def test_connections_have_sealed_secrets_of_their_own(output: Path) -> None:
    run(output)
    first, second = [open_api_key(connection).reveal() for connection in TemporalConnection.objects.all()]
    assert first != second
    assert min(len(first), len(second)) >= 32


def test_a_fleet_without_workers_or_starts_is_possible(output: Path) -> None:
    assert run(output, workers=0, starts=0)["workers"] == 0
    assert output.read_text() == ""
    assert run(output, starts=0)["instances"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"organizations": 0}, "--organizations: a whole number from 1"),
        ({"organizations": "x"}, "--organizations: a whole number from 1"),
        ({"queues": 0}, "--queues: a whole number from 1"),
        ({"workers": -1}, "--workers: a whole number from 0"),
        ({"starts": "9" * 5000}, "--starts: a whole number from 0 to 100,000,000"),
        ({"starts": "²"}, "--starts: a whole number"),
        ({"workers": 0}, "Starts need workers"),
    ],
)
def test_bad_numbers_are_refused_in_words(output: Path, options: dict[str, Any], message: str) -> None:
    before = everything()
    with pytest.raises(CommandError, match=message):
        run(output, **options)
    assert everything() == before


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    before = everything()
    with pytest.raises(CommandError, match="cannot be written"):
        run(tmp_path / "missing" / "ids")
    assert everything() == before
