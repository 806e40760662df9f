from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from environments.encryption import Secret
from environments.limits import counts
from environments.models import TelemetrySettings, TemporalConnection
from environments.sealing.data_keys import seal_api_key
from tests.support import factories
from tests.support.calls import assert_refused, start
from tests.support.factories import Fleet
from tests.support.quick import examples
from workers.configuration.effective import open_configuration, revision_of, sections_of, show_configuration
from workers.models import Worker, WorkerQueue

pytestmark = pytest.mark.sqlite

LEVELS = ("organization", "environment", "queue", "worker")


def load(fleet: Fleet) -> Worker:
    return Worker.objects.with_chain().get(pk=fleet.worker.pk)


def revision(fleet: Fleet) -> str:
    worker = load(fleet)
    return revision_of(show_configuration(worker, sections_of(worker)), worker.queue)


@pytest.mark.parametrize("width", range(1, 5))
def test_the_narrowest_of_the_levels_wins_the_whole_section(fleet: Fleet, width: int) -> None:
    for level in LEVELS[:width]:
        factories.point(
            getattr(fleet, level),
            temporal_connection=factories.create_temporal(fleet.organization, f"t-{level}", secret=f"ts-{level}"),
            litellm_connection=factories.create_litellm(fleet.organization, f"l-{level}", secret=f"ls-{level}"),
            telemetry_settings=factories.create_telemetry(
                fleet.organization, f"o-{level}", otel_service_name=f"o-{level}"
            ),
        )
    narrowest = LEVELS[width - 1]
    answer = start(fleet).json()
    assert answer["temporal_host"] == f"t-{narrowest}.example.com:7233"
    assert answer["temporal_namespace"] == f"{fleet.organization.id}-t-{narrowest}"
    assert answer["temporal_api_key"] == f"ts-{narrowest}"
    assert answer["litellm_api_url"] == f"https://l-{narrowest}.example.com"
    assert answer["litellm_api_key"] == f"ls-{narrowest}"
    assert answer["otel_service_name"] == f"o-{narrowest}"


#: For each level, the widest first, which of three connections of a kind it points to, if any.
CHAINS = st.tuples(*[st.none() | st.integers(0, 2) for _ in LEVELS])


def row_of(chain: tuple[int | None, ...]) -> int | None:
    """The rule once more, as simply as it can be said: the last level that points to something."""
    return next((number for number in reversed(chain) if number is not None), None)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(temporal=CHAINS, litellm=CHAINS, telemetry=CHAINS)
def test_whatever_the_levels_point_to_a_worker_gets_whole_sections_of_the_narrowest(
    fleet: Fleet,
    pool: dict[str, list[Any]],
    temporal: tuple[int | None, ...],
    litellm: tuple[int | None, ...],
    telemetry: tuple[int | None, ...],
) -> None:
    chains = {"temporal_connection": temporal, "litellm_connection": litellm, "telemetry_settings": telemetry}
    for index, level in enumerate(LEVELS):
        numbers = {pointer: chain[index] for pointer, chain in chains.items()}
        pointers = {pointer: None if n is None else pool[pointer][n] for pointer, n in numbers.items()}
        factories.point(getattr(fleet, level), **pointers)
    counts.forget()  # one worker may not start as often within a minute
    response = start(fleet)
    won = {pointer: row_of(chain) for pointer, chain in chains.items()}
    if won["temporal_connection"] is None or won["litellm_connection"] is None:
        assert response.status_code == 409
        return
    answer = response.json()
    for pointer, number in won.items():
        expected = GIVEN[pointer](number)
        assert {name: answer[name] for name in expected} == expected


#: What a worker is given of each connection in the pool. The last server of each kind takes no key.
GIVEN: dict[str, Any] = {
    "temporal_connection": lambda number: {
        "temporal_host": f"t-{number}.example.com:7233",
        "temporal_namespace": f"namespace-{number}",
        "temporal_api_key": "" if number == 2 else f"ts-{number}",
    },
    "litellm_connection": lambda number: {
        "litellm_api_url": f"https://l-{number}.example.com",
        "litellm_api_key": "" if number == 2 else f"ls-{number}",
    },
    "telemetry_settings": lambda number: {
        "otel_enabled": number != 1,
        "otel_exporter_otlp_endpoint": None if number in {None, 2} else f"https://o-{number}.example.com",
        "otel_service_name": "agent-control-plane-worker" if number is None else f"o-{number}",
        "otel_traces_sampler_arg": None if number is None else number / 4,
    },
}


@pytest.fixture
def pool(fleet: Fleet) -> dict[str, list[Any]]:
    """Three connections of each kind, every one of whose fields tells which it is."""
    organization = fleet.organization
    return {
        "temporal_connection": [
            factories.create_temporal(
                organization, f"t-{n}", secret=f"ts-{n}", namespace=f"namespace-{n}", requires_api_key=n != 2
            )
            for n in range(3)
        ],
        "litellm_connection": [
            factories.create_litellm(organization, f"l-{n}", secret=f"ls-{n}", requires_api_key=n != 2)
            for n in range(3)
        ],
        "telemetry_settings": [
            factories.create_telemetry(
                organization,
                f"o-{n}",
                otel_enabled=n != 1,
                otel_exporter_otlp_endpoint="" if n == 2 else f"https://o-{n}.example.com",
                otel_service_name=f"o-{n}",
                otel_traces_sampler_arg=n / 4,
            )
            for n in range(3)
        ],
    }


def test_sections_are_never_merged_field_by_field(fleet: Fleet) -> None:
    wide = factories.create_telemetry(
        fleet.organization, "wide", otel_exporter_otlp_endpoint="https://otel.example.com"
    )
    narrow = factories.create_telemetry(fleet.organization, "narrow", otel_enabled=False)
    factories.point(fleet.organization, telemetry_settings=wide)
    factories.point(fleet.queue, telemetry_settings=narrow)
    answer = start(fleet).json()
    assert answer["otel_enabled"] is False
    assert answer["otel_exporter_otlp_endpoint"] is None


def test_a_narrow_server_without_key_never_meets_a_wider_levels_key(fleet: Fleet) -> None:
    local = factories.create_temporal(fleet.organization, "local", requires_api_key=False)
    factories.point(fleet.worker, temporal_connection=local)
    answer = start(fleet).json()
    assert (answer["temporal_host"], answer["temporal_api_key"]) == ("local.example.com:7233", "")


def test_without_telemetry_the_contracts_defaults_apply(fleet: Fleet) -> None:
    answer = start(fleet).json()
    assert {name: value for name, value in answer.items() if name.startswith("otel")} == {
        "otel_enabled": True,
        "otel_exporter_otlp_endpoint": None,
        "otel_service_name": "agent-control-plane-worker",
        "otel_traces_sampler": "parentbased_always_on",
        "otel_traces_sampler_arg": None,
    }


@pytest.mark.parametrize(
    ("pointer", "section"), [("temporal_connection", "Temporal"), ("litellm_connection", "LiteLLM")]
)
def test_a_missing_section_is_409_naming_it_and_the_levels(fleet: Fleet, pointer: str, section: str) -> None:
    factories.point(fleet.organization, **{pointer: None})
    response = start(fleet)
    assert_refused(response, 409)
    assert section in response.json()["detail"]
    for level in ("worker", "worker queue", "environment", "organization"):
        assert level in response.json()["detail"]
    factories.point(fleet.environment, **{pointer: getattr(fleet, section.lower())})
    assert start(fleet).status_code == 200


def test_opens_secrets_that_stay_secret_until_the_response(fleet: Fleet) -> None:
    worker = load(fleet)
    sections = sections_of(worker)
    configuration = open_configuration(
        show_configuration(worker, sections), sections, worker.organization.active_data_key
    )
    assert configuration.temporal_api_key == Secret(fleet.temporal_secret)
    assert fleet.temporal_secret not in repr(configuration)
    assert fleet.litellm_secret not in repr(configuration)


def test_shows_fingerprints_instead_of_secrets(fleet: Fleet, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    worker = load(fleet)
    with django_assert_num_queries(0):
        shown = show_configuration(worker, sections_of(worker))
    assert shown.temporal_api_key == fleet.temporal.api_key_fingerprint
    assert fleet.temporal_secret not in repr(shown)


# --- Revision ----------------------------------------------------------------------------------------------------------


def test_the_revision_is_short_and_stays_while_nothing_changes(fleet: Fleet) -> None:
    first = revision(fleet)
    assert len(first) == 12
    assert int(first, 16) >= 0
    fleet.worker.description = "another description"
    fleet.worker.save()
    assert revision(fleet) == first


def test_the_revision_changes_with_everything_that_the_worker_is_given(fleet: Fleet) -> None:
    seen = [revision(fleet)]
    for change in (
        lambda: TemporalConnection.objects.update(host="elsewhere:7233"),
        lambda: TemporalConnection.objects.update(namespace="elsewhere"),
        lambda: WorkerQueue.objects.update(heartbeat_interval=30),
        lambda: WorkerQueue.objects.update(name="renamed"),
        lambda: factories.point(
            WorkerQueue.objects.get(),
            telemetry_settings=factories.create_telemetry(fleet.organization, otel_enabled=False),
        ),
        lambda: TelemetrySettings.objects.update(otel_traces_sampler_arg=0.5),
        lambda: _rotate(fleet, "another"),
    ):
        change()
        seen.append(revision(fleet))
    assert len(set(seen)) == len(seen)


def test_the_revision_returns_with_what_the_worker_was_given_before(fleet: Fleet) -> None:
    first = revision(fleet)
    _rotate(fleet, "another")
    _rotate(fleet, fleet.temporal_secret)
    assert revision(fleet) == first


def _rotate(fleet: Fleet, secret: str) -> None:
    row = TemporalConnection.objects.get(pk=fleet.temporal.pk)
    seal_api_key(row, Secret(secret), now=timezone.now())
    row.save()
