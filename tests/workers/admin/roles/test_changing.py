"""What each role may change, and that nobody gives themselves more."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.models import User
from django.db import models
from django.test import Client
from django.urls import reverse

from controlplane.middleware.console import BAD_INPUT
from environments.models import Environment, Membership
from tests.support.console import REGISTERED, Model, everything, person, post_confirmed, routes_of, signed_in, url
from tests.support.rights import ACCOUNT, ACTIONS, ADMINISTRATOR, LOGIN, OPERATOR, PAGES, RIGHTS
from tests.support.roles import (
    CALLERS,
    CHANGES,
    MAUVE,
    OCHRE,
    OUTSIDERS,
    Caller,
    Tenant,
    account_page,
    is_refused,
    new_row,
    own_pages,
    statements,
    superuser_request,
    unknown_id,
)
from tests.support.undoing import undone
from workers.models import Worker

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = [
    pytest.mark.walk,
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
    pytest.mark.xdist_group("roles"),
]


MEMBERS = [name for name in CALLERS if name != "superuser"]


def table(model: Model) -> list[Any]:
    return list(model._base_manager.order_by("pk").values_list())


def calls_of(model: Model, tenant: Tenant) -> Iterator[tuple[str, dict[str, Any], int, Any]]:
    """Every form of a model's, sent for a row of the organization: address, data, the least role, the row."""
    rights, row, spare = RIGHTS[model], tenant.of(model), tenant.of(model, is_spare=True)
    yield url(model, "add"), new_row(model, tenant), rights.add, None
    changed = {**tenant.forms.get(model, {}), **CHANGES.get(model, {"name": "changed"}), "_save": "Save"}
    yield url(model, "change", row.pk), changed, rights.change, row
    yield url(model, "delete", spare.pk), {"post": "yes"}, rights.delete, spare


@pytest.mark.parametrize("caller", MEMBERS)
def test_a_person_changes_only_what_their_role_in_the_row_s_organization_allows(
    caller: str, tenants: dict[str, Tenant]
) -> None:
    visitor, before = Caller(caller, tenants), everything()
    for model in REGISTERED:
        for tenant in tenants.values():
            for address, data, needed, row in calls_of(model, tenant):
                if visitor.rank(tenant) >= needed:
                    expect_change(visitor, model, address, data)
                    continue
                with statements() as written:
                    response = visitor.post(address, data, about=row and row.pk)
                visitor.note(bool(written), f"POST {address} by {caller} for {tenant.name} wrote {written}")
                # A new row's form is for whoever may make one somewhere; it then says that this is no choice.
                is_form = response.status_code == 200 and visitor.best >= needed and row is None
                visitor.note(not (is_refused(response) or is_form), f"POST {address} answered {response.status_code}")
            for name in own_pages(model):
                send_own_page(visitor, tenants[tenant.name], model, name)
    visitor.report()
    assert everything() == before


def send_own_page(visitor: Caller, tenant: Tenant, model: Model, name: str) -> None:
    """Sends the form of a page beside the standard ones."""
    page = PAGES[name]
    address, data = page.address(name, tenant, model), page.data(tenant)
    if visitor.rank(tenant) >= page.post:
        if page.is_change:
            expect_change(visitor, model, address, data)
        return
    with statements() as written:
        response = visitor.post(address, data, about=tenant.of(model).pk)
    visitor.note(bool(written), f"POST {address} for {tenant.name} wrote {written}")
    is_silent = page.is_silent and (visitor.best >= page.post or response.status_code == 302)
    visitor.note(not is_refused(response) and not is_silent, f"POST {address} answered {response.status_code}")


def expect_change(visitor: Caller, model: Model, address: str, data: dict[str, Any]) -> None:
    with undone():
        rows = table(model)
        response = post_confirmed(visitor.client, address, data)
        visitor.look(f"POST {address}", response, None)
        visitor.note(response.status_code not in {200, 302}, f"POST {address} answered {response.status_code}")
        errors = (response.context or {}).get("errors") if response.status_code == 200 else None
        visitor.note(table(model) == rows, f"POST {address} {data} changed nothing: {errors}")


@pytest.mark.parametrize("caller", MEMBERS)
def test_an_action_touches_no_row_beyond_the_person_s_role(caller: str, tenants: dict[str, Tenant]) -> None:
    visitor, request = Caller(caller, tenants), superuser_request()
    for model in REGISTERED:
        for action in {*admin.site._registry[model].get_actions(request), "delete_selected"}:
            needed = RIGHTS[model].delete if action == "delete_selected" else ACTIONS[model, action]
            for across in ("0", "1") if model is Worker else ("1",):
                with undone():
                    kept = {tenant.name: _table_of(model, tenant) for tenant in tenants.values()}
                    selected = [tenant.of(model, is_spare=True).pk for tenant in tenants.values()]
                    data = {"action": action, "_selected_action": selected, "select_across": across, "post": "yes"}
                    visitor.post(url(model, "changelist"), data)
                    for tenant in tenants.values():
                        is_changed = _table_of(model, tenant) != kept[tenant.name]
                        is_wrong = is_changed and visitor.rank(tenant) < needed
                        visitor.note(is_wrong, f"{action} on {model.__name__} by {caller} changed {tenant.name}")
    visitor.report()


def _table_of(model: Model, tenant: Tenant) -> list[Any]:
    path = getattr(admin.site._registry[model], "organization_path", "organization")
    lookup = "memberships__organization" if model is User else path
    rows = model._base_manager.filter(**{f"{lookup}__in": [tenant.name, f"{tenant.name}-spare"]})
    return list(rows.order_by("pk").values_list())


def test_a_selection_of_own_rows_is_deleted_by_whoever_may(tenants: dict[str, Tenant]) -> None:
    """The counterpart: the action that is refused above does something."""
    visitor = Caller("administrator", tenants)
    spare = tenants[MAUVE].of(Environment, is_spare=True)
    data = {"action": "delete_selected", "_selected_action": [spare.pk], "post": "yes"}
    assert visitor.post(url(Environment, "changelist"), data).status_code == 302
    assert not Environment.objects.filter(pk=spare.pk).exists()


@pytest.mark.parametrize("caller", ["viewer", "operator", "administrator", "viewer who administers another"])
def test_nobody_gives_themselves_a_role(caller: str, tenants: dict[str, Tenant]) -> None:
    """Not where they have none, not a higher one where they have one; and their own row stays theirs."""
    visitor, before = Caller(caller, tenants), table(Membership)
    mine = Membership.objects.get(user__username=caller, organization=MAUVE)
    theirs = tenants[OCHRE].of(Membership)
    for organization in (OCHRE, MAUVE):
        if visitor.ranks.get(organization) == ADMINISTRATOR:
            continue
        for username in (caller, f"{OCHRE}-stranger"):
            data = {"organization": organization, "username": username, "role": "administrator"}
            visitor.client.post(url(Membership, "add"), data)
    for row in (mine, *([theirs] if OCHRE not in visitor.ranks else [])):
        if visitor.ranks.get(row.organization_id) == ADMINISTRATOR:
            continue
        data = {"role": "administrator", "organization": row.organization_id, "user": row.user_id, "_save": "Save"}
        visitor.client.post(url(Membership, "change", row.pk), data)
        visitor.client.post(url(Membership, "delete", row.pk), {"post": "yes"})
    assert table(Membership) == before


def test_an_administrator_moves_no_membership(tenants: dict[str, Tenant]) -> None:
    """Neither to another organization nor to another person."""
    visitor, row = Caller("administrator", tenants), tenants[MAUVE].of(Membership)
    data = {
        "organization": OCHRE,
        "user": person("member of none").pk,
        "username": "member of none",
        "role": "operator",
    }
    assert visitor.client.post(url(Membership, "change", row.pk), data).status_code == 302
    row = Membership.objects.get(pk=row.pk)
    assert (row.organization_id, row.user.username, row.role) == (MAUVE, f"{MAUVE}-person", "operator")


@pytest.mark.parametrize("page", ["change", "add"])
def test_flags_of_the_address_open_nothing(page: str, tenants: dict[str, Tenant]) -> None:
    visitor, before = Caller("operator", tenants), everything()
    for model in REGISTERED:
        if RIGHTS[model].change <= OPERATOR or RIGHTS[model].add <= OPERATOR:
            continue
        arguments = [tenants[MAUVE].of(model).pk] if page == "change" else []
        address = f"{url(model, page, *arguments)}?_popup=1&_to_field=id&e=1&organization={MAUVE}"
        response = visitor.post(address, {**new_row(model, tenants[MAUVE]), "_popup": "1", "_to_field": "id"})
        visitor.note(not is_refused(response), f"POST {address} answered {response.status_code}")
    visitor.report()
    assert everything() == before


def test_a_filter_is_no_oracle_of_another_organization(tenants: dict[str, Tenant]) -> None:
    """Whatever is asked of a foreign row, the right guess is answered as the wrong one is."""
    visitor, asked = Caller("administrator", tenants), 0
    for model in REGISTERED:
        if visitor.best < RIGHTS[model].read:
            continue
        model_admin, foreign = admin.site._registry[model], str(tenants[OCHRE].of(model).pk)
        questions = {"q": OCHRE, "id": foreign, "id__startswith": foreign[:4], "organization__id__exact": OCHRE}
        questions |= {"id__in": f"{foreign},{foreign}", "organization": OCHRE, "organization__in": OCHRE}
        request = visitor.request()
        allowed = [lookup for lookup in text_lookups(model) if model_admin.lookup_allowed(lookup, OCHRE, request)]
        # What is of the row itself is the person's own; what lies beyond could be somebody else's.
        questions |= {lookup: OCHRE for lookup in allowed if lookup.count("__") > 1}
        for lookup, guess in questions.items():
            wrong = str(unknown_id(model)) if guess.startswith(foreign[:4]) else "zzzzz"
            answers = [rows_found(model_admin, visitor.request(**{lookup: text})) for text in (guess, wrong)]
            visitor.note(answers[0] != answers[1], f"{model.__name__}?{lookup}= tells {answers[0]} from {answers[1]}")
            asked += 1
    visitor.report()
    assert asked > 50


def rows_found(model_admin: Any, request: Any) -> Any:
    """What a list with these filters has, or how it is refused."""
    try:
        return [row.pk for row in model_admin.get_changelist_instance(request).result_list]
    except (IncorrectLookupParameters, DisallowedModelAdminLookup, *BAD_INPUT) as error:
        return type(error)


def text_lookups(model: Model, depth: int = 3) -> Iterator[str]:
    """Lookups of texts that can be reached from a model, also backwards and through the organization."""
    for relation in model._meta.get_fields():
        if relation.is_relation and relation.related_model and depth:
            yield from (f"{relation.name}__{path}" for path in text_lookups(relation.related_model, depth - 1))
        elif isinstance(relation, models.CharField):
            yield f"{relation.name}__startswith"


def test_whoever_loses_a_role_is_refused_at_once(tenants: dict[str, Tenant]) -> None:
    visitor, row = Caller("operator", tenants), tenants[MAUVE].of(Worker)
    page, search = url(Worker, "change", row.pk), reverse("admin:search", query={"s": f"{MAUVE}-worker"})
    assert visitor.client.get(page).status_code == 200
    assert str(row.pk) in visitor.client.get(search).content.decode()
    Membership.objects.filter(user__username="operator").update(role="viewer")
    assert visitor.client.post(page, {"name": "changed", "_save": "Save"}).status_code == 403
    Membership.objects.filter(user__username="operator").delete()
    assert visitor.client.get(page).status_code == 403
    assert str(row.pk) not in visitor.client.get(search).content.decode()


def test_a_member_of_no_organization_is_told_whom_to_ask(tenants: dict[str, Tenant]) -> None:
    page = Caller("member of none", tenants).get("/admin/").content.decode()
    assert "Ask an administrator" in page
    assert "member of none" in page


@pytest.mark.parametrize("caller", [*OUTSIDERS, "anonymous"])
def test_outsiders_are_led_to_the_login(caller: str, tenants: dict[str, Tenant]) -> None:
    client = Client(raise_request_exception=False) if caller == "anonymous" else signed_in(person(caller))
    before, problems = everything(), []
    whole_site = [reverse(f"admin:{name}") for name in ("index", "autocomplete", "jsi18n", "password_change")]
    whole_site += [
        "/admin/search/?s=mauve",
        "/admin/invite/",
        "/admin/invite/withdraw/",
        "/admin/workers/",
        *(account_page(name, 1) for name in ACCOUNT),
    ]
    for model in REGISTERED:
        pk = tenants[MAUVE].of(model).pk
        addresses = [reverse(f"admin:{name}", args=[pk] * count) for name, count in routes_of(model).items()]
        for address in [*addresses, *whole_site]:
            for response in (
                client.get(address),
                client.post(address, {"post": "yes", **new_row(model, tenants[MAUVE])}),
            ):
                if response.status_code != 302 or not response["Location"].startswith("/admin/login/"):
                    problems.append(f"{address}: {response.status_code}")  # noqa: PERF401
    for name in LOGIN:
        page = client.get(reverse(name))
        if page.status_code >= 500 or re.search(f"{MAUVE}|{OCHRE}", page.content.decode()):
            problems.append(f"{name}: {page.status_code} {page.content.decode()[:500]}")
    assert problems == []
    assert everything() == before
