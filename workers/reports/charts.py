"""Charts as numbers: where each bar, tick and label goes, for a template to draw as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil, log10

WIDTH, HEIGHT = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 12, 28
#: Ticks of the vertical axis, at most, above zero.
MOST_TICKS = 5
#: How much room the label of an hour or a day takes.
LABEL = 64
#: Of a bar's place, how much the bar fills.
FILLED = 0.8
HOUR = timedelta(hours=1)
#: A moment in UTC as the filters of lists take it.
INSTANT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Bar:
    """One hour: its place in the drawing, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    begins_at: datetime
    count: int

    @property
    def ends_at(self) -> datetime:
        return self.begins_at + HOUR

    @property
    def told(self) -> str:
        """In words; here, since a template's filters would take longer for a week than the week's figures."""
        begins = f"{self.begins_at:%a} {self.begins_at.day} {self.begins_at:%b %H:%M}"
        return f"{begins} to {self.ends_at:%H:%M} UTC: {self.count:,} start{'' if self.count == 1 else 's'}"

    @property
    def query(self) -> str:
        """What the list of starts is filtered by to show those of the hour."""
        return f"started_at__gte={self.begins_at:{INSTANT}}&started_at__lt={self.ends_at:{INSTANT}}"


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str
    anchor: str = "start"


@dataclass(frozen=True)
class Chart:
    """Bars over hours, in units of the drawing, whose origin is its upper left corner."""

    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    total: int
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def hourly_chart(counts: Sequence[tuple[datetime, int]]) -> Chart:
    """A bar for each hour, given in their order without gaps; `counts` is not empty."""
    step = tick_step(max(count for _, count in counts))
    top = step * max(1, ceil(max(count for _, count in counts) / step))
    place = (WIDTH - LEFT - RIGHT) / len(counts)
    scale = (HEIGHT - TOP - BOTTOM) / top
    bars = [
        Bar(
            x=round(LEFT + place * (index + (1 - FILLED) / 2), 2),
            y=round(HEIGHT - BOTTOM - count * scale, 2),
            width=round(place * FILLED, 2),
            height=round(count * scale, 2),
            begins_at=hour,
            count=count,
        )
        for index, (hour, count) in enumerate(counts)
    ]
    y_ticks = [Tick(round(HEIGHT - BOTTOM - value * scale, 2), f"{value:,}") for value in range(0, top + 1, step)]
    return Chart(bars, _hour_ticks(counts, place), y_ticks, total=sum(count for _, count in counts))


def tick_step(largest: int) -> int:
    """The distance of ticks, 1, 2 or 5 times a power of ten, so that MOST_TICKS of them reach the largest value."""
    wanted = max(1, largest) / MOST_TICKS
    power = 10 ** max(0, ceil(log10(wanted)) - 1)
    return next(int(factor * power) for factor in (1, 2, 5, 10) if factor * power >= wanted)


def _hour_ticks(counts: Sequence[tuple[datetime, int]], place: float) -> list[Tick]:
    """Of one day every fourth hour, of more each midnight; what begins too far right ends at its tick."""
    is_day = len(counts) <= 24  # noqa: PLR2004  # hours
    return [
        Tick(
            at=round(LEFT + place * index, 2),
            label=f"{hour:%H:%M}" if is_day else f"{hour:%a %d %b}",
            anchor="start" if LEFT + place * index < WIDTH - RIGHT - LABEL else "end",
        )
        for index, (hour, _) in enumerate(counts)
        if hour.hour % (4 if is_day else 24) == 0
    ]
