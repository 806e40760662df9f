"""Before a change is saved that alters what workers get, a page says what it does; only then it is saved."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from environments.models import AuditEvent, DataKey, LiteLLMConnection, Organization, Role
from environments.sealing.data_keys import open_api_key
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import form_of, member, person, signed_in, url
from tests.support.factories import Fleet
from workers.models import Worker, WorkerInstance, WorkerQueue

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

SECRET = "a-new-litellm-key-77aa1b"


@pytest.fixture
def fleet(db: None) -> Fleet:
    fleet = fresh_fleet()
    assert start(fleet).status_code == 200
    return fleet


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def change(client: Client, row: Any, **fields: Any) -> Any:
    """Sends the row's form with these fields changed."""
    address = url(type(row), "change", row.pk)
    return client.post(address, {**form_of(client, address), **fields})


def confirm(client: Client, asked: Any, **fields: Any) -> Any:
    """Sends what the confirmation page would."""
    data: dict[str, list[Any]] = {}
    for name, value in asked.context["fields"]:
        data.setdefault(name, []).append(value)
    return client.post(asked.request["PATH_INFO"], {**data, "_confirmed": asked.context["mark"], **fields})


def test_a_change_of_what_workers_get_is_asked_about_with_all_that_it_does(client: Client, fleet: Fleet) -> None:
    factories.create_worker(fleet.queue, "worker-2")
    asked = change(client, fleet.queue, heartbeat_interval=5)
    page = asked.content.decode()
    assert asked.status_code == 200
    assert asked.context["changes"] == [("heartbeat interval", "60", "5")]
    (impact,) = asked.context["impact"]
    assert (impact.queue, impact.workers, impact.online) == (fleet.queue.task_queue_name, 2, 1)
    assert impact.old_revision in page
    assert impact.new_revision in page
    assert "2 workers would be given another configuration at the next start; 1 of them is online now" in page


def test_nothing_is_saved_recorded_or_said_until_it_is_confirmed(client: Client, fleet: Fleet) -> None:
    events, entries = AuditEvent.objects.count(), LogEntry.objects.count()
    asked = change(client, fleet.queue, heartbeat_interval=5)
    assert WorkerQueue.objects.get().heartbeat_interval == 60
    assert (AuditEvent.objects.count(), LogEntry.objects.count()) == (events, entries)
    assert "changed successfully" not in client.get("/admin/").content.decode()
    assert confirm(client, asked).status_code == 302
    assert WorkerQueue.objects.get().heartbeat_interval == 5
    assert AuditEvent.objects.count() == events + 1


def test_what_no_worker_notices_is_saved_at_once(client: Client, fleet: Fleet) -> None:
    assert change(client, fleet.queue, description="new words", max_workers=7).status_code == 302
    unused = factories.create_temporal(fleet.organization, "unused")
    assert change(client, unused, host="elsewhere.example.com:7233").status_code == 302


def test_the_button_that_was_pressed_is_remembered(client: Client, fleet: Fleet) -> None:
    address = url(WorkerQueue, "change", fleet.queue.pk)
    asked = client.post(address, {**form_of(client, address), "heartbeat_interval": 5, "_continue": "1"})
    answer = confirm(client, asked)
    assert answer.headers["Location"] == address


def test_an_effect_that_is_another_by_then_is_asked_about_again(client: Client, fleet: Fleet) -> None:
    asked = change(client, fleet.queue, heartbeat_interval=5)
    factories.create_worker(fleet.queue, "worker-2")
    again = confirm(client, asked)
    assert again.status_code == 200
    assert again.context["was_asked"]
    assert "What this change does is different now" in again.content.decode()
    assert WorkerQueue.objects.get().heartbeat_interval == 60
    assert confirm(client, again).status_code == 302


@pytest.mark.parametrize("mark", ["", "yes", "\x00", "0" * 16, "é" * 3000])
def test_a_made_up_confirmation_confirms_nothing(client: Client, fleet: Fleet, mark: str) -> None:
    asked = change(client, fleet.queue, heartbeat_interval=5)
    assert confirm(client, asked, _confirmed=mark).status_code == 200
    assert WorkerQueue.objects.get().heartbeat_interval == 60


def test_every_level_and_every_connection_asks(client: Client, fleet: Fleet) -> None:
    other = factories.create_temporal(fleet.organization, "other")
    telemetry = factories.create_telemetry(fleet.organization)
    factories.point(fleet.organization, telemetry_settings=telemetry)
    for row in (fleet.worker, fleet.queue, fleet.environment, Organization.objects.get()):
        assert change(client, row, temporal_connection=other.pk).context["impact"], row
    assert change(client, fleet.temporal, namespace="another").context["impact"]
    assert change(client, fleet.litellm, api_url="https://another.example.com").context["impact"]
    assert change(client, telemetry, otel_service_name="another").context["impact"]


def test_what_is_pointed_to_is_shown_by_its_name(client: Client, fleet: Fleet) -> None:
    other = factories.create_temporal(fleet.organization, "other")
    asked = change(client, fleet.worker, temporal_connection=other.pk)
    assert asked.context["changes"] == [("Temporal connection", "empty", str(other))]


def test_a_level_that_gets_its_last_connection_back_says_who_could_start_again(client: Client, fleet: Fleet) -> None:
    factories.create_worker(fleet.queue, "worker-2")
    factories.point(fleet.organization, litellm_connection=None)
    asked = change(client, Organization.objects.get(), litellm_connection=fleet.litellm.pk)
    (impact,) = asked.context["impact"]
    page = asked.content.decode()
    assert "2 workers in 1 queue could start again." in page
    assert '<span class="cp-problem">none: no LiteLLM connection at any level</span>' in page
    assert WorkerInstance.objects.get().configuration_revision == impact.new_revision
    assert impact.new_revision in page
    assert impact.old_revision not in page
    assert "outdated" not in page
    assert "would be given another configuration" not in page
    assert confirm(client, asked).status_code == 302


def test_a_worker_that_could_start_again_but_otherwise_would_be_outdated(client: Client, fleet: Fleet) -> None:
    factories.point(fleet.organization, litellm_connection=None)
    other = factories.create_litellm(fleet.organization, "other")
    asked = change(client, Organization.objects.get(), litellm_connection=other.pk)
    page = asked.content.decode()
    assert "1 worker in 1 queue could start again." in page
    assert "1 of them runs with another configuration and would be outdated until restarted." in page


def test_a_level_that_loses_its_last_connection_says_so_before(client: Client, fleet: Fleet) -> None:
    asked = change(client, Organization.objects.get(), temporal_connection="")
    (impact,) = asked.context["impact"]
    assert impact.online == 1
    page = asked.content.decode()
    lost = "1 worker in 1 queue could not start any more: no Temporal connection at any level (1 of them runs now)."
    assert f'<p class="mb-4 cp-problem cp-important" role="alert">{lost}</p>' in page
    assert "would be given another configuration" not in page
    for typed in ({}, {"_typed_name": "something else"}):
        again = confirm(client, asked, **typed)
        assert "This is not the name, so nothing was changed." in again.content.decode()
        assert start(fleet).status_code == 200
    assert confirm(client, again, _typed_name=str(fleet.organization)).status_code == 302
    assert start(fleet).status_code == 409


def test_nothing_has_to_be_typed_where_nobody_runs(client: Client, fleet: Fleet) -> None:
    WorkerInstance.objects.update(stopped_at=timezone.now())
    asked = change(client, fleet.organization, litellm_connection="")
    assert "1 worker in 1 queue could not start any more: no LiteLLM connection at any level." in asked.content.decode()
    assert 'name="_typed_name"' not in asked.content.decode()
    assert confirm(client, asked).status_code == 302


def test_a_queue_that_would_make_its_workers_in_vain_is_asked_about(client: Client, fleet: Fleet) -> None:
    empty = factories.create_queue(fleet.environment, "empty", litellm_connection=fleet.litellm)
    factories.point(fleet.organization, litellm_connection=None)
    asked = change(client, empty, litellm_connection="")
    assert "1 queue could not start any more: no LiteLLM connection at any level." in asked.content.decode()
    assert confirm(client, asked).status_code == 302


def test_deleting_workers_that_run_takes_what_the_page_asks_for(client: Client, fleet: Fleet) -> None:
    second = factories.create_worker(fleet.queue, "worker-2")
    address = url(Worker, "delete", fleet.worker.pk)
    assert 'name="_typed_name"' in client.get(address).content.decode()
    assert 'name="_typed_name"' not in client.get(url(Worker, "delete", second.pk)).content.decode()
    asked = client.post(address, {"post": "yes"}, follow=True)
    assert "Nothing was deleted" in asked.content.decode()
    chosen = {"action": "delete_selected", "_selected_action": [fleet.worker.pk, second.pk]}
    assert "2 workers" in client.post(url(Worker, "changelist"), chosen).content.decode()
    client.post(url(Worker, "changelist"), {**chosen, "post": "yes", "_typed_name": "3 workers"})
    assert Worker.objects.count() == 2
    client.post(address, {"post": "yes", "_typed_name": str(fleet.worker)})
    assert Worker.objects.get() == second


def test_ending_running_processes_is_asked_about_too(client: Client, fleet: Fleet) -> None:
    told = "1 running process will be told to end at the next heartbeat, and cannot start again until enabled."
    for row in (fleet.queue, fleet.worker):
        asked = change(client, row, is_disabled="on")
        assert told in asked.content.decode()
        type(row).objects.update(is_disabled=False)
        assert "will go on and finish" in change(client, row, is_draining="on").content.decode()
    assert confirm(client, change(client, fleet.worker, is_disabled="on")).status_code == 302
    assert Worker.objects.get().is_disabled


def test_disabling_what_does_not_run_needs_no_question(client: Client, fleet: Fleet) -> None:
    idle = factories.create_worker(fleet.queue, "idle")
    assert change(client, idle, is_disabled="on").status_code == 302


# --- Secrets -----------------------------------------------------------------------------------------------------------


def stored_secret() -> str:
    return open_api_key(LiteLLMConnection.objects.get()).reveal()


def test_a_new_secret_waits_sealed_in_the_session_and_never_in_the_page(client: Client, fleet: Fleet) -> None:
    asked = change(client, fleet.litellm, api_key=SECRET)
    assert stored_secret() == fleet.litellm_secret
    page = asked.content.decode()
    assert SECRET not in page
    assert "cp1." not in page
    assert [name for name, _, _ in asked.context["changes"]] == [
        "API key fingerprint",
        "API key version",
        "API key set at",
    ]
    for session in Session.objects.all():
        assert SECRET not in session.session_data
        assert SECRET not in str(session.get_decoded())
    assert confirm(client, asked).status_code == 302
    assert stored_secret() == SECRET
    assert LiteLLMConnection.objects.get().api_key_version == 2
    assert "cp1." not in str([session.get_decoded() for session in Session.objects.all()])


def test_each_seal_is_counted_though_the_confirmation_page_takes_the_change_back(client: Client, fleet: Fleet) -> None:
    before = DataKey.objects.get().seal_count
    for count in range(1, 4):
        asked = change(client, fleet.litellm, api_key=f"{SECRET}-{count}")
        assert DataKey.objects.get().seal_count == before + count
    assert confirm(client, asked, _confirmed="of another effect").status_code == 200
    assert DataKey.objects.get().seal_count == before + 4
    assert change(client, fleet.litellm, api_url="no URL", api_key=SECRET).status_code == 200
    assert DataKey.objects.get().seal_count == before + 4, "a form that is refused seals nothing"
    assert confirm(client, change(client, fleet.litellm, api_key=SECRET)).status_code == 302
    assert DataKey.objects.get().seal_count == before + 6


@pytest.mark.parametrize("kind", ["temporal", "litellm"])
def test_an_organization_s_first_api_key_is_set_on_a_connection_in_use(kind: str, client: Client, fleet: Fleet) -> None:
    """Its data key is made with it, and has to outlive that the change is taken back to ask."""
    for row in (fleet.temporal, fleet.litellm):
        type(row).objects.update(requires_api_key=False, sealed_api_key="", api_key_fingerprint="", api_key_version=0)
    DataKey.objects.all().delete()
    row = getattr(fleet, kind)
    asked = change(client, row, requires_api_key="on", api_key=SECRET)
    assert asked.context["impact"]
    assert confirm(client, asked).status_code == 302
    assert open_api_key(type(row).objects.get()).reveal() == SECRET
    assert start(fleet).json()[f"{kind}_api_key"] == SECRET


def test_nobody_makes_a_data_key_who_may_not_set_an_api_key(client: Client, fleet: Fleet) -> None:
    address = url(LiteLLMConnection, "change", fleet.litellm.pk)
    form = {**form_of(client, address), "api_key": SECRET}
    DataKey.objects.all().delete()
    for who in (
        member(fleet.organization, Role.OPERATOR),
        member(factories.create_organization("other"), Role.ADMINISTRATOR),
    ):
        assert signed_in(who).post(address, form).status_code in {302, 403}
        assert not DataKey.objects.exists()


def _fields(client: Client, fleet: Fleet, **fields: Any) -> dict[str, Any]:
    return {**form_of(client, url(LiteLLMConnection, "change", fleet.litellm.pk)), **fields}


def test_a_waiting_secret_is_for_its_own_confirmation_only(client: Client, fleet: Fleet) -> None:
    """Whoever looks away and then saves something else does not save the secret that waited."""
    change(client, fleet.litellm, api_key=SECRET)
    asked = change(client, fleet.litellm, api_url="https://another.example.com")
    assert confirm(client, asked).status_code == 302
    assert stored_secret() == fleet.litellm_secret


def test_a_waiting_secret_does_not_open_for_another_connection(client: Client, fleet: Fleet) -> None:
    other = factories.create_litellm(fleet.organization, "other", secret="the-others-own-key")
    asked = change(client, fleet.litellm, api_key=SECRET)
    data = _fields(
        client, fleet, name="other", api_url=other.api_url, kept_api_key="yes", _confirmed=asked.context["mark"]
    )
    client.post(url(LiteLLMConnection, "change", other.pk), data)
    assert open_api_key(LiteLLMConnection.objects.get(pk=other.pk)).reveal() == "the-others-own-key"


def test_another_person_s_session_has_no_waiting_secret(client: Client, fleet: Fleet) -> None:
    asked = change(client, fleet.litellm, api_key=SECRET)
    other = signed_in(person("grace", is_staff=True, is_superuser=True))
    confirm(other, asked)
    assert stored_secret() == fleet.litellm_secret


def test_the_same_secret_again_is_no_change(client: Client, fleet: Fleet) -> None:
    assert change(client, fleet.litellm, api_key=fleet.litellm_secret).status_code == 302
    assert LiteLLMConnection.objects.get().api_key_version == 1


def test_a_connection_without_workers_takes_a_new_secret_at_once(client: Client, fleet: Fleet) -> None:
    Worker.objects.update(is_disabled=True)
    unused = factories.create_litellm(fleet.organization, "unused")
    assert change(client, unused, api_key=SECRET).status_code == 302
    unused.refresh_from_db()
    assert open_api_key(unused).reveal() == SECRET
    assert unused.api_key_set_at
    assert unused.api_key_set_at <= timezone.now()
