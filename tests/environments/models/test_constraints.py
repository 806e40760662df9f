from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, models, transaction

from environments.models import Organization, TelemetrySettings
from environments.models.fields import SlugField
from tests.support import factories
from tests.support.contract import CONTRACT
from tests.support.factories import Fleet
from tests.support.notifications import create_target
from tests.support.shared_fleet import *  # noqa: F403  # the fixtures
from workers.models import NotificationTarget

pytestmark = pytest.mark.sqlite


#: (table, column) of every name that is written in lower case, so that no two differ in case only.
SLUGS = {
    f"{model._meta.label_lower}.{field.name}": (model, field)
    for app in ("environments", "workers")
    for model in apps.get_app_config(app).get_models()
    for field in model._meta.concrete_fields
    if isinstance(field, SlugField)
}
BAD_SLUGS = {
    "empty": "",
    "trailing newline": "abc\n",
    "leading newline": "\nabc",
    "only a newline": "\n",
    "a second line": "abc\nABC",
    "upper case": "Abc",
    "a dot": "a.b",
    "only a dot": ".",
    "a space": "a b",
    "underscore": "a_b",
    "slash": "a/b",
    "dash first": "-abc",
    "dash last": "abc-",
    "umlaut": "bär",
    "full-width digit": "a１",
    "dotless i": "ı",
    "percent": "a%",
    "64 characters": "a" * 64,
    "10,000 characters": "a" * 10_000,
}


@pytest.mark.parametrize("slug", BAD_SLUGS.values(), ids=BAD_SLUGS)
@pytest.mark.parametrize("name", SLUGS)
def test_the_database_refuses_a_name_that_is_no_slug(fleet: Fleet, name: str, slug: str) -> None:
    model, field = SLUGS[name]
    with pytest.raises((IntegrityError, DataError)), transaction.atomic():
        _store(fleet, model, field, slug)


@pytest.mark.parametrize("slug", ["a", "0", "a-b", "a--b", "9-to-5", "a" * 63])
@pytest.mark.parametrize("name", SLUGS)
def test_the_database_takes_a_slug(fleet: Fleet, name: str, slug: str) -> None:
    model, field = SLUGS[name]
    _store(fleet, model, field, slug)
    assert model._default_manager.filter(**{field.name: slug}).exists()


def _store(fleet: Fleet, model: Any, field: Any, slug: str) -> None:
    if model is Organization:
        Organization.objects.create(id=slug, name="x")
    else:
        if model is TelemetrySettings:
            factories.create_telemetry(fleet.organization)
        if model is NotificationTarget:
            create_target(fleet.organization)
        model._default_manager.filter(organization=fleet.organization).update(**{field.name: slug})


def test_the_slugs_are_found() -> None:
    assert {"environments.organization.id", "environments.environment.name", "workers.workerqueue.name"} <= set(SLUGS)
    assert {
        f"environments.{kind}.name" for kind in ("temporalconnection", "litellmconnection", "telemetrysettings")
    } <= set(SLUGS)


@pytest.mark.parametrize("slug", BAD_SLUGS.values(), ids=BAD_SLUGS)
def test_a_form_refuses_a_name_that_is_no_slug(slug: str) -> None:
    with pytest.raises(ValidationError):
        Organization(id=slug, name="x").full_clean(validate_constraints=False)


def test_names_are_unique_within_their_parent_only(fleet: Fleet) -> None:
    other = factories.create_fleet()
    assert (other.environment.name, other.queue.name) == (fleet.environment.name, fleet.queue.name)
    staging = factories.create_environment(fleet.organization, "staging")
    factories.create_queue(staging, fleet.queue.name)
    with pytest.raises(IntegrityError), transaction.atomic():
        factories.create_queue(fleet.environment, fleet.queue.name)
    with pytest.raises(IntegrityError), transaction.atomic():
        factories.create_environment(fleet.organization, "staging")
    with pytest.raises(IntegrityError), transaction.atomic():
        factories.create_worker(fleet.queue, fleet.worker.name)
    with pytest.raises(IntegrityError), transaction.atomic():
        factories.create_temporal(fleet.organization, fleet.temporal.name)


def test_the_telemetry_defaults_are_the_contracts() -> None:
    fields = CONTRACT["components"]["schemas"]["WorkerConfigResponse"]["properties"]
    defaults = TelemetrySettings()
    for name in ("otel_enabled", "otel_service_name", "otel_traces_sampler"):
        assert getattr(defaults, name) == fields[name]["default"]
    assert defaults.otel_exporter_otlp_endpoint == ""
    assert defaults.otel_traces_sampler_arg is None


def test_rows_that_others_point_to_cannot_be_deleted(fleet: Fleet) -> None:
    for row in (fleet.temporal, fleet.environment, fleet.queue, fleet.organization, fleet.worker):
        with pytest.raises(models.ProtectedError):
            row.delete()
