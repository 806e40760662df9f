"""The export of chosen workers as a table."""

import csv
import io
import re
import unicodedata
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from tests.support import factories
from tests.support.bulk_pages import LIST, act, all_ids, rows_of
from tests.support.calls import fresh_fleet, start
from tests.support.console import everything
from tests.support.factories import Fleet
from workers.admin.workers.export import WORKER_COLUMNS, as_csv, safe_cell
from workers.models import InstanceReport, Worker, WorkerInstance

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


#: In every width, and where spaces, quotes and invisible characters stand before it.
FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "＝1",
    "＋1",
    "－1",
    "＠a",
    "\u22121",
    ' "=1',
    "\u200b=1",
    "\ufeff\u202e@a",
    "\U00012544@a",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text(text: str) -> None:
    assert safe_cell(text).startswith("'")
    assert re.search(r"[\t\r;]'", safe_cell(f"host;{text}"))


@pytest.mark.parametrize(
    "text", ["", "worker-1", "a=b", "user@host", "1.5", "gpu, rack-7", "'quoted'", "Zürich", "x; y"]
)
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from("=+-@\t\r\n;'\" ＝－\u200b")))
def test_no_text_makes_a_cell_that_could_run_nor_breaks_the_table(text: str) -> None:
    document = b"".join(as_csv(["a", "b"], [[text, "end"]])).decode()
    header, row = csv.reader(io.StringIO(document, newline=""), strict=True)
    assert header == ["a", "b"]
    assert row[1] == "end"
    for part in re.split(r"[\t\r\n;]", row[0]):
        first = next(
            (char for char in unicodedata.normalize("NFKC", part) if char.isprintable() and char not in " '\"`"), ""
        )
        assert first not in set("=+-@\u2212") or "'" in part
    assert row[0][:1] not in {"\t", "\r", "\n"}
    assert row[0].replace("'", "") == text.replace("'", "")


def test_the_export_tells_what_the_list_knows(client: Client, fleet: Fleet) -> None:
    hostile = '=HYPERLINK("http://evil.example")'
    told = {"hostname": hostile, "python_version": "3.13.1", "sdk_version": ["odd"], "cli_version": "x" * 500}
    assert start(fleet, {"system_info": told}).status_code == 200
    Worker.objects.filter(pk=fleet.worker.pk).update(labels="gpu, rack-7", is_draining=True)
    rows = {row["name"]: row for row in rows_of(act(client, "export", all_ids()))}
    assert set(rows) == {"worker-1", "worker-2", "worker-3"}
    first = rows["worker-1"]
    instance = WorkerInstance.objects.get()
    assert tuple(first) == WORKER_COLUMNS
    assert first == {
        "id": str(fleet.worker.pk),
        "organization": fleet.organization.pk,
        "environment": "production",
        "queue": "default",
        "name": "worker-1",
        "labels": "gpu, rack-7",
        "liveness": "Online",
        "host": f"'{hostile}",
        "versions": first["versions"],
        "last_heartbeat": f"{instance.last_heartbeat_at:%Y-%m-%dT%H:%M:%SZ}",
        "state": "draining",
        "revision": instance.configuration_revision,
        "outdated": "no",
    }
    assert first["versions"].startswith('python 3.13.1, sdk ["odd"], cli xxx')
    assert len(first["versions"]) < 200
    assert (rows["worker-2"]["liveness"], rows["worker-2"]["host"]) == ("Never started", "")


def test_the_export_prefers_what_was_reported_last_and_tells_outdated_ones(client: Client, fleet: Fleet) -> None:
    assert start(fleet, {"system_info": {"sdk_version": "1"}}).status_code == 200
    instance = WorkerInstance.objects.get()
    InstanceReport.objects.create(
        id=instance.pk,
        organization=fleet.organization,
        instance=instance,
        reported_at=instance.started_at,
        system_info={"sdk_version": "2"},
    )
    fleet.queue.heartbeat_interval = 7
    fleet.queue.save()
    (row,) = rows_of(act(client, "export", [fleet.worker.pk]))
    assert (row["versions"], row["outdated"]) == ("sdk 2", "yes")


def test_a_worker_that_could_not_start_again_is_not_exported_as_outdated(client: Client, fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    factories.point(fleet.organization, litellm_connection=None)
    (row,) = rows_of(act(client, "export", [fleet.worker.pk]))
    assert (row["liveness"], row["outdated"]) == ("Online", "no")


def test_the_export_obeys_filters_and_organizations(client: Client, fleet: Fleet) -> None:
    fresh_fleet()
    Worker.objects.filter(name="worker-2").update(is_disabled=True)
    found = rows_of(act(client, "export", all_ids()[:1], "?state=Disabled", select_across="1"))
    assert [(row["organization"], row["name"]) for row in found] == [(fleet.organization.pk, "worker-2")]


def test_the_export_reads_page_by_page_and_changes_nothing(
    client: Client, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
) -> None:
    monkeypatch.setattr("workers.admin.workers.export.BATCH", 2)
    for number in range(4, 8):
        factories.create_worker(fleet.queue, f"worker-{number}")
    before = everything()
    with django_assert_max_num_queries(30):
        names = [row["name"] for row in rows_of(act(client, "export", all_ids()[:1], select_across="1"))]
    assert sorted(names) == [f"worker-{number}" for number in range(1, 8)]
    assert everything() == before


def test_the_export_is_of_no_more_workers_than_hold_a_thread_for_seconds(
    client: Client, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.admin.workers.bulk.MOST_EXPORTED", 2)
    assert len(rows_of(act(client, "export", all_ids()[:2]))) == 2
    refused = act(client, "export", all_ids()[:1], select_across="1")
    assert refused.status_code == 302
    assert "Nothing was exported: at most 2 workers at once." in client.get(LIST).content.decode()
