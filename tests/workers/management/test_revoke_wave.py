"""revoke_api_key for many keys at once: by when they were issued, of one organization or all."""

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.models import ApiKey

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


@pytest.fixture
def fleet() -> Fleet:
    """Keys of two organizations that were issued 5 days ago, and one of today."""
    fleet, other = fresh_fleet(), fresh_fleet()
    for each in (fleet, other):
        ApiKey.objects.filter(pk=each.api_key.pk).update(
            created_at=timezone.now() - 5 * DAY, name=f"old {each.worker.pk}"
        )
    factories.issue_key(fleet.queue, name="new")
    return fleet


def run(*arguments: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command("revoke_api_key", *map(str, arguments), "--reason", "restored", "--format=json", stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def revoked() -> set[str]:
    return {str(pk) for pk in ApiKey.objects.exclude(revoked_at=None).values_list("pk", flat=True)}


def ids(**wanted: Any) -> set[str]:
    return {str(pk) for pk in ApiKey.objects.filter(**wanted).values_list("pk", flat=True)}


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--all"], {}),
        (["--issued-before", "4d"], {"name__startswith": "old"}),
        (["--issued-before", "6d"], {"name": "none"}),
    ],
)
def test_it_revokes_those_alone_each_on_record(arguments: list[str], wanted: dict[str, Any], fleet: Fleet) -> None:
    chosen = ids(**wanted)
    assert set(run(*arguments, "--dry-run")["would_be_revoked"]) == chosen
    assert revoked() == set()
    assert set(run(*arguments)["revoked"]) == revoked() == chosen
    events = AuditEvent.objects.filter(action="api_key.revoked")
    assert {event.object_id for event in events} == chosen
    assert all(event.changes == {"revoke_reason": ["", "restored"]} and event.organization_id for event in events)
    assert run(*arguments)["revoked"] == []


@pytest.mark.parametrize("choice", [["--all"], ["--issued-before", "1d"]])
def test_of_one_organization_alone(choice: list[str], fleet: Fleet) -> None:
    run(*choice, "--organization", fleet.organization.pk)
    assert revoked() <= ids(organization=fleet.organization)
    assert start(fleet).status_code == 401


def test_expired_keys_too(fleet: Fleet) -> None:
    """Whose clock was corrected may be good again."""
    ApiKey.objects.update(expires_at=timezone.now() - DAY)
    assert len(run("--all")["revoked"]) == 3


def test_in_small_transactions(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.api_keys.issuing.BATCH", 1)
    assert len(run("--all")["revoked"]) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give one of"),
        (["--all", "--stdin"], "Give one of"),
        (["--all", "--issued-before", "1d"], "Give one of"),
        (["{id}", "--all"], "Give one of"),
        (["{id}", "--dry-run"], "go with"),
        (["{id}", "--organization", "acme"], "go with"),
        (["--stdin", "--dry-run"], "go with"),
        (["--all", "--organization", "no-such"], "There is no organization"),
        (["--issued-before", "yesterday"], "argument --issued-before"),
        (["--issued-before", ""], "argument --issued-before"),
    ],
)
def test_what_is_unclear_revokes_nothing(arguments: list[str], said: str, fleet: Fleet) -> None:
    with pytest.raises(CommandError, match=said):
        run(*(argument.format(id=fleet.api_key.pk) for argument in arguments))
    assert revoked() == set()
