"""A rule stands in any query as what it is made of would, and is compiled once; a list is one parameter."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import models
from django.db.models import Case, F, OuterRef, Q, Subquery, Value, When
from django.db.models.lookups import Exact, GreaterThan

from environments.database.expressions import Among, ListOf, Rule
from environments.database.statements import Parameter, Rows, fetched
from environments.models import Environment, Organization

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _age(*, made_at: Any, organization: Any, now: Any) -> Case:
    """Reads a table of its own, with an operand within that."""
    first = Environment.objects.order_by("name").filter(Exact(F("organization_id"), organization)).values("name")[:1]
    return Case(
        When(GreaterThan(made_at, now), then=Value("to come")),
        default=models.functions.Coalesce(Subquery(first), Value("100 %s")),
        output_field=models.CharField(),
    )


def _rule(built: list[int]) -> Rule:
    def build(**operands: Any) -> Case:
        built.append(1)
        return _age(**operands)

    moment = models.DateTimeField()
    return Rule(build, models.CharField(), made_at=moment, organization=models.CharField(), now=moment)


@pytest.fixture
def organizations() -> None:
    for name, days in (("a", -1), ("b", -1), ("c", 1)):
        organization = Organization.objects.create(id=name, name=name, created_at=NOW + timedelta(days=days))
        if name != "b":
            Environment.objects.create(organization=organization, name=f"of-{name}")


def _of(rule: Rule, prefix: str = "") -> Any:
    now = Value(NOW, output_field=models.DateTimeField())
    return rule({"made_at": f"{prefix}created_at", "organization": f"{prefix}id", "now": now})


@pytest.mark.usefixtures("organizations")
def test_it_answers_for_each_row() -> None:
    found = Organization.objects.annotate(age=_of(_rule([]))).order_by("id").values_list("id", "age")
    assert list(found) == [("a", "of-a"), ("b", "100 %s"), ("c", "to come")]


@pytest.mark.usefixtures("organizations")
def test_it_filters_groups_and_orders() -> None:
    rows = Organization.objects.annotate(age=_of(_rule([])))
    assert [row.pk for row in rows.filter(age="of-a")] == ["a"]
    assert [row.pk for row in rows.exclude(Q(age="of-a") | Q(age="to come"))] == ["b"]
    assert [row.pk for row in rows.order_by("-age")] == ["c", "a", "b"]
    counts = rows.order_by().values_list("age").annotate(count=models.Count("pk"))
    assert dict(counts) == {"of-a": 1, "100 %s": 1, "to come": 1}


@pytest.mark.usefixtures("organizations")
def test_its_own_tables_are_not_taken_for_those_of_a_subquery_that_it_stands_in() -> None:
    rule = _rule([])
    inner = Environment.objects.annotate(age=_of(rule, "organization__")).filter(organization=OuterRef("pk"))
    outer = Organization.objects.annotate(own=_of(rule), theirs=Subquery(inner.values("age")[:1])).order_by("pk")
    assert list(outer.values_list("own", "theirs")) == [("of-a", "of-a"), ("100 %s", None), ("to come", "to come")]
    assert [row.pk for row in Organization.objects.filter(pk__in=outer.filter(own="of-a").values("pk"))] == ["a"]


@pytest.mark.usefixtures("organizations")
def test_it_leads_over_a_relation_without_leaving_rows_out() -> None:
    rows = Organization.objects.annotate(age=_of(_rule([]), "temporal_connection__organization__")).order_by("pk")
    assert [row.pk for row in rows] == ["a", "b", "c"]


def test_it_is_made_once() -> None:
    built: list[int] = []
    rule = _rule(built)
    for _ in range(3):
        list(Organization.objects.annotate(age=_of(rule)))
    assert len(built) == 1


@pytest.mark.usefixtures("organizations")
def test_a_list_of_any_length_is_one_parameter_of_a_statement() -> None:
    among = Among(F("pk"), Parameter("ids", ListOf(models.CharField())))
    statement = Rows(lambda: Organization.objects.filter(among).order_by("pk").values_list("pk"))
    assert statement(ids=["c", "a", "nobody"]) == [("a",), ("c",)]
    assert statement(ids=[]) == []
    assert len(statement(ids=[f"no-{number}" for number in range(3_000)] + ["b"])) == 1


@pytest.mark.usefixtures("organizations")
def test_a_list_of_ids_is_found_in_a_query() -> None:
    chosen = Environment.objects.filter(name="of-a")
    ids = Value([row.pk for row in chosen], output_field=ListOf(models.UUIDField()))
    among = Environment.objects.filter(Among(F("pk"), ids))
    assert [row.name for row in among] == [row.name for row in fetched(among)] == ["of-a"]
    assert among.update(name="other") == 1


@pytest.mark.usefixtures("organizations")
def test_what_is_fetched_is_as_django_has_it() -> None:
    rows = Environment.objects.select_related("organization__temporal_connection").annotate(
        one=Value({"a": [1]}, models.JSONField())
    )
    rows.update(tags=["x"], settings={"y": 1})
    plain, made = list(rows.order_by("name")), fetched(rows.order_by("name"))
    assert [vars(row) | {"_state": None} for row in made] == [vars(row) | {"_state": None} for row in plain]
    assert [row.organization.temporal_connection for row in made] == [None, None]
    assert made[0].settings is not made[1].settings


def test_of_nothing_nothing_is_fetched() -> None:
    assert fetched(Organization.objects.none()) == []
