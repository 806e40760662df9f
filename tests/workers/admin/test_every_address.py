"""No address of the console answers 5xx, whoever calls it, whatever is sent, and be its row there, gone or nonsense.

The addresses are taken from the site's routes, so one that is added is tested too.
"""

import logging
import re
from collections.abc import Iterator
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.db import models, transaction
from django.test import Client

from environments.limits import counts
from environments.models import CredentialConnection, LiteLLMConnection, Role, TelemetrySettings, TemporalConnection
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import REGISTERED, console_routes, form_of, member, person, row_of, signed_in, url
from tests.support.factories import Fleet
from tests.support.notifications import tell
from tests.support.sharing import made_once, own_copy
from workers.models import Worker

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = [
    pytest.mark.walk,
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
    pytest.mark.xdist_group("addresses"),
]

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NONSENSE = ("nosuch", "\x00", "9" * 400, "_5F_00", "../..")
PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>|\(\?P<\w+>[^)]*\)")
MODELS = {f"admin/{model._meta.label_lower.replace('.', '/')}/": model for model in REGISTERED}
VERBS = ("disable", "enable", "drain", "move", "issue_keys", "export", "delete_selected", "nosuch")
CALLERS = ("superuser", Role.ADMINISTRATOR, Role.OPERATOR, Role.VIEWER, "member of none", "not staff", "nobody")
#: Whatever a form of one page wants, the others get too.
FILLED = {
    "post": "yes",
    "_save": "Save",
    "name": "changed",
    "role": "viewer",
    "grace_hours": "1",
    "reason": "leaked",
    "is_confirmed": "on",
    "text": "nothing",
    "password1": "correct horse battery staple",
    "password2": "correct horse battery staple",
    "usable_password": "true",
    "days": "1",
}


def make_fleet() -> Fleet:
    """An organization with a row of every kind, whose endpoints are where nobody listens."""
    fleet = fresh_fleet()
    factories.create_telemetry(fleet.organization, otel_exporter_otlp_endpoint="http://127.0.0.1:9")
    TemporalConnection.objects.update(host="127.0.0.1:9")
    tell(fleet.organization)
    LiteLLMConnection.objects.update(api_url="http://127.0.0.1:9")
    assert start(fleet, {"system_info": {"hostname": "host-of-the-fleet"}}).status_code == 200
    member(fleet.organization, Role.VIEWER)
    return fleet


shared_fleet = made_once(make_fleet)


@pytest.fixture
def fleet(shared_fleet: Fleet, db: None, caplog: pytest.LogCaptureFixture) -> Fleet:
    caplog.set_level(logging.CRITICAL, "django.request")
    return own_copy(shared_fleet)


def caller(name: str, fleet: Fleet) -> Client:
    if name in Role.values:
        return signed_in(member(fleet.organization, Role(name), f"the {name}"))
    if name == "nobody":
        return Client(raise_request_exception=False)
    return signed_in(person(name, is_staff=name != "not staff", is_superuser=name == "superuser"))


def addresses(row: str) -> Iterator[str]:
    """Every address below /admin/; in the place of a row's id, this text or, for "", the id of a row of the kind."""
    for path in console_routes():
        model = next((model for prefix, model in MODELS.items() if path.startswith(prefix)), Worker)
        values = {
            "object_id": row or str(row_of(model).pk),
            "content_type_id": str(ContentType.objects.get_for_model(model).pk),
            "organization_id": row or factories.Organization.objects.get().pk,
            "pk": "1",
            "id": row or str(row_of(model).pk),
            "key_id": row or str(row_of(model).pk),
            "worker_id": row or str(row_of(model).pk),
        }
        for verb in VERBS if "<slug:name>" in path else VERBS[:1]:
            found = PARAMETER.sub(lambda match: quote(values.get(match[2], verb), safe="/"), path)  # noqa: B023
            yield f"/{found.removesuffix('$')}"


def status(client: Client, method: str, address: str, data: Any) -> int:
    """The answer's status; what was done is undone."""
    savepoint = transaction.savepoint_create()
    try:
        response = getattr(client, method)(address, data)
        if getattr(response, "streaming", False):
            list(response.streaming_content)
        return int(response.status_code)
    finally:
        transaction.savepoint_rollback(savepoint)
        cache.clear()
        counts.forget()


def broken(client: Client, calls: Iterator[tuple[str, str, Any]]) -> list[str]:
    """The calls that are answered 5xx, all of them at once."""
    answers = [(method, address, data, status(client, method, address, data)) for method, address, data in calls]
    assert len(answers) > 40
    return [f"{method} {address} {data}: {found}" for method, address, data, found in answers if found >= 500]


@pytest.mark.parametrize("who", CALLERS)
def test_whatever_is_sent_to_an_address_nobody_is_answered_5xx(who: str, fleet: Fleet, seeded_random: Random) -> None:
    """A half of the addresses in each run, others for each caller."""
    there = sorted(addresses(""))
    calls = ((address, data) for address in seeded_random.sample(there, len(there) // 2) for data in ({}, FILLED))
    assert broken(caller(who, fleet), (("post", address, data) for address, data in calls)) == []


@pytest.mark.parametrize("who", ["superuser", Role.VIEWER])
def test_every_address_can_be_looked_at(who: str, fleet: Fleet) -> None:
    assert broken(caller(who, fleet), (("get", address, {}) for address in addresses(""))) == []


@pytest.mark.parametrize("row", [UNKNOWN, "999999", *NONSENSE])
def test_an_address_of_a_row_that_is_not_there_is_never_answered_5xx(
    row: str, fleet: Fleet, seeded_random: Random
) -> None:
    """A half of them in each run, since there are many kinds of rows that are not there."""
    with_rows = {address for address, other in zip(addresses(row), addresses(""), strict=True) if address != other}
    methods = (("get", {}), ("post", {}), ("post", FILLED))
    some = seeded_random.sample(sorted(with_rows), len(with_rows) // 2)
    calls = ((method, address, data) for address in some for method, data in methods)
    assert broken(caller("superuser", fleet), calls) == []


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model._meta.model_name)
def test_every_form_can_be_sent_as_it_is(model: type[models.Model], fleet: Fleet) -> None:
    """Whoever may send it; connections without a word of theirs, since a stored key is sent nowhere else."""
    client = caller("superuser", fleet)
    for page in ("add", "change"):
        address = url(model, page, *([row_of(model).pk] if page == "change" else []))
        if client.get(address).status_code == 200 and "adminform" in client.get(address).context:
            assert status(client, "post", address, form_of(client, address)) < 500


@pytest.mark.parametrize("who", ["superuser", Role.VIEWER])
@pytest.mark.parametrize("chosen", ["present", "gone", "nonsense", "some gone", "none"])
def test_no_action_on_many_is_answered_5xx(chosen: str, who: str, fleet: Fleet) -> None:
    """From the list, and on the page that asks, of which the workers may have gone since."""
    client = caller(who, fleet)
    ids = {"gone": [UNKNOWN], "nonsense": ["nosuch"], "none": []}

    def rows(model: type[models.Model]) -> list[str]:
        there = str(row_of(model).pk)
        return ids.get(chosen, [there] if chosen == "present" else [there, UNKNOWN])

    def calls() -> Iterator[tuple[str, str, Any]]:
        for model in REGISTERED:
            for action in VERBS if model is Worker else ("delete_selected",):
                for extra in ({"index": "0"}, {"post": "yes"}):
                    data = {"action": action, "_selected_action": rows(model), **extra}
                    yield "post", url(model, "changelist"), data
        for verb in VERBS:
            asked = {"workers": ",".join(rows(Worker)).replace("-", ""), "list": "", "name": "new", "days": "1"}
            for data in (
                {**asked, "queue": fleet.queue.pk},
                {**asked, "queue": UNKNOWN},
                {"workers": asked["workers"]},
            ):
                yield "post", f"/admin/workers/worker/bulk/{verb}/", data

    assert broken(client, calls()) == []


def test_the_endpoints_are_where_nobody_listens(fleet: Fleet) -> None:
    """So that no call of these tests leaves the machine."""
    kinds: tuple[type[CredentialConnection | TelemetrySettings], ...] = (
        TemporalConnection,
        LiteLLMConnection,
        TelemetrySettings,
    )
    assert all("127.0.0.1:9" in str(row.__dict__) for kind in kinds for row in kind._default_manager.all())
