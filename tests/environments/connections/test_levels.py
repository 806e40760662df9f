import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.connections.levels import ConfigurationIncompleteError, Layer, Level, resolve
from environments.models import Environment, LiteLLMConnection, Organization, TelemetrySettings, TemporalConnection
from workers.models import Worker, WorkerQueue

HOLDERS = {
    Level.WORKER: Worker,
    Level.QUEUE: WorkerQueue,
    Level.ENVIRONMENT: Environment,
    Level.ORGANIZATION: Organization,
}
KINDS = {
    "temporal_connection": TemporalConnection,
    "litellm_connection": LiteLLMConnection,
    "telemetry_settings": TelemetrySettings,
}
SECTIONS = dict(zip(KINDS, ("temporal", "litellm", "telemetry"), strict=True))
#: Which of the four levels, the narrowest first, points to a connection.
PATTERNS = list(itertools.product([True, False], repeat=4))


def layers_of(pointing: dict[str, tuple[bool, ...]]) -> list[Layer]:
    """The chain in which exactly the given levels point to a connection of each kind."""
    layers = []
    for index, (level, model) in enumerate(HOLDERS.items()):
        rows: dict[str, Any] = {
            pointer: kind(name=f"{level}-{pointer}") if pointing[pointer][index] else None
            for pointer, kind in KINDS.items()
        }
        layers.append(Layer(level, model(**rows)))
    return layers


@given(st.fixed_dictionaries({pointer: st.sampled_from(PATTERNS) for pointer in KINDS}))
def test_the_narrowest_level_wins_the_whole_section_whatever_the_other_sections_do(
    pointing: dict[str, tuple[bool, ...]],
) -> None:
    sections = resolve(layers_of(pointing))
    for pointer, section_name in SECTIONS.items():
        section = getattr(sections, section_name)
        expected = [level for level, points in zip(HOLDERS, pointing[pointer], strict=True) if points]
        assert [candidate.level for candidate in section.candidates] == expected
        assert section.searched == tuple(HOLDERS)
        if not expected:
            assert section.winner is None
            assert section.row is None
            continue
        assert section.winner.level == expected[0]
        assert section.row is section.require() is section.winner.row
        assert section.row.name == f"{expected[0]}-{pointer}"
        assert getattr(section.winner.holder, pointer) is section.row


@pytest.mark.parametrize(
    ("section", "word"), [("temporal", "Temporal"), ("litellm", "LiteLLM"), ("telemetry", "telemetry")]
)
def test_a_missing_section_is_named_with_the_levels_that_were_searched(section: str, word: str) -> None:
    sections = resolve(layers_of(dict.fromkeys(KINDS, (False,) * 4)))
    with pytest.raises(ConfigurationIncompleteError) as caught:
        getattr(sections, section).require()
    assert word in str(caught.value)
    assert "worker, worker queue, environment, organization" in str(caught.value)


def test_the_sections_are_iterated_in_the_contracts_order() -> None:
    sections = resolve(layers_of(dict.fromkeys(KINDS, (True,) * 4)))
    assert list(sections) == [sections.temporal, sections.litellm, sections.telemetry]
