"""No address decides what a statement costs: whatever is asked of any list, choice or search, it is bounded.

What is counted are the statements, never the time: patterns, parameters, joins, columns of the order.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.http import QueryDict
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from environments.admin import console
from environments.admin.console import RecordsAdmin
from environments.admin.searches import LONGEST_SEARCH, MOST_VALUES, MOST_WORDS, SEARCH_IS_CUT, cut_search
from environments.models import Role
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import REGISTERED, Model, member, person, signed_in, url
from tests.support.factories import Fleet
from workers.models import Worker, WorkerQueue, WorkerStart

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

#: As many as Django takes of one address.
MANY = 990
WORDS = {
    "words": "w " * 3_000,
    "words parted by slashes": "w/" * 3_000,
    "words parted by dots": "w." * 3_000,
    "words parted by all that parts": "w/ .\t\n" * 1_000,
    "phrases": '"a b" ' * 1_000,
    "quotes that never end": "'\" " * 1_000,
    "a word without end": "w" * 6_000,
    "patterns": "%_ " * 1_000,
}


def outside_parentheses(text: str) -> str:
    """Without what functions are given."""
    while (shorter := re.sub(r"\([^()]*\)", "", text)) != text:
        text = shorter
    return text


@dataclass
class Statements:
    """What was asked of the database, and the most that a statement had of what makes it cost more."""

    most: dict[str, int] = field(default_factory=dict)
    orders: list[str] = field(default_factory=list)

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.orders.append(order := sql.rpartition("ORDER BY")[2].partition("LIMIT")[0] if "ORDER BY" in sql else "")
        found = {
            "patterns": sql.count("LIKE"),
            "parameters": len(params or ()),
            "joins": sql.count("JOIN"),
            "columns of the order": outside_parentheses(order).count(",") + 1,
            "characters": len(sql) + sum(len(str(each)) for each in params or ()),
        }
        for name, number in found.items():
            self.most[name] = max(number, self.most.get(name, 0))
        return execute(sql, params, many, context)


def asked(client: Client, address: str, query: str = "") -> tuple[Any, dict[str, int]]:
    response, statements = statements_for(client, address, query)
    return response, statements.most


def statements_for(client: Client, address: str, query: str) -> tuple[Any, Statements]:
    statements = Statements()
    with connection.execute_wrapper(statements):
        response = client.get(f"{address}?{query}")
    return response, statements


@pytest.fixture
def fleet(db: None) -> Fleet:
    person(is_staff=True, is_superuser=True)
    return fresh_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()


def query(*pairs: tuple[str, str]) -> str:
    found = QueryDict(mutable=True)
    for name, value in pairs:
        found.appendlist(name, value)
    return found.urlencode()


def addresses(model: Model) -> Iterator[tuple[str, str]]:
    """What may be asked of a model's list, each far beyond what anybody needs."""
    for name, words in WORDS.items():
        yield name, query(("q", words))
    own = [each.name for each in model._meta.concrete_fields]
    relations = [each.name for each in model._meta.get_fields() if each.is_relation]
    for name in own:
        yield f"many values of {name}", query((f"{name}__in", ",".join(map(str, range(5_000)))))
        yield f"{name} many times", query(*((f"{name}", str(number)) for number in range(MANY)))
        yield f"a long {name}", query((name, "x" * 6_000))
        for lookup in ("icontains", "iregex", "contains", "search", "year__gte", "a__b__c__d"):
            yield f"{name} with {lookup}", query((f"{name}__{lookup}", "1"))
    yield "all columns", query(*((f"{name}__{how}", "1") for name in own for how in ("gt", "gte", "lt", "lte", "in")))
    for name in relations:
        for path in ("isnull", "pk__gt", "id__in", "organization", "organization__name__contains"):
            yield f"beyond {name} with {path}", query((f"{name}__{path}", "0"))
    yield "all relations", query(*((f"{name}__isnull", "0") for name in relations))
    yield "an order without end", query(("o", ".".join(str(number % 9) for number in range(3_000))))
    yield "many orders", query(*(("o", "1.2") for _ in range(MANY)))
    yield "facets", query(("_facets", "True"))
    yield "a page far away", query(("p", "9" * 5_000))
    yield "all on one page", query(("all", ""))


@pytest.mark.parametrize("model", REGISTERED, ids=[model.__name__ for model in REGISTERED])
def test_no_address_of_a_list_decides_what_its_statements_cost(
    model: Model, client: Client, seeded_random: Random
) -> None:
    """A third of them in each run."""
    address, page = url(model, "changelist"), admin.site._registry[model]
    _, usual = asked(client, address)
    allowed = {
        "patterns": usual["patterns"] + MOST_WORDS * len(page.search_fields),
        "parameters": usual["parameters"] + 4 * MOST_WORDS * len(page.search_fields) + MOST_VALUES,
        "joins": usual["joins"] + 2 * len(page.search_fields),
        "columns of the order": usual["columns of the order"] + MOST_WORDS,
        "characters": 3 * usual["characters"] + 20_000 + len(page.search_fields) * LONGEST_SEARCH,
    }
    beyond = {}
    asking = list(addresses(model))
    for name, text in seeded_random.sample(asking, len(asking) // 3):
        response, found = asked(client, address, text)
        assert response.status_code in {200, 302, 400}, (name, response.status_code)
        if more := {what: number for what, number in found.items() if number > allowed[what]}:
            beyond[name] = more
    assert beyond == {}


def autocompletions() -> Iterator[tuple[str, str, str]]:
    for model in REGISTERED:
        for name in admin.site._registry[model].autocomplete_fields:
            yield model._meta.app_label, str(model._meta.model_name), name


@pytest.mark.parametrize(("app", "model", "name"), list(autocompletions()))
def test_no_typed_text_decides_what_a_choice_costs(app: str, model: str, name: str, client: Client) -> None:
    """And whoever types it is told that words were left out."""
    source: Any = admin.site._registry[next(each for each in REGISTERED if each._meta.model_name == model)]
    fields = len(admin.site._registry[source.model._meta.get_field(name).related_model].search_fields)
    fixed = (("app_label", app), ("model_name", model), ("field_name", name))
    for words in WORDS.values():
        response, found = asked(client, "/admin/autocomplete/", query(*fixed, ("term", words)))
        assert found["patterns"] <= MOST_WORDS * fields
        assert found["characters"] < 20_000
        told = response.json()["results"][0]
        assert (told["text"], told["disabled"]) == (SEARCH_IS_CUT, True)
    response, _ = asked(client, "/admin/autocomplete/", query(*fixed, ("term", "two words")))
    assert SEARCH_IS_CUT not in response.content.decode()


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS.keys())
def test_neither_the_palette_nor_the_search_of_a_bulk_page_takes_words_without_end(
    words: str, client: Client, fleet: Fleet
) -> None:
    most = max(len(page.search_fields) for page in admin.site._registry.values())
    response, found = asked(client, "/admin/search/", query(("s", words)))
    assert found["patterns"] <= MOST_WORDS * most
    assert SEARCH_IS_CUT in response.content.decode()
    queues = f"/admin/workers/worker/bulk/queues/{fleet.organization.pk}/"
    fixed = (("app_label", "workers"), ("model_name", "worker"), ("field_name", "queue"))
    response, found = asked(client, queues, query(*fixed, ("term", words)))
    assert found["patterns"] <= MOST_WORDS * most
    assert SEARCH_IS_CUT in response.content.decode()


def test_a_search_that_is_cut_says_so_and_finds_by_the_words_that_are_left(client: Client, fleet: Fleet) -> None:
    words = " ".join(["worker"] * MOST_WORDS)
    whole = client.get(url(Worker, "changelist"), {"q": words})
    cut = client.get(url(Worker, "changelist"), {"q": f"{words} nothing-is-called-so"})
    for response in (whole, cut):
        assert list(response.context["cl"].result_list) == [fleet.worker]
        assert response.context["cl"].query == words
    assert SEARCH_IS_CUT not in whole.content.decode()
    assert SEARCH_IS_CUT in cut.content.decode()


def test_a_filter_that_asks_for_too_much_is_refused_rather_than_cut(fleet: Fleet) -> None:
    viewer = signed_in(member(fleet.organization, Role.VIEWER))
    ids = [str(fleet.worker.pk)] * MOST_VALUES
    assert viewer.get(url(Worker, "changelist"), {"id__in": ",".join(ids)}).status_code == 200
    for asked_for in ({"id__in": ",".join([*ids, ids[0]])}, {"id": [*ids, ids[0]]}, {"name": "x" * 201}):
        response = viewer.get(url(Worker, "changelist"), asked_for)
        assert response.status_code == 400
        assert "choose fewer" in response.content.decode()


def test_the_filters_and_links_of_the_console_still_lead_where_they_did(client: Client, fleet: Fleet) -> None:
    for model, text in (
        (Worker, "state=Enabled&liveness=Online&attention=duplicate"),
        (Worker, f"queue={fleet.queue.pk}&organization__id__exact={fleet.organization.pk}"),
        (WorkerQueue, f"environment__id__exact={fleet.environment.pk}&max_workers__isnull=True"),
        (WorkerQueue, "created_at__gte=2026-01-01T00:00Z&created_at__lt=2027-01-01T00:00Z&heartbeat_interval__gt=5"),
    ):
        assert client.get(f"{url(model, 'changelist')}?{text}").status_code == 200, text


@given(st.text(max_size=600), st.sampled_from(["", "/", "."]))
def test_what_is_left_of_a_search_is_its_beginning(text: str, separators: str) -> None:
    left, is_cut = cut_search(text, separators)
    assert text.startswith(left)
    assert len(left) <= LONGEST_SEARCH
    assert cut_search(left, separators) == (left, False)
    if not is_cut:
        assert left.split() == text.split() or text[len(left) :].strip(f" {separators}").strip() == ""


# --- What piles up -----------------------------------------------------------------------------------------------------------

RECORDS = [model for model in REGISTERED if isinstance(admin.site._registry[model], RecordsAdmin)]


def test_the_lists_of_records_are_known() -> None:
    assert {model.__name__ for model in RECORDS} == {"AuditEvent", "WorkerInstance", "WorkerStart"}


@pytest.mark.parametrize("model", RECORDS, ids=[model.__name__ for model in RECORDS])
def test_records_are_read_in_the_order_of_time_alone(model: Model, client: Client) -> None:
    """No other column has an index: all records there are would be read and sorted for one page."""
    page: Any = admin.site._registry[model]
    for number in range(len(page.list_display) + 1):
        response, statements = statements_for(client, url(model, "changelist"), f"o=-{number}")
        assert response.status_code == 200
        ours = [order for order in statements.orders if f'"{model._meta.db_table}"' in order]
        columns = {part.split()[0].rpartition(".")[2] for order in ours for part in order.split(", ")}
        assert columns <= {f'"{page.recorded_at}"', '"id"'}


@pytest.mark.parametrize("age", [0, 1, 2])
def test_a_search_looks_through_the_latest_records_within_the_filter_and_by_id_through_all(
    age: int, client: Client, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "MOST_SEARCHED", 2)
    other = factories.create_worker(fleet.queue, "another")
    token = factories.issue_token(fleet.queue)
    for worker in (fleet.worker, fleet.worker, fleet.worker, other):
        assert start(fleet, token=token, worker_id=worker.pk).status_code == 200
    starts = list(WorkerStart.objects.filter(worker=fleet.worker.pk).order_by("-started_at"))
    address = url(WorkerStart, "changelist")
    by_name = client.get(address, {"q": fleet.worker.name}).context["cl"].result_list
    assert (starts[age] in by_name) == (age == 0)
    within = client.get(address, {"q": fleet.worker.name, "worker": str(fleet.worker.pk)}).context["cl"].result_list
    assert (starts[age] in within) == (age < 2)
    assert list(client.get(address, {"q": str(starts[age].pk)}).context["cl"].result_list) == [starts[age]]
