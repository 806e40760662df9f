"""A worker's page at a glance, and what it is given and from where."""

import json
import re
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from environments import audit
from environments.encryption import Secret
from environments.sealing.data_keys import seal_api_key
from tests.support import factories
from tests.support.factories import Fleet
from tests.support.worker_pages import ADA, change, element, html, loaded, refuse, starts, told, words
from workers.admin.links import link_to
from workers.configuration.effective import WorkerConfiguration, sections_of, show_configuration
from workers.configuration.explanation import fields_of
from workers.models import Refusal, WorkerInstance

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


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
