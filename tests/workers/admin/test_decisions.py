"""Pages that ask why and until when something is disabled or draining, and that show it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from environments.models import AuditEvent, Role
from tests.support.calls import start
from tests.support.console import form_of, member, signed_in, url
from tests.support.factories import Fleet
from tests.support.worker_pages import html, words
from workers.models import Worker, WorkerQueue
from workers.models.states import HAS_PASSED, WITHOUT_STATE

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

UNTIL = datetime(2100, 1, 31, 18, tzinfo=UTC)
GIVEN = {"state_reason": "no disk", "state_ends_at": "2100-01-31T18:00:00"}
NAMES = ("is_disabled", "is_draining", "state_reason", "state_ends_at")
ENABLED = (False, False, "", None)
MODELS = pytest.mark.parametrize("model", [Worker, WorkerQueue])


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(member(fleet.organization, Role.OPERATOR))


def send(client: Client, model: Any, **fields: Any) -> Any:
    """The form of the only row, with these fields changed; None is not sent, as a box without its tick."""
    address = url(model, "change", model.objects.get().pk)
    form = {**form_of(client, address), **fields}
    return client.post(address, {name: value for name, value in form.items() if value is not None})


def stored(model: Any) -> tuple[Any, ...]:
    return model.objects.values_list(*NAMES).get()  # type: ignore[no-any-return]


@MODELS
def test_reason_and_end_are_saved_recorded_shown_and_gone_with_what_they_were_for(client: Client, model: Any) -> None:
    assert send(client, model, is_disabled="on", **GIVEN).status_code == 302
    assert stored(model) == (True, False, "no disk", UNTIL)
    row = model.objects.get()
    page = words(client.get(url(model, "change", row.pk)).content.decode())
    assert "is disabled. This ends by itself in" in page
    assert "The reason: no disk" in page
    assert "Disabled ends in" in words(client.get(url(model, "changelist")).content.decode())
    assert send(client, model, description="else").status_code == 302
    assert stored(model) == (True, False, "no disk", UNTIL)
    history = AuditEvent.objects.filter(object_id=row.pk).order_by("occurred_at")
    assert history[0].changes["state_ends_at"] == [None, "2100-01-31 18:00:00+00:00"]
    assert send(client, model, is_disabled=None).status_code == 302
    assert stored(model) == ENABLED
    assert set(history[2].changes) == {"is_disabled", "state_reason", "state_ends_at"}


@MODELS
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"is_draining": "on", "state_ends_at": "2020-01-31T18:00:00"}, HAS_PASSED),
        ({"is_draining": "on", "state_ends_at": "soon"}, "Enter a valid date/time."),
        ({"is_draining": "on", "state_reason": "a\x1bb"}, "Use one line of text, without control characters."),
        ({"is_draining": "on", "state_reason": "x" * 201}, "at most 200 characters"),
        (GIVEN, WITHOUT_STATE),
    ],
)
def test_what_cannot_be_is_told_on_the_form(client: Client, model: Any, fields: dict[str, str], message: str) -> None:
    refused = send(client, model, **fields)
    assert refused.status_code == 200
    assert message in refused.content.decode()
    assert stored(model) == ENABLED
    assert not AuditEvent.objects.filter(action__endswith=".updated").exists()


@MODELS
def test_a_form_shows_what_ended_as_enabled_and_whatever_is_saved_leaves_none_of_it(client: Client, model: Any) -> None:
    model.objects.update(is_disabled=True, state_reason="old", state_ends_at=timezone.now() - timedelta(seconds=1))
    address = url(model, "change", model.objects.get().pk)
    form = form_of(client, address)
    assert not {"is_disabled", "state_ends_at"} & form.keys()
    assert form["state_reason"] == ""
    assert send(client, model, is_draining="on").status_code == 302
    assert stored(model) == (False, True, "", None)
    assert AuditEvent.objects.get(action__endswith=".updated").changes == {"is_draining": [False, True]}


def test_a_form_that_was_open_while_it_ended_says_so(client: Client, fleet: Fleet) -> None:
    Worker.objects.update(is_disabled=True, state_ends_at=timezone.now() + timedelta(hours=1))
    address = url(Worker, "change", fleet.worker.pk)
    form = form_of(client, address)
    passed = timezone.now() - timedelta(seconds=1)
    Worker.objects.update(state_ends_at=passed)
    refused = client.post(address, {**form, "state_ends_at": f"{passed:%Y-%m-%dT%H:%M:%S}"})
    assert HAS_PASSED in refused.content.decode()
    assert client.post(address, {**form, "is_disabled": "", "state_ends_at": ""}).status_code == 302
    assert stored(Worker) == ENABLED


@MODELS
def test_the_question_before_what_runs_is_ended_tells_the_end(client: Client, fleet: Fleet, model: Any) -> None:
    assert start(fleet).status_code == 200
    for flag, told in (("is_disabled", "cannot start again until enabled."), ("is_draining", "none starts again")):
        asked = send(client, model, **{flag: "on"}, **GIVEN)
        page = words(asked.content.decode())
        assert told in page
        assert "This ends by itself at 2100-01-31 18:00:00 UTC." in page
        assert "no disk" in page
        assert stored(model) == ENABLED
        assert "ends by itself" not in words(send(client, model, **{flag: "on"}).content.decode())


def test_many_are_held_for_one_reason_until_one_moment(client: Client, fleet: Fleet) -> None:
    asked = client.post(url(Worker, "changelist"), {"action": "drain", "_selected_action": [fleet.worker.pk]})
    sent = {"workers": asked.context["workers"], "list": ""}
    address = "/admin/workers/worker/bulk/drain/"
    for fields, message in (
        ({"until": "2020-01-31T18:00"}, HAS_PASSED),
        ({"until": "soon"}, "Enter a valid date/time."),
        ({"reason": "a\x1bb"}, "Use one line of text"),
    ):
        assert message in client.post(address, {**sent, **fields}).content.decode()
        assert stored(Worker) == ENABLED
    assert client.post(address, {**sent, "reason": "no disk", "until": "2100-01-31T18:00"}).status_code == 302
    assert stored(Worker) == (False, True, "no disk", UNTIL)
    assert "The reason: no disk" in words(html(client, fleet.worker))


@MODELS
def test_an_address_asks_for_the_state_and_never_for_what_is_stored_of_it(client: Client, model: Any) -> None:
    model.objects.update(is_disabled=True, state_ends_at=timezone.now() - timedelta(seconds=1))
    address = url(model, "changelist")
    assert client.get(f"{address}?state=Enabled").context["cl"].result_count == 1
    assert client.get(f"{address}?state=Disabled").context["cl"].result_count == 0
    for lookup in ("is_disabled__exact=1", "is_draining__in=0", "state_reason=x", "state_ends_at__isnull=True"):
        assert client.get(f"{address}?{lookup}").status_code == 400
