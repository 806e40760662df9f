from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.reports.charts import HEIGHT, MOST_TICKS, WIDTH, hourly_chart, tick_step

FIRST = datetime(2026, 11, 23, 5, tzinfo=UTC)


def hours(*counts: int) -> list[tuple[datetime, int]]:
    return [(FIRST + timedelta(hours=index), count) for index, count in enumerate(counts)]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=168))
def test_every_bar_lies_within_the_drawing_and_is_as_high_as_its_share(counts: list[int]) -> None:
    chart = hourly_chart(hours(*counts))
    highest = float(chart.y_ticks[0].at - chart.y_ticks[-1].at)
    top = int(chart.y_ticks[-1].label.replace(",", ""))
    assert top >= max(counts)
    for bar, count in zip(chart.bars, counts, strict=True):
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH
        assert 0 <= bar.y <= bar.y + bar.height <= HEIGHT
        assert bar.height == pytest.approx(highest * count / top, abs=0.02)


@given(st.integers(0, 10**12))
def test_a_few_round_ticks_reach_the_largest_value(largest: int) -> None:
    step = tick_step(largest)
    assert step * MOST_TICKS >= largest
    assert str(step).rstrip("0") in {"1", "2", "5"}
    assert largest <= 5 or step * MOST_TICKS <= largest * 2.5


def test_a_day_has_a_label_every_four_hours_and_a_week_one_each_midnight() -> None:
    assert [tick.label for tick in hourly_chart(hours(*[1] * 24)).x_ticks] == [
        *("08:00", "12:00", "16:00", "20:00", "00:00", "04:00"),
    ]
    week = [tick.label for tick in hourly_chart(hours(*[1] * 168)).x_ticks]
    assert week == [
        f"{name} {day} Nov"
        for name, day in zip(("Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Mon"), range(24, 31), strict=True)
    ]


def test_a_bar_says_its_hour_and_leads_to_its_starts() -> None:
    bar, other = hourly_chart(
        [(datetime(2026, 11, 8, 23, tzinfo=UTC), 1_234), (datetime(2026, 11, 9, tzinfo=UTC), 1)]
    ).bars
    assert bar.told == "Sun 8 Nov 23:00 to 00:00 UTC: 1,234 starts"
    assert bar.query == "started_at__gte=2026-11-08T23:00:00Z&started_at__lt=2026-11-09T00:00:00Z"
    assert other.told == "Mon 9 Nov 00:00 to 01:00 UTC: 1 start"


def test_an_hour_without_a_start_has_a_bar_without_height() -> None:
    empty, full = hourly_chart(hours(0, 3)).bars
    assert (empty.height, empty.ends_at) == (0, full.begins_at)
    assert full.height > 0
