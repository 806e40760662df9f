"""Who sees and does what in the console: every page x every role x rows of an own and of a foreign organization.

The pages are taken from the registry and from each page's routes; who may use them stands in the tables below, which say
it again rather than read it from the product. A model, page or action that is in no table fails.
"""

import logging
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from html import unescape
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from uuid import UUID

import pytest
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.db import connection, models, transaction
from django.test import Client, RequestFactory
from django.urls import Resolver404, get_resolver, reverse
from django.utils import timezone

from controlplane.middleware.console import BAD_INPUT
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
from tests.support.console import (
    REGISTERED,
    Model,
    console_routes,
    everything,
    form_of,
    person,
    post_confirmed,
    routes_of,
    signed_in,
    url,
)
from tests.support.factories import Fleet
from tests.support.undoing import undone
from workers.lifecycle.update_locks import acquire_update_lock
from workers.models import (
    ApiKey,
    InstanceReport,
    Refusal,
    Worker,
    WorkerInstance,
    WorkerQueue,
    WorkerStart,
)

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = [
    pytest.mark.walk,
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
    pytest.mark.xdist_group("roles"),
]

# --- Who may do what -------------------------------------------------------------------------------------------------------

#: Roles, each with all rights of those before it. Nobody is none of them.
NO_MEMBER, VIEWER, OPERATOR, ADMINISTRATOR, SUPERUSER, NOBODY = range(6)


@dataclass(frozen=True)
class Rights:
    """The least role for each of a model's standard pages."""

    read: int = VIEWER
    add: int = NOBODY
    change: int = NOBODY
    delete: int = NOBODY


READ_ONLY = Rights()
BY_OPERATORS = Rights(add=OPERATOR, change=OPERATOR, delete=OPERATOR)
BY_ADMINISTRATORS = Rights(add=ADMINISTRATOR, change=ADMINISTRATOR, delete=ADMINISTRATOR)
RIGHTS: dict[Model, Rights] = {
    User: Rights(SUPERUSER, SUPERUSER, SUPERUSER, SUPERUSER),
    Organization: Rights(add=SUPERUSER, change=ADMINISTRATOR, delete=SUPERUSER),
    Membership: BY_ADMINISTRATORS,
    Environment: BY_ADMINISTRATORS,
    TemporalConnection: BY_ADMINISTRATORS,
    LiteLLMConnection: BY_ADMINISTRATORS,
    TelemetrySettings: BY_ADMINISTRATORS,
    WorkerQueue: BY_OPERATORS,
    Worker: BY_OPERATORS,
    ApiKey: Rights(add=OPERATOR),
    WorkerStart: READ_ONLY,
    WorkerInstance: READ_ONLY,
    AuditEvent: READ_ONLY,
    DataKey: Rights(ADMINISTRATOR),
}


@dataclass(frozen=True)
class Page:
    """A page beside the standard ones: who may look, who may send its form, and what it is sent to do something."""

    get: int
    post: int = NOBODY
    data: Callable[["Tenant"], dict[str, Any]] = lambda _tenant: {}
    #: What its address is made of; by default the row of the page's own model.
    arguments: Callable[["Tenant"], list[Any]] | None = None
    query: str = ""
    #: Whether it is about a row, so that the role in the row's organization counts and not the best one.
    is_of_row: bool = True
    #: What a look is answered with.
    status: int = 200
    #: Whether its form changes something.
    is_change: bool = True
    #: Whether it passes over what is foreign like over what does not exist, instead of refusing it.
    is_silent: bool = False

    def address(self, name: str, tenant: "Tenant", model: Model, pk: Any = None) -> str:
        """Where it is, for a row of the organization."""
        count = routes_of(model)[name]
        arguments = self.arguments(tenant) if self.arguments else [pk or tenant.of(model).pk] * count
        return reverse(f"admin:{name}", args=arguments) + self.query


PASSWORD = "correct horse battery staple"
NEW_PASSWORD = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
PAGES: dict[str, Page] = {
    "auth_user_password_change": Page(SUPERUSER, SUPERUSER, lambda _: NEW_PASSWORD),
    "workers_apikey_rotate": Page(OPERATOR, OPERATOR, lambda _: {"grace_hours": "1"}),
    "workers_apikey_revoke": Page(OPERATOR, OPERATOR, lambda _: {"reason": "leaked", "is_confirmed": "on"}),
    "workers_apikey_calendar": Page(VIEWER, VIEWER, is_of_row=False, is_change=False, is_silent=True),
    "workers_apikey_whose": Page(
        VIEWER, VIEWER, lambda tenant: {"text": tenant.token}, is_of_row=False, is_change=False, is_silent=True
    ),
    "workers_worker_boot": Page(VIEWER),
    "workers_worker_boot_steps": Page(VIEWER),
    "workers_worker_bulk": Page(
        NO_MEMBER,
        OPERATOR,
        lambda tenant: {"workers": tenant.of(Worker).pk.hex},
        arguments=lambda _: ["disable"],
        status=302,
        is_silent=True,
    ),
    "workers_worker_bulk_queues": Page(
        VIEWER,
        arguments=lambda tenant: [tenant.name],
        query="?app_label=workers&model_name=worker&field_name=queue",
        is_of_row=False,
    ),
}
for _kind in ("temporalconnection", "litellmconnection", "telemetrysettings"):
    # They connect, so here it is only tried to use them where that is refused.
    PAGES |= {
        f"environments_{_kind}_verify": Page(ADMINISTRATOR, ADMINISTRATOR, status=405, is_change=False),
        f"environments_{_kind}_verify_typed": Page(ADMINISTRATOR, ADMINISTRATOR, status=405, is_change=False),
        f"environments_{_kind}_verify_new": Page(
            ADMINISTRATOR,
            ADMINISTRATOR,
            lambda tenant: {"organization": tenant.name},
            is_of_row=False,
            status=405,
            is_change=False,
            is_silent=True,
        ),
    }
#: The least role for each action of a list beside `delete_selected`.
ACTIONS: dict[tuple[Model, str], int] = {
    **{(Worker, name): OPERATOR for name in ("disable", "enable", "drain", "move", "issue_keys")},
    (Worker, "export"): VIEWER,
}

#: Routes of the whole site, for everybody who may enter; each shows only what the person may see.
SITE = {"index", "password_change_done", "autocomplete", "jsi18n", "console_search", "view_on_site", "app_list"}
#: The login's routes, which strangers may use.
LOGIN = {"account_login", "account_logout", "mfa_authenticate", "mfa_login_webauthn"}
#: A person's own login and second factors: theirs alone, whatever the role.
ACCOUNT = {
    "mfa_index",
    "account_reauthenticate",
    "mfa_reauthenticate",
    "mfa_reauthenticate_webauthn",
    "mfa_activate_totp",
    "mfa_deactivate_totp",
    "mfa_add_webauthn",
    "mfa_remove_webauthn",
    "mfa_generate_recovery_codes",
}
#: Routes without a name: Django's old address of a row, its catch-all, and our page in the place of its own.
NAMELESS = {"admin/<path:object_id>/", "admin/(?P<url>.*)$", "admin/password_change/"}
STANDARD = ("changelist", "add", "history", "delete", "change")


# --- The organizations -----------------------------------------------------------------------------------------------------

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
MEMBERS = [name for name in CALLERS if name != "superuser"]
each_caller = pytest.mark.parametrize("caller", CALLERS)


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
        stored = [key.wrapped_key, key.known_answer, key.fingerprint_key, self.of(ApiKey).token_hash]
        stored += [connection.sealed_api_key for connection in connections] + passwords
        rings = (settings.ENCRYPTION_KEYS, settings.API_KEY_SIGNING_KEYS)
        keys = [settings.SECRET_KEY, *(one.material for ring in rings for one in ring.values())]
        return [code for secret in [*plain, *stored, *keys] for code in codes_of(secret)]

    def of(self, model: Model, *, is_spare: bool = False) -> Any:
        return self.spare.get(model, self.rows[model]) if is_spare else self.rows[model]


@pytest.fixture(scope="module")
def built(django_db_setup: None, django_db_blocker: Any) -> Iterator[dict[str, Tenant]]:
    """Both organizations, built once; each test's own transaction lies within this one."""
    whole = transaction.atomic()
    whole._from_testcase = True  # or else nothing could be durable within
    with django_db_blocker.unblock(), whole:
        people = {name: person(name, is_staff=True, is_superuser=name == "superuser") for name in CALLERS}
        for name, fields in OUTSIDERS.items():
            person(name, **fields)
        tenants = {name: build(name) for name in (MAUVE, OCHRE)}
        role_names = {rank: name for name, rank in ROLES.items()}
        for name, ranks in CALLERS.items():
            for organization_id, rank in ranks.items():
                if rank in role_names:
                    Membership.objects.create(organization_id=organization_id, user=people[name], role=role_names[rank])
        visitor = signed_in(people["superuser"])
        for tenant in tenants.values():
            tenant.forms = {model: form_of(visitor, url(model, "change", tenant.of(model).pk)) for model in CHANGES}
        yield tenants
        transaction.set_rollback(True)


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


@pytest.fixture
def tenants(built: dict[str, Tenant], db: None) -> dict[str, Tenant]:
    cache.clear()
    return built


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
    add(factories.create_organization(f"{name}-spare"))
    person(f"{name}-stranger", is_staff=True)


# --- Calls -----------------------------------------------------------------------------------------------------------------

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
        self.secrets = [secret for tenant in tenants.values() for secret in tenant.secrets]
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
        request.user = self.user
        return request

    def expect(self, address: str, *, is_open: bool, about: Any = None, page: Page = Page(0)) -> Any:
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
            found = re.search(rf".{{0,60}}{name}.{{0,60}}", told)
            self.note(bool(found), f"{call} shows {found and found[0]!r}")
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


def table(model: Model) -> list[Any]:
    return list(model._base_manager.order_by("pk").values_list())


def unknown_id(model: Model) -> Any:
    return {User: 999_999, Organization: "nosuch"}.get(model, UNKNOWN)


def own_pages(model: Model) -> list[str]:
    """The routes beside the standard ones."""
    standard = {f"{model._meta.app_label}_{model._meta.model_name}_{page}" for page in STANDARD}
    return [name for name in routes_of(model) if name not in standard]


def superuser_request() -> Any:
    return signed_in(person("superuser")).get("/admin/login/").wsgi_request


# --- Nothing is forgotten --------------------------------------------------------------------------------------------------


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


# --- Looking ---------------------------------------------------------------------------------------------------------------


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


def seen(response: Any, pk: Any) -> tuple[int, str, str]:
    text, location = response.content.decode(), response.headers.get("Location", "")
    return response.status_code, location.replace(str(pk), ""), text.replace(str(pk), "")[:2_000]


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


def account_page(name: str, pk: int) -> str:
    return reverse(name, args=[pk] if name == "mfa_remove_webauthn" else [])


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


# --- Choosing --------------------------------------------------------------------------------------------------------------


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


# --- Changing --------------------------------------------------------------------------------------------------------------


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
}


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


# --- Climbing --------------------------------------------------------------------------------------------------------------


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


# --- Losing and lacking a role ---------------------------------------------------------------------------------------------


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
    whole_site += ["/admin/search/?s=mauve", "/admin/workers/", *(account_page(name, 1) for name in ACCOUNT)]
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
