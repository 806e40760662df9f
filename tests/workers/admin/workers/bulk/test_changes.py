"""Bulk actions on the list of workers: asked first, done to just those, for those who may."""

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from environments.admin import console
from environments.models import AuditEvent, Membership, Role
from tests.support import factories
from tests.support.bulk_pages import LIST, act, all_ids, rows_of, told
from tests.support.calls import fresh_fleet, start
from tests.support.console import everything, member, person, signed_in, url
from tests.support.factories import Fleet
from workers.admin.workers import bulk as pages
from workers.admin.workers.export import KEY_COLUMNS
from workers.fleet import bulk
from workers.models import ApiKey, Worker

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


UNKNOWN = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
VERBS = ("disable", "enable", "drain", "move", "issue_keys")


def confirm(client: Client, asked: Any, **data: Any) -> Any:
    """Presses the button of the page that asks."""
    assert asked.status_code == 200, asked.status_code
    context = asked.context
    sent = {"workers": context["workers"], "list": context["list"], "_confirmed": context.get("mark", ""), **data}
    return client.post(reverse("admin:workers_worker_bulk", args=[context["verb"].name]), sent)


@pytest.mark.parametrize("verb", VERBS)
def test_choosing_an_action_only_asks(client: Client, fleet: Fleet, verb: str) -> None:
    before = everything()
    asked = act(client, verb, all_ids())
    assert asked.context["total"] == 3
    assert everything() == before


def test_the_page_says_what_happens_to_how_many_in_which_queues(client: Client, fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    Worker.objects.filter(name="worker-2").update(is_disabled=True)
    page = " ".join(re.sub("<[^>]+>", " ", unescape(act(client, "disable", all_ids()).content.decode())).split())
    assert "3 workers chosen, 1 of them live now." in page
    assert "told to end at their next heartbeat" in page
    assert "1 is disabled already: reason and end become those that are given here." in page
    assert f"{fleet.queue.task_queue_name} 3 1 1" in page


def test_what_is_confirmed_is_done_recorded_and_told(client: Client, fleet: Fleet) -> None:
    Worker.objects.filter(name="worker-2").update(is_disabled=True)
    done = confirm(client, act(client, "disable", all_ids(), "?state=Enabled&q=worker", select_across="0"))
    assert done.status_code == 302
    assert done["Location"] == f"{LIST}?state=Enabled&q=worker"
    assert Worker.objects.filter(is_disabled=True).count() == 3
    assert told(client) == "2 workers disabled."
    events = AuditEvent.objects.filter(action="worker.updated")
    assert {(event.actor, event.client_address) for event in events} == {
        (f"user:operator-of-{fleet.organization.pk}", "127.0.0.1")
    }
    confirm(client, act(client, "disable", all_ids()))
    assert told(client) == "0 workers disabled, 3 were disabled already."
    confirm(client, act(client, "drain", all_ids()[:1]))
    assert told(client) == "0 workers draining, 1 stays disabled."
    confirm(client, act(client, "enable", all_ids()))
    assert told(client) == "3 workers enabled."
    confirm(client, act(client, "drain", all_ids()[:1]))
    assert told(client) == "1 worker draining."
    confirm(client, act(client, "enable", all_ids()))
    assert not Worker.objects.exclude(is_disabled=False, is_draining=False).exists()


def test_a_worker_that_vanishes_before_the_answer_is_told(client: Client, fleet: Fleet) -> None:
    asked = act(client, "disable", all_ids())
    Worker.objects.filter(name="worker-2").delete()
    confirm(client, asked)
    assert told(client) == "2 workers disabled, 1 is no longer there."


def test_what_was_chosen_is_changed_even_if_the_filter_no_longer_finds_it(client: Client, fleet: Fleet) -> None:
    """And nothing else, even if the filter finds it now: the page told of just these."""
    asked = act(client, "disable", all_ids()[:1], "?q=worker", select_across="1")
    late = factories.create_worker(fleet.queue, "worker-4")
    Worker.objects.filter(name="worker-1").update(name="renamed")
    confirm(client, asked)
    assert Worker.objects.filter(is_disabled=True).count() == 3
    assert not Worker.objects.get(pk=late.pk).is_disabled


def test_all_pages_can_be_chosen_at_once(client: Client, fleet: Fleet) -> None:
    many = [Worker(organization=fleet.organization, queue=fleet.queue, name=f"many-{number}") for number in range(60)]
    Worker.objects.bulk_create(many)
    asked = act(client, "drain", [many[0].pk], "?q=many", select_across="1")
    assert asked.context["total"] == 60
    confirm(client, asked)
    assert told(client) == "60 workers draining."
    assert Worker.objects.filter(is_draining=True).count() == 60


def test_more_than_a_transaction_takes_are_refused(
    client: Client, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = all_ids()
    asked = act(client, "disable", ids)
    for verb in pages.VERBS.values():
        monkeypatch.setitem(vars(verb), "most", 2)
    monkeypatch.setattr(console, "MOST_DELETED", 2)
    for verb in (*VERBS, "delete_selected"):
        assert act(client, verb, ids[:1], select_across="1").status_code == 302
        assert "at most 2 workers at once" in told(client)
    assert confirm(client, asked).status_code == 403
    assert not Worker.objects.filter(is_disabled=True).exists()
    assert len(rows_of(act(client, "export", ids[:1], select_across="1"))) == 3


def test_a_get_of_the_page_leads_to_the_list_and_changes_nothing(client: Client, fleet: Fleet) -> None:
    before = everything()
    for name in (*VERBS, "export", "nonsense"):
        response = client.get(f"{LIST}bulk/{name}/?workers={fleet.worker.pk.hex}")
        assert (response.status_code, response["Location"]) == (302, LIST)
    assert everything() == before


@pytest.mark.parametrize("workers", ["", "x", "'", ",", f"{UNKNOWN},", UNKNOWN, "\x00"])
def test_odd_ids_change_nothing(client: Client, fleet: Fleet, workers: str) -> None:
    before = everything()
    response = client.post(f"{LIST}bulk/disable/", {"workers": workers})
    assert response.status_code in {302, 400}
    assert everything() == before


def test_the_way_back_stays_on_the_list(client: Client, fleet: Fleet) -> None:
    sent = {"workers": fleet.worker.pk.hex, "list": "//evil.example/\r\nX: y"}
    response = client.post(f"{LIST}bulk/disable/", sent)
    assert response["Location"].startswith(f"{LIST}?")
    assert "X" not in response.headers


def test_asking_and_acting_need_the_same_statements_for_any_number(
    client: Client, fleet: Fleet, django_assert_max_num_queries: Any
) -> None:
    rows = [Worker(organization=fleet.organization, queue=fleet.queue, name=f"many-{n}") for n in range(200)]
    Worker.objects.bulk_create(rows)
    with django_assert_max_num_queries(12):
        asked = act(client, "disable", all_ids())
    with django_assert_max_num_queries(14):
        assert confirm(client, asked).status_code == 302


def test_a_viewer_is_offered_the_export_alone(fleet: Fleet) -> None:
    client = signed_in(member(fleet.organization, Role.VIEWER))
    offered = client.get(LIST).context["action_form"].fields["action"].choices
    assert [name for name, _ in offered] == ["", "export"]
    before = everything()
    for verb in VERBS:
        assert act(client, verb, all_ids()).status_code == 302
        sent = {"workers": fleet.worker.pk.hex, "name": "n", "days": "1", "queue": fleet.queue.pk}
        assert client.post(f"{LIST}bulk/{verb}/", sent).status_code == 403
    assert everything() == before


@pytest.mark.parametrize("verb", VERBS)
def test_workers_where_the_person_only_looks_refuse_the_whole(client: Client, fleet: Fleet, verb: str) -> None:
    other = fresh_fleet()
    Membership.objects.create(
        organization=other.organization, user=person(f"operator-of-{fleet.organization.pk}"), role=Role.VIEWER
    )
    assert act(client, verb, [fleet.worker.pk, other.worker.pk]).status_code == 302
    assert f"you may only look at the workers of {other.organization.pk}." in told(client)
    sent = {"workers": f"{fleet.worker.pk.hex},{other.worker.pk.hex}", "name": "n", "days": "1"}
    before = everything()
    assert client.post(f"{LIST}bulk/{verb}/", {**sent, "queue": fleet.queue.pk}).status_code == 403
    assert everything() == before


def test_workers_of_a_foreign_organization_are_as_if_they_were_not_there(client: Client, fleet: Fleet) -> None:
    other = fresh_fleet()
    assert act(client, "disable", [fleet.worker.pk, other.worker.pk]).context["total"] == 1
    client.post(f"{LIST}bulk/disable/", {"workers": f"{fleet.worker.pk.hex},{other.worker.pk.hex}"})
    assert told(client) == "1 worker disabled, 1 is no longer there."
    assert not Worker.objects.get(pk=other.worker.pk).is_disabled


def test_a_move_is_looked_at_before_it_is_confirmed(client: Client, fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other", max_workers=1, is_draining=True)
    assert start(fleet, token=factories.issue_token(fleet.queue)).status_code == 200
    asked = act(client, "move", all_ids())
    looked = confirm(client, asked, queue=other.pk)
    assert set(Worker.objects.values_list("queue", flat=True)) == {fleet.queue.pk}
    page = unescape(looked.content.decode())
    (impact,) = looked.context["move"].impact
    assert impact.old_revision in page
    assert impact.new_revision in page
    assert "The other queue is draining" in page
    assert "1 running process started with an API key that does not reach the other queue" in page
    assert confirm(client, looked, queue=other.pk).status_code == 302
    assert told(client) == "3 workers moved."
    assert set(Worker.objects.values_list("queue", flat=True)) == {other.pk}


def test_a_move_after_which_workers_could_start_again_says_so(client: Client, fleet: Fleet) -> None:
    factories.point(fleet.organization, litellm_connection=None)
    whole = factories.create_queue(fleet.environment, "whole", litellm_connection=fleet.litellm)
    looked = confirm(client, act(client, "move", [fleet.worker.pk]), queue=whole.pk)
    page = looked.content.decode()
    (impact,) = looked.context["move"].impact
    assert "1 worker in 1 queue could start again." in page
    assert '<span class="cp-problem">none: no LiteLLM connection at any level</span>' in page
    assert impact.old_revision not in page
    assert confirm(client, looked, queue=whole.pk).status_code == 302


def test_a_move_after_which_live_workers_could_not_start_takes_the_queues_name(client: Client, fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    factories.point(fleet.queue, litellm_connection=fleet.litellm)
    factories.point(fleet.organization, litellm_connection=None)
    bare = factories.create_queue(fleet.environment, "bare")
    looked = confirm(client, act(client, "move", [fleet.worker.pk]), queue=bare.pk)
    lost = "1 worker in 1 queue could not start any more: no LiteLLM connection at any level (1 of them runs now)."
    assert lost in looked.content.decode()
    again = confirm(client, looked, queue=bare.pk)
    assert "This is not the name" in again.content.decode()
    assert Worker.objects.filter(queue=bare).count() == 0
    confirm(client, again, queue=bare.pk, _typed_name=str(bare))
    assert Worker.objects.get(queue=bare) == fleet.worker


def test_another_queue_than_the_one_that_was_looked_at_is_looked_at_first(client: Client, fleet: Fleet) -> None:
    first, second = (factories.create_queue(fleet.environment, name) for name in ("first", "second"))
    looked = confirm(client, act(client, "move", all_ids()), queue=first.pk)
    again = confirm(client, looked, queue=second.pk)
    assert again.context["mark"] != looked.context["mark"]
    assert set(Worker.objects.values_list("queue", flat=True)) == {fleet.queue.pk}


def test_a_full_or_disabled_queue_is_told(client: Client, fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other", max_workers=1, is_disabled=True)
    busy = factories.create_worker(other, "busy")
    other_fleet_key = factories.issue_token(fleet.organization)
    type(other).objects.update(is_disabled=False)
    assert start(fleet, token=other_fleet_key, worker_id=busy.pk).status_code == 200
    type(other).objects.filter(pk=other.pk).update(is_disabled=True)
    assert start(fleet).status_code == 200
    looked = confirm(client, act(client, "move", [fleet.worker.pk]), queue=other.pk)
    page = unescape(looked.content.decode())
    assert "The other queue takes 1 live workers. 1 are live there and 1 more come along" in page
    assert "The other queue is disabled" in page


@pytest.mark.parametrize("queue", ["", UNKNOWN])
def test_a_queue_that_is_none_is_told_on_the_form(client: Client, fleet: Fleet, queue: str) -> None:
    answer = confirm(client, act(client, "move", all_ids()), queue=queue)
    assert answer.status_code == 200
    assert answer.context["form"].errors["queue"]
    assert set(Worker.objects.values_list("queue", flat=True)) == {fleet.queue.pk}


def test_a_taken_name_is_told_on_the_form_and_moves_nothing(client: Client, fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    factories.create_worker(other, "worker-2")
    before = everything()
    answer = confirm(
        client, act(client, "move", list(fleet.queue.workers.values_list("pk", flat=True))), queue=other.pk
    )
    assert "would be called worker-2." in unescape(answer.content.decode())
    assert everything() == before


def test_workers_move_to_no_queue_of_another_organization(fleet: Fleet) -> None:
    client, other = signed_in(person(is_staff=True, is_superuser=True)), fresh_fleet()
    answer = confirm(client, act(client, "move", [fleet.worker.pk]), queue=other.queue.pk)
    assert answer.context["form"].errors["queue"]
    assert act(client, "move", [fleet.worker.pk, other.worker.pk]).status_code == 302
    assert "several organizations cannot be moved together" in told(client)


def test_the_search_for_a_queue_finds_those_of_the_organization(fleet: Fleet) -> None:
    client, other = signed_in(person(is_staff=True, is_superuser=True)), fresh_fleet()
    asked = act(client, "move", [fleet.worker.pk])
    address = re.search(r'data-ajax--url="([^"]+)"', asked.content.decode())
    assert address
    assert address[1] == f"{LIST}bulk/queues/{fleet.organization.pk}/"
    query = {"app_label": "workers", "model_name": "worker", "field_name": "queue", "term": "default"}
    assert [row["id"] for row in client.get(address[1], query).json()["results"]] == [str(fleet.queue.pk)]
    stranger = signed_in(member(other.organization, Role.OPERATOR))
    assert stranger.get(address[1], query).json()["results"] == []


def test_the_keys_are_in_the_one_answer_that_makes_them(client: Client, fleet: Fleet) -> None:
    asked = act(client, "issue_keys", all_ids())
    answer = confirm(client, asked, name="=cmd()", days="7")
    rows = rows_of(answer)
    assert tuple(rows[0]) == KEY_COLUMNS
    assert [row["worker"] for row in rows] == [f"{fleet.organization.pk}/worker-{number}" for number in (1, 2, 3)]
    assert {row["key_name"] for row in rows} == {"'=cmd()"}
    assert start(fleet, token=rows[0]["api_key"]).status_code == 200
    assert rows[0]["worker_id"] == str(fleet.worker.pk)
    stored = str(everything())
    assert not [row for row in rows if row["api_key"] in stored]


def test_the_button_pressed_twice_makes_one_set_of_keys(client: Client, fleet: Fleet) -> None:
    asked = act(client, "issue_keys", all_ids())
    sent = {"name": asked.context["form"]["name"].value(), "days": "7"}
    assert len(rows_of(confirm(client, asked, **sent))) == 3
    count = ApiKey.objects.count()
    again = confirm(client, asked, **sent)
    assert "3 have a key of this name already" in unescape(again.content.decode())
    assert ApiKey.objects.count() == count


@pytest.mark.parametrize("sent", [{"days": "0"}, {"days": "731"}, {"days": ""}, {"name": " "}, {"name": "x" * 201}])
def test_what_is_wrong_about_keys_is_told_on_the_form(client: Client, fleet: Fleet, sent: dict[str, str]) -> None:
    before = everything()
    answer = confirm(client, act(client, "issue_keys", all_ids()), **{"name": "fleet", "days": "7", **sent})
    assert list(answer.context["form"].errors) == list(sent)
    assert everything() == before


def test_selected_workers_are_deleted_with_their_keys_and_processes(client: Client, fleet: Fleet) -> None:
    start(fleet)
    chosen = [fleet.worker.pk, Worker.objects.get(name="worker-2").pk]
    assert act(client, "delete_selected", chosen).status_code == 200
    assert Worker.objects.count() == 3
    act(client, "delete_selected", chosen, post="yes", _typed_name="2 workers")
    assert not Worker.objects.filter(pk__in=chosen).exists()
    assert AuditEvent.objects.filter(action="worker.deleted", object_id__in=chosen).count() == 2


def test_the_limits_are_what_the_messages_and_the_documents_say() -> None:
    assert (bulk.MOST_WORKERS, bulk.MOST_KEYS) == (5_000, 500)
    assert url(Worker, "changelist") == LIST
