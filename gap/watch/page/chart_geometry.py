"""A chart as coordinates in an SVG of fixed size: lines, dots, bands, levels and ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gap.watch.view import ChartSeries, LiveChart
from gap.watch.wording import amount

WIDTH, HEIGHT = 440.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 12.0, 10.0, 38.0
CLIPPED_SHARE = 0.03  # of a line's points, the first, may lie above the chart: a loss begins high
MOST_TICKS = 5
SMALLEST = 1e-9  # what is less is drawn as 0
LEFT_OF_BUDGETS = 0.5  # times the smallest x: where x = 0, which a log axis lacks, is drawn


@dataclass(frozen=True)
class DrawnSeries:
    """`path` and `band` are the d of an SVG path; `dots` are points."""

    label: str
    role: str
    path: str
    band: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class DrawnTick:
    """A place on an axis and what stands there."""

    place: float
    text: str


@dataclass(frozen=True)
class DrawnLevel:
    """A horizontal line over the whole width."""

    label: str
    role: str
    y: float


@dataclass(frozen=True)
class DrawnLiveChart:
    """All that the template needs."""

    title: str
    x_label: str
    series: tuple[DrawnSeries, ...]
    levels: tuple[DrawnLevel, ...]
    x_ticks: tuple[DrawnTick, ...]
    y_ticks: tuple[DrawnTick, ...]
    words: str  # the chart for those who do not see it
    legend: tuple[tuple[str, str, bool], ...]  # label, role, is a line


@dataclass(frozen=True)
class Axis:
    """A range of values on a range of pixels."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value, those outside at the edge."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        own = math.log(max(value, self.low)) if self.is_log else value
        share = (own - low) / (high - low) if high > low else 0.5
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)


def draw(chart: LiveChart) -> DrawnLiveChart | None:
    """The coordinates of a chart; None without a point."""
    xs = [x for series in chart.series for x, _ in series.points]
    positive = [x for x in xs if x > SMALLEST]
    if not xs or (chart.log_x and not positive and not chart.left):
        return None
    is_log = chart.log_x and bool(positive)
    smallest, largest = (min(positive), max(positive)) if positive else (0.0, 1.0)
    zero = smallest * LEFT_OF_BUDGETS
    if is_log:
        x_axis = Axis(zero * 0.85, largest * 1.15, LEFT, WIDTH - RIGHT, is_log=True)
    else:
        end = max(max(xs), chart.x_end or 0.0)
        x_axis = Axis(0.0, end if end > SMALLEST else 1.0, LEFT, WIDTH - RIGHT)
    y_axis = _y_axis(chart)
    drawn = tuple(_drawn(series, x_axis, y_axis, zero if is_log else 0.0) for series in chart.series)
    levels = tuple(DrawnLevel(label, role, y_axis(value)) for label, role, value in chart.levels)
    legend = dict.fromkeys((one.label, one.role, bool(one.path)) for one in drawn if one.label != "seeds")
    legend |= dict.fromkeys((level.label, level.role, True) for level in levels)
    return DrawnLiveChart(
        chart.title,
        chart.x_label,
        drawn,
        levels,
        tuple(_x_ticks(chart, x_axis, zero, is_log)),
        tuple(DrawnTick(y_axis(value), _y_text(value, chart.percent)) for value in nice_ticks(y_axis.low, y_axis.high)),
        _words(chart),
        tuple(legend),
    )


def _y_axis(chart: LiveChart) -> Axis:
    values: list[float] = []
    for series in chart.series:
        skipped = int(CLIPPED_SHARE * len(series.points)) if series.line else 0
        values += [y for _, y in series.points[skipped:]]
        values += [end for pair in series.band for end in pair]
    values += [value for _, _, value in chart.levels]
    low, high = min(values), max(values)
    is_flat = high - low <= SMALLEST * max(1.0, abs(high))
    room = (0.05 * abs(high) or 1.0) if is_flat else 0.06 * (high - low)
    floor = 0.0 if low >= 0 and low - room < 0 else low - room
    return Axis(floor, high + room, HEIGHT - BOTTOM, TOP)


def _drawn(series: ChartSeries, x_axis: Axis, y_axis: Axis, zero: float) -> DrawnSeries:
    places = [(x_axis(x if x > SMALLEST else zero), y_axis(y)) for x, y in series.points]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if series.line and len(places) > 1 else ""
    band = ""
    if series.band:
        xs = [x for x, _ in places]
        ends = [(x, y_axis(low)) for x, (low, _) in zip(xs, series.band, strict=True)]
        ends += [(x, y_axis(high)) for x, (_, high) in reversed(list(zip(xs, series.band, strict=True)))]
        band = "M" + "L".join(f"{x:g} {y:g}" for x, y in ends) + "Z"
    few = series.line and len(places) <= 12
    return DrawnSeries(series.label, series.role, path, band, tuple(places) if few or not series.line else ())


def _x_ticks(chart: LiveChart, axis: Axis, zero: float, is_log: bool) -> list[DrawnTick]:
    if not is_log:
        return [DrawnTick(axis(value), amount(value)) for value in nice_ticks(axis.low, axis.high)]
    budgets = sorted({x for series in chart.series for x, _ in series.points if x > SMALLEST})
    ticks = [DrawnTick(axis(zero), chart.left)] if chart.left else []
    for value in budgets:
        tick = DrawnTick(axis(value), amount(value))
        if not ticks or tick.place - ticks[-1].place > 46:
            ticks.append(tick)
    return ticks


def nice_ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Round values between two others, at most so many."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= raw), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _y_text(value: float, percent: bool) -> str:
    return f"{100 * value:.4g} %" if percent else f"{value:.3g}"


def _words(chart: LiveChart) -> str:
    """Each line's first and last point."""
    parts = []
    for series in _longest(chart.series):
        (first_x, first_y), (last_x, last_y) = series.points[0], series.points[-1]
        first, last = _y_text(first_y, chart.percent), _y_text(last_y, chart.percent)
        parts.append(f"{series.label} from {first} at {amount(first_x)} to {last} at {amount(last_x)}")
    parts += [f"{label} {_y_text(value, chart.percent)}" for label, _, value in chart.levels]
    return f"{chart.title}: {'; '.join(parts)}"


def _longest(series: Sequence[ChartSeries]) -> list[ChartSeries]:
    """The lines by label, of several with one label the last."""
    return list({one.label: one for one in series if one.line and one.points}.values())
