"""People in each role, who call the console's pages."""

import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from html import unescape
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection, models
from django.test import RequestFactory
from django.urls import Resolver404, get_resolver, reverse
from django.utils import timezone

from environments.models import (
    AuditEvent,
    DataKey,
    Environment,
    LiteLLMConnection,
    Membership,
    Organization,
    TelemetrySettings,
    TemporalConnection,
)
from tests.support import factories
from tests.support.calls import start
from tests.support.console import Model, person, routes_of, signed_in
from tests.support.factories import Fleet
from tests.support.notifications import create_target, tell
from tests.support.receivers import SECRET
from tests.support.rights import ADMINISTRATOR, LOOK, NO_MEMBER, OPERATOR, PASSWORD, STANDARD, SUPERUSER, VIEWER, Page
from workers.lifecycle.update_locks import acquire_update_lock
from workers.models import (
    ApiKey,
    InstanceReport,
    NotificationTarget,
    Refusal,
    RefusedStart,
    Worker,
    WorkerInstance,
    WorkerQueue,
    WorkerStart,
)

#: Words that no page has of its own, so that what is of an organization is known by its name.
MAUVE, OCHRE = "mauve", "ochre"
ROLES = {"viewer": VIEWER, "operator": OPERATOR, "administrator": ADMINISTRATOR}
#: Who calls -> the role in each organization.
CALLERS: dict[str, dict[str, int]] = {
    "superuser": {MAUVE: SUPERUSER, OCHRE: SUPERUSER},
    "viewer": {MAUVE: VIEWER},
    "operator": {MAUVE: OPERATOR},
    "administrator": {MAUVE: ADMINISTRATOR},
    "viewer who administers another": {MAUVE: VIEWER, OCHRE: ADMINISTRATOR},
    "member of none": {},
}
OUTSIDERS = {
    "not staff": {"is_staff": False},
    "superuser but not staff": {"is_staff": False, "is_superuser": True},
    "inactive": {"is_staff": True, "is_active": False, "is_superuser": True},
}


@dataclass
class Tenant:
    """An organization with a row of every kind, and one of each that nothing needs."""

    name: str
    token: str = ""
    rows: dict[Model, models.Model] = field(default_factory=dict)
    #: What each row's form sends when nothing on it is changed.
    forms: dict[Model, dict[str, Any]] = field(default_factory=dict)
    spare: dict[Model, models.Model] = field(default_factory=dict)

    def add(self, row: models.Model, *, is_spare: bool = False) -> Any:
        (self.spare if is_spare else self.rows)[type(row)] = row
        return row

    def all_of(self, model: Model) -> list[Any]:
        return [found[model] for found in (self.rows, self.spare) if model in found]

    @cached_property
    def secrets(self) -> list[str]:
        """What no page may hold, as it is and in the usual codes."""
        key, connections = self.of(DataKey), [self.of(model) for model in (TemporalConnection, LiteLLMConnection)]
        passwords = [user.password for user in User.objects.exclude(password="")]
        plain = [self.token, f"{self.name}-temporal-secret", f"{self.name}-litellm-secret", PASSWORD]
        plain += [f"{self.name}-url-secret", SECRET]
        stored = [key.wrapped_key, key.known_answer, key.fingerprint_key, self.of(ApiKey).token_hash]
        stored += [connection.sealed_api_key for connection in connections] + passwords
        stored += [self.of(NotificationTarget).sealed_url, self.of(NotificationTarget).sealed_secret]
        rings = (settings.ENCRYPTION_KEYS, settings.API_KEY_SIGNING_KEYS)
        keys = [settings.SECRET_KEY, *(one.material for ring in rings for one in ring.values())]
        return sorted({code for secret in [*plain, *stored, *keys] for code in codes_of(secret)})

    def of(self, model: Model, *, is_spare: bool = False) -> Any:
        return self.spare.get(model, self.rows[model]) if is_spare else self.rows[model]


def codes_of(secret: str | bytes) -> list[str]:
    """A secret as it is, in base64 wherever it begins there, in hexadecimal digits, and as part of an address."""
    data = secret.encode() if isinstance(secret, str) else secret
    plain = [secret, quote(secret, safe="")] if isinstance(secret, str) else []
    inner = [b64encode(bytes(shift) + data).decode()[4 if shift else 0 : -4] for shift in range(3)]
    return [*plain, data.hex(), *inner, *(text.translate(URL_SAFE) for text in inner)]


def build(name: str) -> Tenant:
    """Every text that is stored in it has the organization's name in it."""
    tenant = Tenant(name)
    organization = tenant.add(factories.create_organization(name))
    temporal = tenant.add(factories.create_temporal(organization, f"{name}-temporal", secret=f"{name}-temporal-secret"))
    litellm = tenant.add(factories.create_litellm(organization, f"{name}-litellm", secret=f"{name}-litellm-secret"))
    telemetry = tenant.add(
        factories.create_telemetry(organization, f"{name}-telemetry", otel_service_name=f"{name}-service")
    )
    pointers = {"temporal_connection": temporal, "litellm_connection": litellm, "telemetry_settings": telemetry}
    environment = tenant.add(factories.create_environment(organization, f"{name}-production", **pointers))
    queue = tenant.add(factories.create_queue(environment, f"{name}-queue", **pointers))
    worker = tenant.add(factories.create_worker(queue, f"{name}-worker", description=f"{name} text", **pointers))
    factories.point(organization, **pointers)
    issued = factories.issue_key(worker, name=f"{name}-key")
    tenant.add(issued.row)
    tenant.token = issued.token.reveal()
    person_of = tenant.add(person(f"{name}-person", is_staff=True, email=f"{name}@example.com"))
    person_of.set_password(PASSWORD)
    person_of.save()
    tenant.add(Membership.objects.create(organization=organization, user=person_of, role="viewer"))
    tenant.add(DataKey.objects.get(organization=organization))
    for row in tell(organization, name, url=f"http://127.0.0.1:1/{name}-url-secret"):
        tenant.add(row)
    _run(tenant, Fleet(organization, environment, queue, worker, temporal, litellm, "", "", issued.row, tenant.token))
    _spare(tenant, organization, environment, queue)
    return tenant


def _run(tenant: Tenant, fleet: Fleet) -> None:
    """What a running worker leaves behind."""
    name, now = tenant.name, timezone.now()
    assert start(fleet, {"system_info": {"hostname": f"{name}-host", "python": f"{name}-python"}}).status_code == 200
    instance = tenant.add(WorkerInstance.objects.get(worker=fleet.worker))
    tenant.add(WorkerStart.objects.get(worker=fleet.worker))
    report = {"id": instance.pk, "instance": instance, "organization": fleet.organization, "reported_at": now}
    InstanceReport.objects.create(**report, logs=[f"{name}-log"], system_info={"os": f"{name}-os"})
    refusal = {"id": fleet.api_key.pk, "api_key": fleet.api_key, "organization": fleet.organization}
    Refusal.objects.create(**refusal, worker_id=fleet.worker.pk, occurred_at=now, status=403, reason=f"{name}-reason")
    told = {"first_at": now, "occurred_at": now, "times": 1, "status": 403, "reason": f"{name}-reason"}
    RefusedStart.objects.create(**refusal | {"id": fleet.worker.pk, "worker_id": fleet.worker.pk, **told})
    key = factories.issue_key(fleet.organization, name=f"{name}-organization-key").row
    acquire_update_lock(fleet.queue.pk, holder=f"{name}-holder", duration=timedelta(minutes=5), api_key=key, now=now)
    tenant.add(AuditEvent.objects.filter(organization=fleet.organization).order_by("pk")[0])
    for model, row in tenant.rows.items():
        LogEntry.objects.create(
            user=User.objects.get(username="superuser"),
            content_type=ContentType.objects.get_for_model(model),
            object_id=str(row.pk),
            object_repr=f"{name}-entry",
            action_flag=CHANGE,
            change_message=f"{name}-message",
        )


def _spare(tenant: Tenant, organization: Organization, environment: Environment, queue: WorkerQueue) -> None:
    """Rows that can be deleted, since nothing points to them."""
    name, add = tenant.name, partial(tenant.add, is_spare=True)
    add(factories.create_temporal(organization, f"{name}-spare"))
    add(factories.create_litellm(organization, f"{name}-spare"))
    add(factories.create_telemetry(organization, f"{name}-spare"))
    add(factories.create_environment(organization, f"{name}-spare"))
    add(factories.create_queue(environment, f"{name}-spare"))
    add(factories.create_worker(queue, f"{name}-spare"))
    newcomer = add(person(f"{name}-newcomer", is_staff=True))
    add(Membership.objects.create(organization=organization, user=newcomer, role="viewer"))
    add(create_target(organization, f"{name}-spare"))
    add(factories.create_organization(f"{name}-spare"))
    person(f"{name}-stranger", is_staff=True)


WRITING = re.compile(r"(INSERT|UPDATE|DELETE)\b(?!.*django_session)", re.DOTALL)
REFUSED = {403, 404, 405}
#: Base64's two characters that are others in addresses.
URL_SAFE = str.maketrans("+/", "-_")
UNKNOWN = UUID("00000000-0000-4000-8000-000000000000")


class Caller:
    """Somebody at a browser, and what they must not be shown."""

    #: How many answers were judged, of all callers of a test.
    answers = 0

    def __init__(self, name: str, tenants: dict[str, Tenant]) -> None:
        self.name = name
        self.ranks = CALLERS[name]
        self.user = person(name)
        self.client = signed_in(self.user)
        self.foreign = {MAUVE, OCHRE} - set(self.ranks)
        self.secrets = {secret for tenant in tenants.values() for secret in tenant.secrets}
        self.problems: list[str] = []
        self.visited: set[str] = set()
        self.links: set[str] = set()

    def rank(self, tenant: Tenant) -> int:
        return self.ranks.get(tenant.name, NO_MEMBER)

    @property
    def best(self) -> int:
        return max(self.ranks.values(), default=NO_MEMBER)

    @property
    def opens_all(self) -> bool:
        """Whether this is who opens what is open; the others follow links, since a page takes long to render."""
        return self.name == "administrator"

    def walks(self, tenants: dict[str, Tenant]) -> list[Tenant]:
        """For a superuser one organization is like the other."""
        return list(tenants.values())[: 1 if self.best == SUPERUSER else None]

    def request(self, **query: str) -> Any:
        """A request as a list gets it."""
        request = RequestFactory().get("/admin/", query)
        request.session = SessionStore()
        request.user = self.user
        return request

    def expect(self, address: str, *, is_open: bool, about: Any = None, page: Page = LOOK) -> Any:
        """Looks at a page that has to be open, or to be refused."""
        response = self.get(address, about=about and about.pk)
        is_right = response.status_code == page.status if is_open else is_refused(response)
        self.note(not is_right, f"GET {address} answered {response.status_code} though open is {is_open}")
        return response

    def get(self, address: str, *, about: Any = None) -> Any:
        """An answer that has changed nothing and shows nothing foreign, but for the id that was asked for."""
        with statements() as written:
            response = self.client.get(address)
        self.note(bool(written), f"GET {address} wrote: {written}")
        text = self.look(f"GET {address}", response, about)
        self.visited.add(kind_of_address(address))
        self.links |= set(re.findall(r'(?:href|data-refresh)="(/admin/[^"#]*)', text))
        return response

    def post(self, address: str, data: dict[str, Any], *, about: Any = None) -> Any:
        response = self.client.post(address, data)
        self.look(f"POST {address}", response, about, *data.values())
        return response

    def follow_links(self) -> None:
        """Opens every kind of page that those seen so far lead to."""
        while waiting := {link for link in self.links if kind_of_address(link) not in self.visited}:
            address = unescape(min(waiting))
            self.visited.add(kind_of_address(min(waiting)))
            response = self.get(address)
            self.note(response.status_code not in {200, 302}, f"a link leads to {address}: {response.status_code}")

    def look(self, call: str, response: Any, *asked: Any) -> str:
        """Notes server errors, secrets, and foreign names in the page, its headers and its cookies."""
        Caller.answers += 1
        self.note(response.status_code >= 500, f"{call} answered {response.status_code}")
        content = b"".join(response.streaming_content) if response.streaming else response.content
        text = unescape(content.decode())
        told = f"{text} {response.headers} {response.cookies}"
        self.note(any(secret in told for secret in self.secrets), f"{call} shows a secret")
        # What was asked for may be repeated: Django says which id does not exist, a list what was searched.
        for text_asked in filter(None, (*asked, *chain(*parse_qs(urlsplit(call.split()[1]).query).values()))):
            told = told.replace(str(text_asked), "")
        for name in self.foreign:
            at = told.find(name)
            self.note(at >= 0, f"{call} shows {told[max(at - 60, 0) : at + 60]!r}")
        self.client.cookies.pop("messages", None)
        return text

    def note(self, is_problem: bool, text: str) -> None:
        if is_problem:
            self.problems.append(text)

    def report(self) -> None:
        """Fails with all that was noted."""
        assert not self.problems, f"{len(self.problems)} problems:\n" + "\n".join(self.problems)


#: Parts of an address that only tell where somebody came from.
PASSED_ON = {"_changelist_filters", "_popup", "_to_field", "_source_model"}


@lru_cache(10_000)
def kind_of_address(address: str) -> str:
    """Addresses of one route with the same filters are pages of one kind."""
    parts = urlsplit(unescape(address))
    try:
        route = get_resolver().resolve(parts.path).route
    except Resolver404:
        route = parts.path
    return f"{route}?{sorted(set(parse_qs(parts.query, keep_blank_values=True)) - PASSED_ON)}"


def is_refused(response: Any) -> bool:
    """Refused, or led to the first page, which says that there is no such row."""
    return response.status_code in REFUSED or (response.status_code == 302 and response["Location"] == "/admin/")


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that write, but for those of sessions."""
    written: list[str] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if WRITING.match(sql):
            written.append(sql[:100])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        yield written


def unknown_id(model: Model) -> Any:
    return {User: 999_999, Organization: "nosuch"}.get(model, UNKNOWN)


def own_pages(model: Model) -> list[str]:
    """The routes beside the standard ones."""
    standard = {f"{model._meta.app_label}_{model._meta.model_name}_{page}" for page in STANDARD}
    return [name for name in routes_of(model) if name not in standard]


def superuser_request() -> Any:
    return signed_in(person("superuser")).get("/admin/login/").wsgi_request


def seen(response: Any, pk: Any) -> tuple[int, str, str]:
    text, location = response.content.decode(), response.headers.get("Location", "")
    return response.status_code, location.replace(str(pk), ""), text.replace(str(pk), "")[:2_000]


def account_page(name: str, pk: int) -> str:
    return reverse(name, args=[pk] if name == "mfa_remove_webauthn" else [])


def new_row(model: Model, tenant: Tenant) -> dict[str, Any]:
    """What a person types for a new row in the organization."""
    connection_of = {"organization": tenant.name, "name": "new", "requires_api_key": "on", "api_key": "typed"}
    forms: dict[Model, dict[str, Any]] = {
        User: {"username": "new", "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"},
        Organization: {"id": "new", "name": "New"},
        Membership: {"organization": tenant.name, "username": f"{tenant.name}-stranger", "role": "viewer"},
        Environment: {"organization": tenant.name, "name": "new"},
        TemporalConnection: {**connection_of, "host": "new.example:7233", "namespace": "new"},
        LiteLLMConnection: {**connection_of, "api_url": "https://new.example"},
        TelemetrySettings: {
            "organization": tenant.name,
            "name": "new",
            "otel_service_name": "new",
            "otel_traces_sampler": "always_on",
        },
        WorkerQueue: {
            "environment": tenant.of(Environment).pk,
            "name": "new",
            "heartbeat_interval": 60,
            "duplicate_policy": "allow",
        },
        Worker: {"queue": tenant.of(WorkerQueue).pk, "name": "new"},
        NotificationTarget: {
            "organization": tenant.name,
            "name": "new",
            "kind": "slack",
            "url": "https://new.example",
            "time_zone": "UTC",
        },
        ApiKey: {"name": "new", "days": 90, "scope": "worker", "worker": tenant.of(Worker).pk},
    }
    return forms.get(model, {"name": "new"})


#: A field of each form that can be changed, and to what.
CHANGES: dict[Model, dict[str, Any]] = {
    User: {"first_name": "Changed"},
    Organization: {"name": "Changed"},
    Membership: {"role": "operator"},
    Environment: {"description": "Changed"},
    TemporalConnection: {"namespace": "changed"},
    LiteLLMConnection: {"api_url": "https://changed.example"},
    TelemetrySettings: {"otel_service_name": "changed"},
    WorkerQueue: {"description": "Changed"},
    Worker: {"description": "Changed"},
    NotificationTarget: {"time_zone": "Europe/Berlin"},
}
