"""A worker's starts, keys, logs and audit, and who sees them."""

import json
import re
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from environments import audit
from environments.encryption import Secret
from environments.models import Role, TemporalConnection
from environments.sealing.data_keys import seal_api_key
from tests.support import factories
from tests.support.calls import heartbeat
from tests.support.console import HOSTILE, member, signed_in
from tests.support.factories import Fleet
from tests.support.worker_pages import ADA, change, element, html, loaded, refuse, starts, told, words
from workers.admin.links import link_to
from workers.api_keys.issuing import revoke_api_key
from workers.configuration.explanation import fields_of
from workers.models import WorkerInstance, WorkerStart

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


def test_each_start_tells_what_its_machine_told_anew(fleet: Fleet, client: Client) -> None:
    starts(
        fleet,
        {"hostname": "a", "pid": 1, "docker_version": "27"},
        {"hostname": "a", "pid": 2, "docker_version": "27"},
        {"hostname": "b", "pid": 2, "gpu": "H100"},
        {"hostname": "b", "pid": 2, "gpu": "H100"},
    )
    text = words(html(client, fleet.worker).split('id="latest-starts"')[1].split("All starts of this worker")[0])
    same, moved, measured, first = text.split("Started Host", 1)[1].split("Usable")[1:]
    assert "No difference to the start before" in same
    assert '3 differences to the start before System info Before After docker_version "27" removed' in moved
    assert 'gpu added "H100" hostname "a" "b"' in moved
    assert "No difference but measurements to the start before Measurements Before After pid 1 2" in measured
    assert "The first start on record." in first


def test_only_the_latest_starts_are_shown_and_the_rest_is_a_link_away(fleet: Fleet, client: Client) -> None:
    rows = [_ledger_row(fleet, minutes=minutes, system_info={"number": minutes}) for minutes in range(25)]
    WorkerStart.objects.bulk_create(rows)
    content = html(client, fleet.worker)
    assert content.count("to the start before</summary>") == 20
    address = re.search(r'href="([^"]*)">All starts of this worker', content)
    assert address
    listed = client.get(unescape(address[1]))
    assert listed.context["cl"].result_count == 25


def test_a_start_by_a_revoked_key_and_a_duplicate_are_flagged(fleet: Fleet, client: Client) -> None:
    starts(fleet, {"hostname": "a", "pid": 1}, {"hostname": "b", "pid": 2})
    revoke_api_key(fleet.api_key.pk, reason="lost", actor=ADA, now=timezone.now())
    text = words(html(client, fleet.worker).split('id="latest-starts"')[1])
    assert "b duplicate" in text
    assert "key Revoked" in text


def test_another_organization_s_past_of_the_same_id_is_not_shown(fleet: Fleet, client: Client) -> None:
    """An id may be given in a fleet's document, so also one that another organization's worker had once."""
    other = factories.create_fleet()
    row = _ledger_row(other, minutes=1, system_info={"hostname": "host-of-another"})
    row.worker_id = fleet.worker.pk
    row.save()
    audit.record("worker.deleted", fleet.worker, actor=ADA, now=timezone.now(), organization_id=other.organization.pk)
    starts(fleet, {"hostname": "mine"})
    content = html(client, fleet.worker)
    assert "host-of-another" not in content
    assert "The first start on record." in content
    assert "worker.deleted" not in content
    assert "another" not in html(client, fleet.worker.starts.get(organization=fleet.organization))
    assert "no longer known" in html(client, row)


def _ledger_row(fleet: Fleet, *, minutes: int, **values: Any) -> WorkerStart:
    return WorkerStart(
        organization=fleet.organization,
        worker=fleet.worker,
        api_key=fleet.api_key,
        started_at=timezone.now() - timedelta(minutes=minutes),
        worker_name=fleet.worker.name,
        task_queue_name=fleet.queue.task_queue_name,
        configuration_revision="0" * 12,
        temporal_connection_id=fleet.temporal.pk,
        temporal_api_key_version=1,
        litellm_connection_id=fleet.litellm.pk,
        litellm_api_key_version=1,
        **values,
    )


def test_the_keys_that_cover_the_worker_are_listed_those_that_work_first(fleet: Fleet, client: Client) -> None:
    now = timezone.now()
    revoke_api_key(factories.issue_key(fleet.worker, name="revoked").row.pk, reason="lost", actor=ADA, now=now)
    for target, name in (
        (fleet.queue, "of-queue"),
        (fleet.environment, "of-environment"),
        (fleet.organization, "of-all"),
    ):
        factories.issue_key(target, name=name)
    sibling = factories.create_worker(fleet.queue, "sibling")
    elsewhere = factories.create_queue(fleet.environment, "elsewhere")
    for target in (sibling, elsewhere, factories.create_fleet().organization):
        factories.issue_key(target, name="of-others")
    starts(fleet, {})
    table = told(client, fleet, "covering-keys")
    assert "of-others" not in table
    names = ["of-all", "of-environment", "of-queue", "key", "revoked"]
    assert (
        re.findall(r"(of-\w+|key|revoked) (?:in use by this worker )?(?:Organization|Environment|Worker)", table)
        == names
    )
    assert re.search(r"key in use by this worker Worker org-\d+/worker-1 Worker Usable in 89 d \d s ago", table)
    assert "Revoked" in table


def test_more_keys_than_fit_are_a_link_away(fleet: Fleet, client: Client) -> None:
    for number in range(20):
        factories.issue_key(fleet.queue, name=f"key-{number}")
    content = html(client, fleet.worker)
    assert words(element(content, "covering-keys")).count("Usable") == 20
    assert "There are more than these." in content
    assert f"/admin/workers/apikey/?organization={fleet.organization.pk}" in content


def test_the_reported_logs_of_every_live_process_are_shown(fleet: Fleet, client: Client) -> None:
    assert "No process of this worker has reported a log." in html(client, fleet.worker)
    for number in (1, 2):
        starts(fleet, {"hostname": f"host-{number}", "pid": number})
        heartbeat(fleet, system_info={"hostname": f"host-{number}", "pid": number}, logs=[f"polling on {number}"])
    content = html(client, fleet.worker)
    assert "polling on 1" in content
    assert "polling on 2" in content


def test_the_audit_trail_says_who_changed_which_field_to_what(fleet: Fleet, client: Client) -> None:
    change(fleet.worker, is_draining=True, description="d" * 300)
    text = told(client, fleet, "audit-events")
    assert "user:ada 203.0.113.9 worker.updated" in text
    assert "is_draining: no yes" in text
    assert "d" * 100 + "…" in text
    assert "d" * 101 not in text
    narrow = factories.create_temporal(fleet.organization, "narrow")
    change(fleet.worker, temporal_connection=narrow)
    assert "temporal_connection: narrow" in told(client, fleet, "audit-events")
    assert f"/admin/environments/auditevent/?object_id={fleet.worker.pk}" in html(client, fleet.worker)


def test_a_member_of_another_organization_sees_nothing_of_it(fleet: Fleet) -> None:
    starts(fleet, {"hostname": "mine"})
    stranger = signed_in(member(factories.create_fleet().organization, Role.ADMINISTRATOR))
    for row in (fleet.worker, WorkerStart.objects.get(), WorkerInstance.objects.get()):
        name = row._meta.label_lower.replace(".", "_")
        for query in ({}, {"part": "overview"}):
            response = stranger.get(reverse(f"admin:{name}_change", args=[row.pk], query=query), follow=True)
            assert "mine" not in response.content.decode()


def test_a_viewer_sees_all_of_it(fleet: Fleet) -> None:
    starts(fleet, {"hostname": "gpu-box-7"})
    viewer = signed_in(member(fleet.organization, Role.VIEWER))
    assert "gpu-box-7" in html(viewer, fleet.worker)
    assert 'id="audit-events"' not in html(viewer, fleet.worker)
    assert "field-temporal_host" in html(viewer, fleet.worker)


def test_the_page_costs_the_same_however_much_there_is_to_tell(fleet: Fleet, client: Client) -> None:
    costs = []
    for numbers in ([0], range(1, 22)):
        for number in numbers:
            tell_something_of_everything(fleet, number)
        change(fleet.temporal, host=f"new-{len(costs)}.example.com:7233")
        html(client, fleet.worker)
        with CaptureQueriesContext(connection) as statements:
            html(client, fleet.worker)
        costs.append(len(statements))
    assert costs[0] == costs[1]
    assert costs[1] <= 20


def tell_something_of_everything(fleet: Fleet, number: int) -> None:
    info = {"hostname": f"host-{number}", "pid": number}
    starts(fleet, info)
    heartbeat(fleet, system_info=info, logs=["line"])
    change(fleet.worker, description=f"{number}")
    refuse(factories.issue_key(fleet.queue, name=f"key-{number}").row, fleet.worker, "full")


def test_a_start_s_page_links_what_it_is_about_and_tells_what_is_different_now(fleet: Fleet, client: Client) -> None:
    starts(fleet, {"hostname": "a"}, {"hostname": "b", "cpu_count": 4})
    seal_api_key(fleet.temporal, Secret("replaced"), now=timezone.now())
    fleet.temporal.save()
    row = WorkerStart.objects.order_by("-started_at")[0]
    content = html(client, row)
    instance, before = WorkerInstance.objects.get(pk=row.pk), WorkerInstance.objects.exclude(pk=row.pk).get()
    for linked in (fleet.worker, fleet.api_key, instance, before, fleet.temporal, fleet.litellm):
        name = linked._meta.label_lower.replace(".", "_")
        assert f'href="{reverse(f"admin:{name}_change", args=[linked.pk])}"' in content
    text = words(content)
    assert f"{fleet.temporal} , API key version 1, now version 2" in text
    assert f"LiteLLM: {fleet.litellm} , API key version 1 Telemetry: none, so the defaults" in text
    assert 'System info Before After cpu_count added 4 hostname "a" "b"' in text
    assert f"{row.configuration_revision} outdated now" in text


def test_a_start_whose_worker_key_and_connections_are_gone_is_still_told(fleet: Fleet, client: Client) -> None:
    row = _ledger_row(fleet, minutes=1, system_info={"hostname": "a"})
    row.worker_id, row.api_key_id, row.temporal_connection_id = uuid4(), uuid4(), uuid4()
    row.telemetry_settings_id = uuid4()
    row.save()
    assert words(html(client, row)).count("no longer known") == 5


def test_starts_and_instances_of_a_worker_that_could_not_start_again_are_not_outdated(
    fleet: Fleet, client: Client
) -> None:
    starts(fleet, {"hostname": "a"})
    change(fleet.organization, litellm_connection=None)
    for row in (WorkerStart.objects.get(), WorkerInstance.objects.get()):
        text = words(html(client, row))
        assert "outdated" not in text
        assert f"{row.configuration_revision} now none: no LiteLLM connection at any level" in text


def test_an_instance_s_page_says_current_or_older_and_outdated(fleet: Fleet, client: Client) -> None:
    starts(fleet, {"hostname": "a", "pid": 1}, {"hostname": "b", "pid": 2})
    change(fleet.temporal, host="new.example.com:7233")
    current, older = WorkerInstance.objects.order_by("-started_at")
    assert "Process current" in words(html(client, current))
    text = words(html(client, older))
    assert "Process older" in text
    assert f"{older.configuration_revision} outdated now" in text
    content = html(client, older)
    for linked in (fleet.worker, WorkerStart.objects.get(pk=older.pk), fleet.api_key):
        name = linked._meta.label_lower.replace(".", "_")
        assert f'href="{reverse(f"admin:{name}_change", args=[linked.pk])}"' in content
    assert "<time " in client.get(reverse("admin:workers_workerinstance_changelist")).content.decode()


def test_whatever_a_worker_tells_stays_text_on_every_page(fleet: Fleet, client: Client) -> None:
    names = ("hostname", "python_version", "sdk_version", "platform", HOSTILE, "x-data", "items")
    starts(fleet, {}, dict.fromkeys(names, HOSTILE) | {"list": [HOSTILE, {HOSTILE: HOSTILE}]})
    nested = {name: {HOSTILE: [HOSTILE]} for name in names}
    heartbeat(fleet, system_info=nested, logs=[HOSTILE], current_task_id=HOSTILE)
    latest = WorkerStart.objects.order_by("-started_at")[0]
    for row in (fleet.worker, latest, WorkerInstance.objects.get(pk=latest.pk)):
        content = html(client, row)
        assert "<div x-init" not in content
        assert escape(HOSTILE) in content or escape(json.dumps(HOSTILE, ensure_ascii=False)[1:-1]) in content
        assert "49\u202c" not in content


def test_a_connection_s_type_is_told_apart_from_a_secret(fleet: Fleet) -> None:
    """No row of the page carries a sealed text, whatever a template may show of it later."""
    setting = next(field for field in fields_of(loaded(fleet.worker), link_to) if field.is_credential).winner
    assert setting is not None
    assert isinstance(setting.row, TemporalConnection)
    assert setting.value == fleet.temporal.api_key_fingerprint
