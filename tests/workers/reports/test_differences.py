"""What differs between two reports of a machine, by path; compared with what a person would say, and by its laws."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.reports.differences import LONGEST_TEXT, MOST_LINES, Line, difference

pytestmark = pytest.mark.once

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
reports = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    ),
    max_size=6,
)


def changed(before: Any, after: Any) -> Line:
    found = difference({"x": before}, {"x": after})
    (line,) = (*found.facts, *found.measurements)
    return line


def test_tells_what_is_added_removed_and_changed_by_path() -> None:
    before = {"sdk_version": "1.0.2", "gone": None, "os": {"name": "Linux", "release": "6.1"}}
    after = {"sdk_version": "1.0.3", "gpus": [{"model": "H100"}], "os": {"name": "Linux", "release": "6.8"}}
    assert difference(before, after).facts == (
        Line("gone", "null", None),
        Line("gpus[0].model", None, '"H100"'),
        Line("os.release", '"6.1"', '"6.8"'),
        Line("sdk_version", '"1.0.2"', '"1.0.3"'),
    )
    assert [line.kind for line in difference(before, after).facts] == ["removed", "added", "changed", "changed"]


@given(reports)
def test_a_report_does_not_differ_from_itself(report: dict[str, Any]) -> None:
    found = difference(report, json.loads(json.dumps(report)))
    assert not found
    assert found.left_out == 0


@given(reports, reports)
def test_reports_that_differ_have_lines_and_the_way_back_is_the_same_turned_around(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    there, back = difference(before, after), difference(after, before)
    assert bool(there) == (json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True))
    assert {(line.path, line.before, line.after) for line in there.facts} == {
        (line.path, line.after, line.before) for line in back.facts
    }
    assert len(there.measurements) == len(back.measurements)


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, 1.0), (1, True), (0, False), (1, "1"), (None, "null"), ({}, []), ({}, {"a": {}}), ([], [[]]), ("a", "a ")],
    ids=repr,
)
def test_what_python_takes_for_the_same_or_hides_is_told_apart(before: Any, after: Any) -> None:
    assert difference({"x": before}, {"x": after})


def test_a_key_with_a_dot_is_no_path_of_two_keys() -> None:
    found = difference({"a.b": 1}, {"a": {"b": 1}})
    assert [(line.path, line.kind) for line in found.facts] == [('"a.b"', "removed"), ("a.b", "added")]


@pytest.mark.parametrize(
    "name",
    [
        "cpu_percent",
        "memory_used",
        "disk_percent",
        "uptime_seconds",
        "pid",
        "disk_free",
        "memory_available",
        "CPU_Load",
    ],
)
def test_what_always_moves_is_a_measurement(name: str) -> None:
    found = difference({"machine": {name: [1]}}, {"machine": {name: [2.5]}})
    assert not found.facts
    assert [line.path for line in found.measurements] == [f"machine.{name}[0]"]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("cpu_count", 4, 8),
        ("memory_total", 2**33, 2**34),
        ("docker_available", True, False),
        ("pid", 7, "seven"),
        ("rapid", 1, 2),
        ("hostname", "a", "b"),
    ],
)
def test_what_says_that_the_machine_is_another_is_a_fact(name: str, before: Any, after: Any) -> None:
    found = difference({name: before}, {name: after})
    assert [line.path for line in found.facts] == [name]
    assert not found.measurements


def test_facts_come_first_when_there_are_too_many_lines() -> None:
    before = {f"cpu_{number}_percent": 1 for number in range(MOST_LINES)}
    after = dict.fromkeys(before, 2) | {f"fact_{number:03}": 1 for number in range(MOST_LINES - 10)}
    found = difference(before, after)
    assert (len(found.facts), len(found.measurements), found.left_out) == (MOST_LINES - 10, 10, MOST_LINES - 10)
    assert len(difference(before, after, limit=5).facts) == 5


def test_long_keys_and_values_are_cut() -> None:
    line = difference({}, {"k" * 512: {"n" * 512: "v" * 4096}}).facts[0]
    assert len(line.path) == len(line.after or "") == LONGEST_TEXT + 1


def test_values_that_differ_far_behind_are_shown_from_there() -> None:
    line = changed("W" * 4000 + "one" + "x" * 900, "W" * 4000 + "two")
    assert line.before is not None
    assert line.after is not None
    assert "Wone" in line.before
    assert line.after.endswith('two"')
    assert line.before != line.after
