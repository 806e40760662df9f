"""What each role sees and may choose from, of its own organization and of a foreign one."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.urls import reverse

from tests.support.console import REGISTERED, Model, everything, person, routes_of, url
from tests.support.rights import ACCOUNT, PAGES, PASSWORD, RIGHTS, SUPERUSER, VIEWER, Page
from tests.support.roles import (
    CALLERS,
    CHANGES,
    MAUVE,
    OCHRE,
    Caller,
    Tenant,
    account_page,
    new_row,
    own_pages,
    seen,
    unknown_id,
)

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = [
    pytest.mark.walk,
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
    pytest.mark.xdist_group("roles"),
]


each_caller = pytest.mark.parametrize("caller", CALLERS)


@each_caller
def test_a_person_sees_only_pages_and_rows_of_their_organizations(caller: str, tenants: dict[str, Tenant]) -> None:
    """And no page holds a secret, writes a row, or leads to one that the person may not open."""
    visitor, before = Caller(caller, tenants), everything()
    for model, rights in RIGHTS.items():
        look_at_list(visitor, tenants, model)
        visitor.expect(url(model, "add"), is_open=visitor.best >= rights.add)
        for tenant in visitor.walks(tenants):
            for name, is_open, page in pages_of_row(visitor, tenant, model):
                if not is_open or visitor.opens_all:
                    address = page.address(name, tenant, model)
                    visitor.expect(address, is_open=is_open, about=tenant.of(model), page=page)
                if tenant.name in visitor.foreign and caller in {"viewer", "administrator"}:
                    compare_with_unknown(visitor, tenant, model, name, page)
    visitor.get("/admin/")
    if not visitor.opens_all:
        visitor.follow_links()
    visitor.report()
    assert everything() == before


def look_at_list(visitor: "Caller", tenants: dict[str, Tenant], model: Model) -> None:
    """It has the rows of the person's organizations, and counts no other."""
    readable = visitor.best >= RIGHTS[model].read
    response = visitor.expect(url(model, "changelist"), is_open=readable)
    if not readable or response.status_code != 200:
        return
    rows = model._default_manager.all()
    if visitor.best < SUPERUSER:
        mine = [name for name, tenant in tenants.items() if visitor.rank(tenant) >= RIGHTS[model].read]
        rows = rows.filter(**{f"{admin.site._registry[model].organization_path}__in": mine})
    shown, expected = response.context["cl"], set(rows.values_list("pk", flat=True))
    found = {row.pk for row in shown.result_list}
    visitor.note(found != expected, f"{model.__name__} lists {found} instead of {expected}")
    visitor.note(shown.result_count != len(expected), f"{model.__name__} counts {shown.result_count}")


def pages_of_row(visitor: "Caller", tenant: Tenant, model: Model) -> Iterator[tuple[str, bool, Page]]:
    """The routes of a row, and of the pages beside the standard ones; whether the person may look."""
    rights, rank = RIGHTS[model], visitor.rank(tenant)
    for page, needed in (("change", rights.read), ("history", rights.read), ("delete", rights.delete)):
        yield f"{model._meta.app_label}_{model._meta.model_name}_{page}", rank >= needed, Page(needed)
    for name in own_pages(model):
        yield name, (rank if PAGES[name].is_of_row else visitor.best) >= PAGES[name].get, PAGES[name]


def compare_with_unknown(visitor: "Caller", tenant: Tenant, model: Model, name: str, page: Page) -> None:
    """A foreign row is answered like one that does not exist, whatever is done."""
    if page.arguments or not routes_of(model)[name]:
        return
    for send in (visitor.client.get, visitor.client.post):
        answers = [
            seen(send(page.address(name, tenant, model, pk)), pk) for pk in (tenant.of(model).pk, unknown_id(model))
        ]
        visitor.client.cookies.pop("messages", None)
        visitor.note(answers[0] != answers[1], f"{name} tells a foreign {model.__name__}: {answers}")


@each_caller
def test_a_person_s_own_account_tells_of_nobody_else(caller: str, tenants: dict[str, Tenant]) -> None:
    visitor, eve = Caller(caller, tenants), person(f"{OCHRE}-eve", is_staff=True)
    visitor.user.set_password(PASSWORD)
    visitor.user.save()
    visitor.client.force_login(visitor.user)
    assert visitor.client.post(reverse("account_reauthenticate"), {"password": PASSWORD}).status_code == 302
    passkey = Authenticator.objects.create(
        pk=888_888, user=eve, type=Authenticator.Type.WEBAUTHN, data={"name": f"{OCHRE}-passkey", "credential": {}}
    )
    for address in (*(account_page(name, passkey.pk) for name in ACCOUNT), "/admin/password_change/"):
        response = visitor.client.get(address)
        visitor.look(f"GET {address}", response)
        visitor.note(response.status_code not in {200, 302, 404}, f"GET {address} answered {response.status_code}")
    for send in (visitor.client.get, visitor.client.post):
        answers = [seen(send(account_page("mfa_remove_webauthn", pk)), pk) for pk in (passkey.pk, 999_999)]
        visitor.note(answers[0] != answers[1] or answers[0][0] != 404, f"somebody else's passkey is told: {answers}")
    visitor.report()
    assert Authenticator.objects.filter(pk=passkey.pk).exists()


@each_caller
def test_the_search_and_the_sidebar_know_only_what_the_person_may_see(caller: str, tenants: dict[str, Tenant]) -> None:
    visitor = Caller(caller, tenants)
    shown = set(re.findall(r'href="(/admin/(?!account/)\w+/\w+/)"', visitor.get("/admin/").content.decode()))
    readable = {url(model, "changelist") for model, rights in RIGHTS.items() if visitor.best >= rights.read}
    visitor.note(not shown <= readable, f"the first page leads to {shown - readable}")
    visitor.note(bool(readable) and len(shown) < len(readable) / 2, f"the first page leads to {shown} only")
    for tenant in tenants.values():
        response = visitor.get(reverse("admin:search", query={"s": f"{tenant.name}-worker"}))
        links = re.findall(r'href="(/admin/[^"]+/change/)"', response.content.decode())
        visitor.note(bool(links) != (visitor.rank(tenant) >= VIEWER), f"the search for {tenant.name} finds {links}")
        for model in REGISTERED:
            content_type = ContentType.objects.get_for_model(model).pk
            visitor.get(f"/admin/r/{content_type}/{tenant.of(model).pk}/", about=tenant.of(model).pk)
    visitor.report()


@each_caller
def test_a_completion_finds_only_rows_that_the_person_may_see(caller: str, tenants: dict[str, Tenant]) -> None:
    visitor = Caller(caller, tenants)
    for target, (source, name) in relations().items():
        hidden = {
            str(row.pk)
            for tenant in tenants.values()
            if visitor.rank(tenant) < RIGHTS[target].read
            for row in tenant.all_of(target)
        }
        for term in ("", OCHRE, MAUVE):
            own = {"app_label": source._meta.app_label, "model_name": source._meta.model_name, "field_name": name}
            response = visitor.get(reverse("admin:autocomplete", query={**own, "term": term}))
            is_open = visitor.best >= RIGHTS[target].read
            visitor.note(response.status_code != (200 if is_open else 403), f"{own} answered {response.status_code}")
            found = {result["id"] for result in response.json()["results"]} if is_open else set()
            visitor.note(bool(found & hidden), f"{own} with {term!r} shows {found & hidden}")
            visitor.note(is_open and term == MAUVE and not found, f"{own} finds nothing")
    visitor.report()


def relations() -> dict[Model, tuple[Model, str]]:
    """For every model that can be chosen, a field that does; the completion answers for any, be it on a form or not."""
    return {
        relation.related_model: (model, relation.name)
        for model in REGISTERED
        for relation in model._meta.concrete_fields
        if relation.is_relation and relation.related_model in RIGHTS
    }


@pytest.mark.parametrize("caller", ["administrator", "viewer who administers another"])
def test_a_form_offers_and_takes_only_rows_of_organizations_where_the_person_may_write(
    caller: str, tenants: dict[str, Tenant]
) -> None:
    """Else somebody could point to another organization's connection, or make a row there."""
    visitor, before = Caller(caller, tenants), everything()
    for model in CHANGES:
        needed = min(RIGHTS[model].add, RIGHTS[model].change)
        for tenant in tenants.values():
            closed = [other for other in tenants.values() if visitor.rank(other) < needed <= visitor.rank(tenant)]
            for other in closed:
                if visitor.rank(tenant) >= RIGHTS[model].add:
                    point_elsewhere(visitor, url(model, "add"), new_row(model, tenant), other)
                if visitor.rank(tenant) >= RIGHTS[model].change:
                    point_elsewhere(visitor, url(model, "change", tenant.of(model).pk), tenant.forms[model], other)
    visitor.report()
    assert everything() == before


def point_elsewhere(visitor: "Caller", address: str, data: dict[str, Any], other: Tenant) -> None:
    """Looks at a form, also as an address that fills it in asks for it, and sends it with rows of another organization."""
    form = visitor.client.get(address).context["adminform"].form
    choices = {name: choice.queryset for name, choice in form.fields.items() if hasattr(choice, "queryset")}
    theirs = {name: other.of(rows.model).pk for name, rows in choices.items()}
    for name, rows in choices.items():
        offered = rows.filter(pk__in=[row.pk for row in other.all_of(rows.model)])
        visitor.note(offered.exists(), f"{address} offers {list(offered)} as {name}")
    if not theirs:
        return
    if "/add/" in address:
        visitor.get(f"{address}?{urlencode(theirs)}")
    response = visitor.post(address, {**data, **theirs})
    is_open = response.status_code == 200 and "adminform" in (response.context or {})
    errors = response.context["adminform"].form.errors if is_open else {}
    visitor.note(not set(theirs) <= set(errors), f"{address} took {theirs}: {response.status_code} {dict(errors)}")
