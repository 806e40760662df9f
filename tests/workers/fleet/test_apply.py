import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from controlplane.startup.env import ROOT
from environments.models import AuditEvent, Organization
from tests.support import factories
from tests.support.documents import ACME, ACME_SIZE, ENVIRON, everything
from tests.support.special_files import SPECIAL_FILES, make_special_file
from workers.lifecycle import Client, start_worker
from workers.lifecycle.starts import Attempt
from workers.models import Worker

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "fleet.yaml"
    path.write_text(ACME)
    return path


def run(*arguments: Any) -> list[str]:
    stdout = io.StringIO()
    call_command("apply", *[str(argument) for argument in arguments], stdout=stdout)
    return stdout.getvalue().splitlines()


def test_tells_each_change_and_the_counts(file: Path) -> None:
    lines = run(file)
    assert lines[0] == "created organization acme"
    assert lines[-1] == "8 created, 0 updated, 0 deleted, 0 unchanged"
    assert len(lines) == ACME_SIZE + 1
    assert run(file) == ["0 created, 0 updated, 0 deleted, 8 unchanged"]
    assert set(AuditEvent.objects.values_list("actor", flat=True)) == {"command:apply"}


@pytest.mark.skipif(connection.vendor != "postgresql", reason="its planner's")
def test_after_many_changes_the_database_knows_how_many_rows_there_are(file: Path) -> None:
    workers = ", ".join(f"{{name: many-{number}}}" for number in range(60))
    queue = f"{{name: q, workers: [{workers}]}}"
    file.write_text(f"organizations: [{{id: acme, name: A, environments: [{{name: e, worker_queues: [{queue}]}}]}}]")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        for arguments, is_known in ((["--dry-run"], False), ([], True)):
            run(file, *arguments)
            cursor.execute("SELECT reltuples >= 60 FROM pg_class WHERE relname = 'workers_worker'")
            assert cursor.fetchall() == [(is_known,)]


def test_a_dry_run_says_would(file: Path) -> None:
    before = everything()
    lines = run(file, "--dry-run")
    assert lines[0] == "would be created organization acme"
    assert lines[-1] == "8 created, 0 updated, 0 deleted, 0 unchanged (dry run: would be, nothing was changed)"
    assert everything() == before


def test_prune_counts_what_it_disables_and_keeps(file: Path) -> None:
    run(file)
    file.write_text("organizations: [{id: acme}]")
    lines = run(file, "--prune")
    assert "kept temporal_connection acme/cloud (in use by 1 organization)" in lines
    assert lines[-1] == "0 created, 0 updated, 4 deleted, 3 kept, 1 unchanged"


def test_json_is_one_document(file: Path) -> None:
    (line,) = run(file, "--format", "json", "--dry-run")
    document = json.loads(line)
    assert document["is_dry_run"] is True
    assert {name: document[name] for name in ("created", "updated", "deleted", "disabled", "kept", "unchanged")} == {
        "created": 8,
        "updated": 0,
        "deleted": 0,
        "disabled": 0,
        "kept": 0,
        "unchanged": 0,
    }
    worker = document["changes"][-2]
    assert worker["action"] == "created"
    assert worker["name"] == "acme/production/default/w1"
    assert worker["id"] == "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    assert document["changes"][0]["fields"]["name"] == {"before": None, "after": "Acme"}


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_the_output_names_processes_that_are_cut_off(file: Path, options: list[str]) -> None:
    run(file)
    worker = Worker.objects.get(name="w1")
    key = factories.issue_key(worker.queue)
    attempt = Attempt(
        factories.presented(key.row), {"hostname": "one", "pid": 1}, Client("192.0.2.1", ""), timezone.now()
    )
    start_worker(worker.pk, attempt)
    right = f"{{name: right, workers: [{{name: w1, id: {worker.pk}}}]}}"
    file.write_text(f"organizations: [{{id: acme, environments: [{{name: production, worker_queues: [{right}]}}]}}]")
    sentence = "1 running process uses an API key that does not reach acme.production.right"
    assert run(file, "--dry-run")[-1] == sentence
    (line,) = run(file, "--format", "json", *options)
    document = json.loads(line)
    queue_id = document["cut_off"][0].pop("queue_id")
    assert document["cut_off"] == [{"queue": "acme.production.right", "processes": 1}]
    assert queue_id == document["impact"][0]["queue_id"]
    assert document["impact"][0]["online"] == 1


def test_reads_standard_input(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ACME.encode())))
    assert run("-")[-1].startswith("8 created")


def test_names_standard_input_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"organizations: 5")))
    with pytest.raises(CommandError, match="<stdin>:1: organizations: expected a list"):
        run("-")


def test_a_byte_order_mark_does_no_harm(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + ACME.encode())
    assert run(file)[-1].startswith("8 created")


def test_the_paths_of_secrets_start_at_the_file(file: Path) -> None:
    (file.parent / "key").write_text("from-a-file\n")
    file.write_text(ACME.replace("env: TEMPORAL_API_KEY", "file: key"))
    assert run(file)[-1].startswith("8 created")


@pytest.mark.parametrize("content", [b"organizations: 5", b"\xff", b"\0", b"[", b"x" * 5_000_001, b""])
def test_what_cannot_be_applied_is_a_command_error(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(CommandError) as caught:
        run(file)
    assert str(caught.value).startswith(f"Nothing was changed.\n{file}")


@pytest.mark.parametrize("name", ["missing.yaml", "", "a" * 300])
def test_a_file_that_cannot_be_read_is_a_command_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        run(tmp_path / name)


@pytest.mark.parametrize("kind", SPECIAL_FILES)
def test_a_document_that_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    reason = make_special_file(tmp_path / "fleet.yaml", kind)
    with pytest.raises(CommandError, match=f"fleet.yaml cannot be read: {reason}"):
        run(tmp_path / "fleet.yaml")


def test_a_document_may_come_from_a_pipe_that_the_caller_has_opened(file: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, ACME.encode())
    os.close(writer)
    try:
        assert run(f"/dev/fd/{reader}")[-1].startswith("8 created")
    finally:
        os.close(reader)


def test_the_example_can_be_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_LITELLM_API_KEY", "demo-2")
    example = ROOT / "examples" / "fleet.yaml"
    assert run(example)[-1] == "8 created, 0 updated, 0 deleted, 0 unchanged"
    assert run(example, "--prune")[-1] == "0 created, 0 updated, 0 deleted, 8 unchanged"
    assert Organization.objects.get().id == "demo"
    assert [*map(str, Worker.objects.order_by("name"))] == ["demo/first-worker", "demo/second-worker"]
