"""What tests of the console share: people, addresses, forms, and the second request that confirms a change."""

from collections.abc import Iterator
from html import unescape
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import models, transaction
from django.test import Client
from django.urls import URLResolver, get_resolver, reverse

from environments.models import Membership, Organization, Role
from tests.support.tables import stored

REGISTERED = sorted(admin.site._registry, key=lambda model: model._meta.label)

#: What a worker, or anybody who names something, may try to do to a page.
HOSTILE = "<div x-init=alert(1)></script>\u202e{{ 7*7 }}"

type Model = type[models.Model]


def person(username: str = "ada", **fields: Any) -> User:
    user, _ = User.objects.get_or_create(username=username, defaults=fields)
    return user


def member(organization: Organization, role: Role, username: str = "") -> User:
    """Somebody who may sign in, with this role in the organization."""
    user = person(username or f"{role}-of-{organization.pk}", is_staff=True)
    Membership.objects.create(organization=organization, user=user, role=role)
    return user


def signed_in(user: User | None = None) -> Client:
    """A browser of this person, the superuser unless told; errors are answers, as for a real one."""
    client = Client(raise_request_exception=False)
    client.force_login(user or person())
    return client


def row_of(model: Model) -> models.Model:
    row = model._default_manager.order_by("pk").first()
    assert row, f"The fixture has no {model._meta.verbose_name}."
    return row


def url(model: Model, page: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=arguments)


def routes_of(model: Model) -> dict[str, int]:
    """Every named page of a model's, and how many arguments its address takes."""
    patterns = admin.site._registry[model].get_urls()
    return {pattern.name: len(pattern.pattern.converters) for pattern in patterns if pattern.name}


def console_routes() -> dict[str, Any]:
    """Every route below /admin/, wherever it is mounted, by its path; with two at one path the first one answers."""
    found: dict[str, Any] = {}
    for path, route in _routes(get_resolver().url_patterns):
        if path.startswith("admin/"):
            found.setdefault(path, route)
    return found


def _routes(patterns: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        path = f"{prefix}{str(pattern.pattern).removeprefix('^')}"
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, path)
        else:
            yield path, pattern


def pages_of(model: Model) -> list[str]:
    """The address of every page of a model's, with the first row in it where it wants one."""
    pk = row_of(model).pk
    return [reverse(f"admin:{name}", args=[pk] * count) for name, count in routes_of(model).items()]


def everything() -> dict[str, list[Any]]:
    """All rows of all models but for the sessions, which every visit may touch, and what migrating makes."""
    return stored(Session)


def form_of(client: Client, address: str) -> dict[str, Any]:
    """What the form on a page would send if nothing on it were changed."""
    response = client.get(address)
    assert response.status_code == 200, response.content[:300]
    form = response.context["adminform"].form
    values = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    texts = {
        name: form.fields[name].prepare_value(value) for name, value in values.items() if isinstance(value, list | dict)
    }
    sent = {name: value for name, value in (values | texts).items() if value is not None and value is not False}
    return {name: "on" if value is True else value for name, value in sent.items()}


def post_confirmed(client: Client, address: str, data: dict[str, Any]) -> Any:
    """Sends a form and, where the console asks whether that is meant, says yes as its page would."""
    response = client.post(address, data)
    mark = (response.context or {}).get("mark") if response.status_code == 200 else None
    if not mark:
        return response
    fields: dict[str, list[Any]] = {"_confirmed": [mark]}
    for name, value in response.context["fields"]:
        fields.setdefault(name, []).append(value)
    return client.post(address, fields)


def status_of(client: Client, method: str, address: str, data: Any = None) -> int:
    """The answer's status; undone again, since PostgreSQL refuses all else after an error in a test's transaction."""
    savepoint = transaction.savepoint_create()
    try:
        return getattr(client, method)(address, data).status_code  # type: ignore[no-any-return]
    finally:
        transaction.savepoint_rollback(savepoint)


def errors_of(response: Any) -> str:
    """The text of the form errors of a page that was shown again; nothing was saved."""
    assert response.status_code == 200, (response.status_code, response.content[:300])
    form = response.context["adminform"].form
    told = [str(message) for messages in form.errors.values() for message in messages]
    assert told
    assert [message for message in told if message not in unescape(response.content.decode())] == []
    return " ".join(told)
