"""Charts as coordinates: everything lies inside, axes are round, and 0 has a place on a log axis."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gap.watch.page.chart_geometry import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw, nice_ticks
from gap.watch.view import ChartSeries, LiveChart

NUMBERS = st.floats(-1e12, 1e12)
POINTS = st.lists(st.tuples(st.floats(0, 1e18), NUMBERS), min_size=1, max_size=20).map(tuple)


@settings(max_examples=40, deadline=None)
@given(st.lists(POINTS, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_everything_lies_inside(courses, log_x, line):
    series = tuple(ChartSeries(str(number), "raw", points, line=line) for number, points in enumerate(courses))
    drawn = draw(LiveChart("t", "x", series, (("level", "scratch", 0.5),), log_x=log_x, left="scratch"))
    assert drawn is not None
    for one in drawn.series:
        numbers = [float(part) for part in one.path.replace("M", " ").replace("L", " ").split()]
        places = [*zip(numbers[::2], numbers[1::2], strict=True), *one.dots]
        assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in places)
    assert all(LEFT <= tick.place <= WIDTH - RIGHT for tick in drawn.x_ticks)


def test_budget_zero_stands_left_of_the_smallest_budget():
    points = ((100.0, 0.5), (1000.0, 0.7))
    scratch = ChartSeries("seeds", "scratch", ((0.0, 0.4),), line=False)
    drawn = draw(LiveChart("t", "tokens", (ChartSeries("raw", "raw", points), scratch), log_x=True, left="scratch"))
    assert drawn.x_ticks[0].text == "scratch"
    assert drawn.series[1].dots[0][0] == drawn.x_ticks[0].place < drawn.series[0].dots[0][0]
    assert [tick.text for tick in drawn.x_ticks[1:]] == ["100", "1 k"]
    assert drawn.legend == (("raw", "raw", True),)
    assert drawn.words == "t: raw from 0.5 at 100 to 0.7 at 1 k"


def test_places_are_in_proportion():
    points = ((0.0, 0.0), (2.5, 5.0), (10.0, 10.0))
    (drawn,) = draw(LiveChart("t", "x", (ChartSeries("loss", "raw", points),))).series
    (left, low), (x, middle), (right, high) = drawn.dots
    assert (left, right) == (LEFT, WIDTH - RIGHT)
    assert x == pytest.approx(left + (right - left) / 4, abs=0.1)
    assert middle == pytest.approx((low + high) / 2, abs=0.1)
    assert low > high


def test_the_first_losses_may_lie_above_the_chart():
    points = tuple((float(x), 1000.0 if x < 2 else 5.0 - x / 100) for x in range(100))
    drawn = draw(LiveChart("t", "x", (ChartSeries("loss", "raw", points),)))
    assert max(float(tick.text) for tick in drawn.y_ticks) <= 5.2
    assert drawn.series[0].path.startswith(f"M{LEFT:g} {TOP:g}L")


def test_nothing_is_drawn_without_points():
    assert draw(LiveChart("t", "x", ())) is None


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(0, 10, [0, 2, 4, 6, 8, 10]), (0.71, 0.79, [0.72, 0.74, 0.76, 0.78]), (3, 3, [3])]
)
def test_ticks_are_round(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)
