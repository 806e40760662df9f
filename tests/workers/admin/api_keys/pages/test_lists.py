"""The list of keys, whose key one is, and the calendar."""

import re
from datetime import UTC, date, datetime, timedelta
from html import unescape

import pytest
from django.test import Client
from django.utils import timezone

from environments.models import Role
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import ACTOR, Fleet
from tests.support.key_pages import listed, member_of, page, statements, url
from workers.api_keys.issuing import revoke_api_key
from workers.models import ApiKey, WorkerInstance

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


def test_the_list_tells_when_each_key_was_last_used_in_a_fixed_number_of_statements(
    fleet: Fleet, client: Client
) -> None:
    start(fleet)
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() + timedelta(hours=5))
    address = url("changelist")
    assert "in 4 h" in page(client, address)
    few = statements(client, address)
    for target in (fleet.queue, fleet.environment, fleet.organization):
        for _ in range(3):
            factories.issue_key(target)
    assert statements(client, address) == few == 7


def test_the_filters_find_keys_by_their_state(fleet: Fleet, client: Client) -> None:
    day = timedelta(days=1)
    factories.issue_key(fleet.worker, name="soon", lifetime=20 * day)
    factories.issue_key(fleet.worker, name="over", age=3 * day, lifetime=day)
    factories.issue_key(fleet.worker, name="endless", lifetime=None, no_expiry_reason="a device in the field")
    row = factories.issue_key(fleet.queue, name="gone").row
    revoke_api_key(row.pk, reason="r", actor=ACTOR, now=timezone.now())
    assert listed(client, state="usable") == {"key", "soon", "endless"}
    assert listed(client, state="expiring") == {"soon"}
    assert listed(client, state="expired") == {"over"}
    assert listed(client, state="endless") == {"endless"}
    assert listed(client, state="revoked") == {"gone"}
    assert listed(client, scope__exact="queue") == {"gone"}
    assert listed(client, q=str(fleet.worker.pk)) == {"key", "soon", "over", "endless"}
    assert listed(client, expires_on=(timezone.now() + 20 * day).date().isoformat()) == {"soon"}
    for query in ({"state": "nonsense"}, {"expires_on": "soon"}, {"expires_on": "9999-12-31"}):
        assert client.get(url("changelist", **query)).status_code == 302


@pytest.mark.parametrize(
    ("days", "color"), [(30, "warning"), (20, "warning"), (10, "warning"), (3, "danger"), (1, "danger")]
)
def test_a_key_that_expires_soon_has_a_badge(days: int, color: str, fleet: Fleet, client: Client) -> None:
    age, left = timedelta(days=60), timedelta(days=days) - timedelta(hours=1)
    row = factories.issue_key(fleet.worker, age=age, lifetime=age + left).row
    badge = f'cp-badge cp-badge-{color}">Expires within {days} day{"" if days == 1 else "s"}<'
    assert badge in page(client, url("change", row.pk))
    assert badge in page(client, url("changelist"))


def test_a_key_for_a_day_is_never_painted_as_a_problem(fleet: Fleet, client: Client) -> None:
    for age in (timedelta(0), timedelta(hours=23), timedelta(days=3)):
        row = factories.issue_key(fleet.worker, name="for a day", age=age, lifetime=timedelta(days=1)).row
        for address in (url("change", row.pk), url("changelist"), url("calendar")):
            assert "cp-badge-danger" not in page(client, address)
            assert "cp-badge-warning" not in page(client, address)


def test_a_key_that_was_found_leads_to_its_page(fleet: Fleet, client: Client) -> None:
    for text in (fleet.token, f'{{"headers": "Authorization: Bearer {fleet.token}"}} ...', f" {fleet.token}. "):
        response = client.post(url("whose"), {"text": text})
        assert response.status_code == 302
        assert response["Location"] == url("change", fleet.api_key.pk)
        assert fleet.token not in str(response.headers)


def test_what_is_no_key_of_ones_own_organizations_is_not_found_and_not_shown(fleet: Fleet) -> None:
    operator, other = member_of(fleet, Role.OPERATOR), factories.create_fleet()
    for text in (other.token, other.token[:-1], "a.b.c", "x" * 9_999, ".".join("a" * 4_000), "\x00", "x" * 10_001, " "):
        response = operator.post(url("whose"), {"text": text})
        assert response.status_code == 200
        assert response.context["form"].errors
        assert text.strip() == "" or text not in unescape(response.content.decode())


def test_the_calendar_shows_keys_and_credentials_on_their_days(fleet: Fleet, client: Client) -> None:
    now = timezone.now()
    start(fleet)
    for model_row, day in ((fleet.temporal, now.date() - timedelta(days=1)), (fleet.litellm, date(2031, 2, 28))):
        model_row.api_key_expires_on = day
        model_row.save()
    factories.issue_key(fleet.worker, name="lately", age=timedelta(days=6), lifetime=timedelta(days=4))
    factories.issue_key(fleet.worker, name="for a day", age=timedelta(days=3), lifetime=timedelta(days=1))
    factories.issue_key(fleet.worker, name="endless", lifetime=None, no_expiry_reason="a device in the field")
    ApiKey.objects.filter(pk=fleet.api_key.pk).update(expires_at=datetime(2031, 1, 31, 23, 59, 59, tzinfo=UTC))
    content = page(client, url("calendar", month="2031-01"))
    for text in ("January 2031", "February 2031", "March 2031", "lately", "endless", "a device in the field"):
        assert text in content
    assert "for a day" not in content
    assert f"{url('changelist')}?expires_on=2031-01-31" in content
    assert 'href="#day-2031-02-28"' in content
    assert 'id="day-2031-02-28"' in content
    overdue, coming = (re.search(rf'id="{name}".*?</table>', content, re.DOTALL) for name in ("overdue", "coming"))
    assert overdue
    assert coming
    assert str(fleet.temporal) in overdue[0]
    assert re.findall(r'cp-number">(\d+)<', coming[0]) == ["1", "1"]
    assert listed(client, expires_on="2031-01-31") == {"key"}


def test_the_calendar_takes_a_fixed_number_of_statements(fleet: Fleet, client: Client) -> None:
    fleet.temporal.api_key_expires_on = timezone.now().date()
    fleet.temporal.save()
    factories.issue_key(fleet.worker, lifetime=timedelta(days=3))
    few = statements(client, url("calendar"))
    for number in range(120):
        factories.issue_key(fleet.worker, name=f"k{number}", lifetime=timedelta(days=3))
    factories.create_temporal(fleet.organization, "other", api_key_expires_on=timezone.now().date())
    content = page(client, url("calendar"))
    assert "There is more; these are the first 100." in content
    assert statements(client, url("calendar")) == few == 17


@pytest.mark.parametrize("month", ["", "2026-13", "9999-12", "\x00", "x", "2026-1", "٢٠٢٦-٠١", "2000-01", "2099-12"])
def test_an_odd_month_is_no_server_error(month: str, fleet: Fleet, client: Client) -> None:
    assert client.get(url("calendar", month=month)).status_code == 200
