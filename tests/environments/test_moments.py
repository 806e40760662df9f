from datetime import UTC, datetime, timedelta

import pytest

from environments.moments import distance, moment, relative

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (12.9, "12 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "119 min"),
        (7_200, "2 h"),
        (172_800, "2 d"),
        (-90, "90 s"),
    ],
)
def test_a_span_is_told_in_its_largest_fitting_unit(seconds: float, shown: str) -> None:
    assert distance(timedelta(seconds=seconds)) == shown


def test_tells_the_past_from_what_is_to_come() -> None:
    assert relative(NOW - timedelta(seconds=12), NOW) == "12 s ago"
    assert relative(NOW + timedelta(days=3), NOW) == "in 3 d"


def test_the_exact_time_is_in_the_tooltip_and_for_the_script() -> None:
    shown = moment(NOW - timedelta(minutes=5), now=NOW)
    assert 'datetime="2026-11-24T11:55:00+00:00"' in shown
    assert 'title="2026-11-24 11:55:00 UTC"' in shown
    assert ">5 min ago<" in shown


def test_no_time_is_told_in_words() -> None:
    assert moment(None) == "never"
    assert moment(None, "not <yet>") == "not &lt;yet&gt;"
