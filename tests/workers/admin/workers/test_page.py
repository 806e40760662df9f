"""A worker's page: how it is at a glance, what it is given and from where, its starts, keys, refusals and audit."""

import json
import re
from dataclasses import fields
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
from environments.audit import Actor
from environments.encryption import Secret
from environments.models import Role, TemporalConnection
from environments.sealing.data_keys import seal_api_key
from tests.support import factories
from tests.support.calls import heartbeat, start
from tests.support.console import HOSTILE, member, person, signed_in
from tests.support.factories import Fleet
from workers.admin.links import link_to
from workers.api_keys.issuing import revoke_api_key
from workers.configuration.effective import WorkerConfiguration, sections_of, show_configuration
from workers.configuration.explanation import fields_of
from workers.models import ApiKey, Refusal, Worker, WorkerInstance, WorkerStart

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

ADA = Actor("user:ada", "203.0.113.9")


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def html(client: Client, row: Any, **query: Any) -> str:
    name = row._meta.label_lower.replace(".", "_")
    response = client.get(reverse(f"admin:{name}_change", args=[row.pk], query=query))
    assert response.status_code == 200
    return response.content.decode()


def element(content: str, identifier: str) -> str:
    """The element with this id, up to the end tag of its first namesake; enough for tables, rows and paragraphs."""
    found = re.search(rf'<(\w+)[^>]* ?id="{identifier}".*?</\1>', content, re.DOTALL)
    return found[0] if found else ""


def words(content: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", content)).split())


def told(client: Client, fleet: Fleet, identifier: str) -> str:
    """The words of one element of the worker's page."""
    return words(element(html(client, fleet.worker), identifier))


def starts(fleet: Fleet, *reports: dict[str, Any]) -> None:
    for report in reports:
        assert start(fleet, {"system_info": report}).status_code == 200


def change(row: Any, **values: Any) -> None:
    """As the console changes a row: with an audit event."""
    before = audit.snapshot(row)
    for name, value in values.items():
        setattr(row, name, value)
    row.save()
    changes = audit.difference(before, audit.snapshot(row))
    audit.record(f"{audit.kind_of(row)}.updated", row, actor=ADA, now=timezone.now(), changes=changes)


def refuse(key: ApiKey, worker: Worker, reason: str) -> Refusal:
    return Refusal.objects.create(
        id=key.pk,
        api_key=key,
        organization_id=key.organization_id,
        worker_id=worker.pk,
        occurred_at=timezone.now(),
        status=409,
        reason=reason,
        client_address="203.0.113.77",
    )


# --- At a glance -------------------------------------------------------------------------------------------------------


def test_above_the_form_it_says_how_the_worker_is(fleet: Fleet, client: Client) -> None:
    starts(fleet, {"hostname": "gpu-box-7", "python_version": "3.12.7", "sdk_version": "1.0.2"})
    content = html(client, fleet.worker)
    glance = content[content.index('id="overview"') : content.index('id="worker_form"')]
    text = words(glance)
    assert re.search(r"Online last seen \d s ago , every 60 s", text)
    for part in ("gpu-box-7", "Python 3.12.7", "SDK 1.0.2", "0 tasks processed", ", current"):
        assert part in text
    for badge in ("Outdated", "Duplicate", "Recovering", "Draining", "Disabled"):
        assert badge not in text


def test_the_part_that_is_asked_for_anew_is_the_overview_only(fleet: Fleet, client: Client) -> None:
    starts(fleet, {"hostname": "gpu-box-7"})
    part = html(client, fleet.worker, part="overview")
    assert "gpu-box-7" in part
    assert "worker_form" not in part
    assert "<html" not in part


def test_what_a_person_decided_is_a_badge(fleet: Fleet, client: Client) -> None:
    change(fleet.worker, is_disabled=True)
    change(fleet.queue, is_draining=True)
    assert {"Disabled", "Queue Draining"} <= set(
        re.findall(r'<span class="cp-badge[^>]*>(.*?)</span>', html(client, fleet.worker))
    )


def test_a_worker_without_process_says_why_its_last_start_was_refused(fleet: Fleet, client: Client) -> None:
    refuse(fleet.api_key, fleet.worker, "This worker's queue is draining: nothing new starts.")
    content = html(client, fleet.worker)
    assert told(client, fleet, "liveness") == "Never started"
    assert "This worker's queue is draining" in words(element(content, "refused"))
    assert "203.0.113.77" in words(element(content, "refusals"))
    Refusal.objects.update(occurred_at=timezone.now() - timedelta(hours=1))
    starts(fleet, {})
    assert not told(client, fleet, "refused")
    assert told(client, fleet, "refusals")


def test_a_refused_key_of_another_organization_is_told_as_no_more_than_that(fleet: Fleet, client: Client) -> None:
    other = factories.create_fleet()
    refuse(other.api_key, fleet.worker, "secret-reason")
    content = html(client, fleet.worker)
    assert words(element(content, "refusals")).endswith("ago with a key of another organization")
    for part in ("secret-reason", "203.0.113.77", str(other.api_key.pk), other.organization.pk):
        assert part not in content
    assert not element(content, "refused")


# --- Outdated ----------------------------------------------------------------------------------------------------------


def test_an_outdated_process_is_told_with_who_made_it_so(fleet: Fleet, client: Client) -> None:
    starts(fleet, {})
    given = WorkerInstance.objects.get().configuration_revision
    assert not told(client, fleet, "outdated")
    change(fleet.worker, description="nothing that it is given")
    change(fleet.temporal, host="new.example.com:7233")
    change(fleet.temporal, host="newer.example.com:7233")
    content = html(client, fleet.worker)
    text = words(element(content, "outdated"))
    now = words(element(content, "revision"))
    assert text.startswith(f"Outdated: runs revision {given} , now {now} , restart it.")
    assert f"by user:ada : temporal_connection.updated {fleet.temporal}" in text
    first = audit.AuditEvent.objects.get(changes__host__0=f"{fleet.temporal.name}.example.com:7233")
    assert reverse("admin:environments_auditevent_change", args=[first.pk]) in element(content, "outdated")
    assert "outdated" in words(element(content, "latest-starts"))


@pytest.mark.parametrize("cause", ["queue", "pointer", "credential"])
def test_every_cause_of_being_outdated_is_found(cause: str, fleet: Fleet, client: Client) -> None:
    starts(fleet, {})
    if cause == "queue":
        change(fleet.queue, heartbeat_interval=30)
    elif cause == "pointer":
        change(fleet.queue, temporal_connection=factories.create_temporal(fleet.organization, "narrow"))
    else:
        before = audit.snapshot(fleet.litellm)
        seal_api_key(fleet.litellm, Secret("replaced"), now=timezone.now())
        fleet.litellm.save()
        changes = audit.difference(before, audit.snapshot(fleet.litellm))
        audit.record("litellm_connection.updated", fleet.litellm, actor=ADA, now=timezone.now(), changes=changes)
    assert "by user:ada" in told(client, fleet, "outdated")


def test_a_process_from_before_revisions_were_noted_is_not_called_outdated(fleet: Fleet, client: Client) -> None:
    starts(fleet, {})
    WorkerInstance.objects.update(configuration_revision="")
    change(fleet.temporal, host="new.example.com:7233")
    assert not told(client, fleet, "outdated")
    assert "Configuration unknown" in words(html(client, fleet.worker))


def test_nobody_is_told_to_restart_a_process_that_ended(fleet: Fleet, client: Client) -> None:
    starts(fleet, {})
    change(fleet.temporal, host="new.example.com:7233")
    WorkerInstance.objects.update(stopped_at=timezone.now(), stop_reason="done")
    content = html(client, fleet.worker)
    assert not element(content, "outdated")
    assert ", outdated" in content


def test_a_process_that_ended_is_not_shown_as_active(fleet: Fleet, client: Client) -> None:
    starts(fleet, {})
    assert words(html(client, fleet.worker)).count("Activity Active") == 2
    WorkerInstance.objects.update(stopped_at=timezone.now(), current_task_id="payroll")
    content = words(html(client, fleet.worker))
    assert "Activity Active" not in content
    assert "Activity none, last payroll" in content


def test_nobody_is_told_to_restart_a_worker_whose_start_would_be_refused(fleet: Fleet, client: Client) -> None:
    starts(fleet, {})
    change(fleet.organization, litellm_connection=None)
    content = html(client, fleet.worker)
    assert not element(content, "outdated")
    assert "no LiteLLM connection at any of these levels" in words(element(content, "incomplete"))


# --- Effective configuration -------------------------------------------------------------------------------------------


def loaded(worker: Worker) -> Worker:
    return Worker.objects.with_chain().get(pk=worker.pk)


def on_wire(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("has_telemetry", [False, True])
def test_the_fields_are_those_of_the_answer_in_its_order(*, has_telemetry: bool, fleet: Fleet) -> None:
    if has_telemetry:
        telemetry = factories.create_telemetry(
            fleet.organization, otel_enabled=False, otel_traces_sampler_arg=0.5, otel_service_name="mine"
        )
        factories.point(fleet.environment, telemetry_settings=telemetry)
    worker = loaded(fleet.worker)
    given = vars(show_configuration(worker, sections_of(worker)))
    assert len(given) == 17
    assert {field.name: field.value for field in fields_of(worker, link_to)} == {
        name: on_wire(value) for name, value in given.items()
    }
    assert [field.name for field in fields_of(worker, link_to)] == [field.name for field in fields(WorkerConfiguration)]


def test_the_level_that_won_is_linked_and_the_shadowed_ones_are_struck_through(fleet: Fleet, client: Client) -> None:
    narrow = factories.create_temporal(fleet.organization, "narrow", secret="another-secret")
    factories.point(fleet.queue, temporal_connection=narrow)
    content = html(client, fleet.worker)
    row = element(content, "field-temporal_host")
    won, _, shadowed = row.partition("<s ")
    assert "narrow.example.com:7233" in won
    for linked in (fleet.queue, narrow):
        address = reverse(f"admin:{linked._meta.label_lower.replace('.', '_')}_change", args=[linked.pk])
        assert f'href="{address}"' in won
    assert words(f"<s {shadowed}") == f"Organization {fleet.organization} , by {fleet.temporal} : {fleet.temporal.host}"
    key = words(element(content, "field-temporal_api_key"))
    assert f"fingerprint {narrow.api_key_fingerprint} version 1, set" in key
    assert f"by {fleet.temporal} : fingerprint {fleet.temporal.api_key_fingerprint}" in key
    for secret in ("another-secret", fleet.temporal_secret, fleet.litellm_secret, fleet.token, narrow.sealed_api_key):
        assert secret not in content


def test_a_field_that_no_connection_sets_says_where_it_comes_from(fleet: Fleet, client: Client) -> None:
    content = html(client, fleet.worker)
    for name, source in (
        ("heartbeat_interval", f"60 {fleet.queue}"),
        ("environment_name", f"production {fleet.environment}"),
        ("control_plane_url", "The setting CONTROL_PLANE_URL"),
        ("otel_enabled", f"true Default: no telemetry settings at worker {fleet.worker} , worker queue {fleet.queue}"),
    ):
        assert source in words(element(content, f"field-{name}"))


def test_a_missing_section_says_where_it_was_looked_for(fleet: Fleet, client: Client) -> None:
    factories.point(fleet.organization, temporal_connection=None)
    content = html(client, fleet.worker)
    row = words(element(content, "field-temporal_host"))
    assert row.startswith("temporal_host missing No Temporal connection at")
    for level in (fleet.worker, fleet.queue, fleet.environment, fleet.organization):
        assert str(level) in row
    assert fleet.litellm.api_url in words(element(content, "field-litellm_api_url"))


def test_a_server_that_takes_no_key_has_no_fingerprint(fleet: Fleet, client: Client) -> None:
    local = factories.create_temporal(fleet.organization, "local", requires_api_key=False)
    factories.point(fleet.worker, temporal_connection=local)
    assert "none: the server takes no key" in told(client, fleet, "field-temporal_api_key")


# --- Starts ------------------------------------------------------------------------------------------------------------


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


# --- Keys, logs, audit -------------------------------------------------------------------------------------------------


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
    assert re.search(r"key in use by this worker Worker org-\d+/worker-1 Usable in 89 d \d s ago", table)
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


# --- Who sees it, what it costs ----------------------------------------------------------------------------------------


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


# --- The pages of a start and of an instance ---------------------------------------------------------------------------


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


# --- Hostile workers ---------------------------------------------------------------------------------------------------


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
