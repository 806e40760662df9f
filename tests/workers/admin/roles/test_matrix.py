"""Every page and call of the console has its place in the matrix of roles."""

import logging
import re
from collections.abc import Callable, Iterator

import pytest
from django.contrib import admin

from tests.support.console import REGISTERED, console_routes, routes_of
from tests.support.rights import ACCOUNT, ACTIONS, LOGIN, PAGES, RIGHTS
from tests.support.roles import Caller, Tenant, own_pages, superuser_request

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = [
    pytest.mark.walk,
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
    pytest.mark.xdist_group("roles"),
]


#: Routes of the whole site, for everybody who may enter; each shows only what the person may see.
SITE = {"index", "password_change_done", "autocomplete", "jsi18n", "console_search", "view_on_site", "app_list"}
#: For whoever may make members; tests/controlplane/console/test_inviting.py has each role's part.
SITE |= {"console_invite", "console_invitation_withdraw"}
#: Routes without a name: Django's old address of a row, its catch-all, and our page in the place of its own.
NAMELESS = {"admin/<path:object_id>/", "admin/(?P<url>.*)$", "admin/password_change/"}


@pytest.fixture(autouse=True)
def _without_log(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of answers are logged, refusals with their stack, which takes as long as they do."""
    for name in ("django.request", "controlplane.requests"):
        caplog.set_level(logging.CRITICAL, name)


@pytest.fixture(autouse=True)
def _told_answers(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Tells whoever reads the run's report how many answers a test judged."""
    Caller.answers = 0
    yield
    record_property("answers", Caller.answers)


def test_every_model_has_its_rights() -> None:
    assert set(RIGHTS) == set(REGISTERED)


def test_every_page_is_in_a_table() -> None:
    found = {name for model in REGISTERED for name in own_pages(model)}
    assert found == set(PAGES), "Say in PAGES who may see and use it."
    ours = {name for model in REGISTERED for name in routes_of(model)}
    named = {route.name for route in console_routes().values() if route.name}
    assert named - ours == {*SITE, *LOGIN, *ACCOUNT}, "Say in SITE, LOGIN or ACCOUNT who may see and use it."


def test_every_page_has_a_name_of_its_own() -> None:
    """The tables know a page by its name; one without it, or with another's, would be in none."""
    models_part = re.compile(r"admin/\w+/\w+/(?=<path:object_id>/$)")
    nameless = {models_part.sub("admin/", path) for path, route in console_routes().items() if not route.name}
    assert nameless == NAMELESS
    for model in REGISTERED:
        names = [route.name for route in admin.site._registry[model].get_urls() if route.name]
        assert len(names) == len(set(names)), model


def test_every_action_is_in_a_table(tenants: dict[str, Tenant]) -> None:
    request = superuser_request()
    found = {(model, name) for model in REGISTERED for name in admin.site._registry[model].get_actions(request)}
    assert {action for action in found if action[1] != "delete_selected"} == set(ACTIONS), "Say in ACTIONS who may."


def test_there_are_no_inlines_that_nobody_checks() -> None:
    assert [model for model in REGISTERED if admin.site._registry[model].inlines] == []
