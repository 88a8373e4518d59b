"""The course of a run: budgets, order of the segments, and what the series costs."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretraining.plan.options import PretrainingOptions
from pretraining.plan.segments import COST_LIMIT, check_cost, parse_series, plan_segments, relative_cost, series_budgets


def test_six_budgets_are_log_spaced_up_to_the_largest():
    assert parse_series("6", 1.6e6, 2.0) == (5e4, 1e5, 2e5, 4e5, 8e5, 1.6e6)
    assert parse_series("0", 1000.0, 2.0) == (1000.0,)
    assert parse_series("4e5, 1e5,0", 1e6, 2.0) == (1e5, 4e5)


@pytest.mark.parametrize("text", ["", "none", "1e5,2e7", "-5,1e5", "nan,1e5", "inf", "-3"])
def test_a_series_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="series"):
        parse_series(text, 1e6, 2.0)


@pytest.mark.parametrize("ratio", [1.0, math.inf])
def test_a_ratio_without_budgets_between_is_no_series(ratio):
    with pytest.raises(ValueError, match=r"--series_ratio .*: use a finite number, above 1"):
        PretrainingOptions(series_ratio=ratio)


def test_the_course_of_two_budgets():
    segments = plan_segments((100.0, 200.0), decay_fraction=0.15, raw=True)
    assert [(s.start, s.end, s.is_branch, s.kind, s.budget) for s in segments] == [
        (0.0, 85.0, False, None, None),
        (85.0, 100.0, True, "annealed", 100.0),
        (85.0, 100.0, False, "raw", 100.0),
        (100.0, 170.0, False, None, None),
        (170.0, 200.0, True, "annealed", 200.0),
        (170.0, 200.0, False, "raw", 200.0),
    ]
    assert relative_cost(segments) == pytest.approx(1 + 0.15 * 300 / 200)


def test_without_raw_nothing_is_trained_twice():
    segments = plan_segments((200.0,), decay_fraction=0.2, raw=False)
    assert [(s.start, s.end, s.kind) for s in segments] == [(0.0, 160.0, None), (160.0, 200.0, "annealed")]
    assert relative_cost(segments) == 1.0


@given(
    count=st.integers(1, 12),
    ratio=st.floats(1.2, 10),
    share=st.floats(0.01, 0.5),
    largest=st.floats(1e3, 1e12),
)
def test_every_course_is_a_trunk_with_branches(count, ratio, share, largest):
    budgets = series_budgets(largest, count, ratio)
    segments = plan_segments(budgets, decay_fraction=share, raw=True)
    trunk = [segment for segment in segments if not segment.is_branch]
    assert trunk[0].start == 0
    assert trunk[-1].end == largest
    # The trunk has neither gap nor overlap, and a branch starts where the trunk stands.
    assert all(before.end == after.start for before, after in itertools.pairwise(trunk))
    position = 0.0
    for segment in segments:
        assert segment.start == position
        position = position if segment.is_branch else segment.end
    published = {(segment.kind, segment.budget) for segment in segments if segment.kind}
    assert published == {(kind, budget) for kind in ("raw", "annealed") for budget in budgets}
    # 1 + d r / (r - 1), less the tail of the geometric series.
    assert relative_cost(segments) <= 1 + share * ratio / (ratio - 1) + 1e-9
    if relative_cost(segments) > COST_LIMIT + 1e-6:
        with pytest.raises(ValueError, match="decay_fraction"):
            check_cost(segments, decay_fraction=share)


def test_the_remedy_for_a_dear_series_is_one():
    budgets = series_budgets(1e6, 8, 1.5)
    with pytest.raises(ValueError, match=r"lower --decay_fraction to (0\.\d+)") as caught:
        check_cost(plan_segments(budgets, decay_fraction=0.3, raw=True), decay_fraction=0.3)
    share = float(str(caught.value).rsplit(" ", 1)[1])
    check_cost(plan_segments(budgets, decay_fraction=share, raw=True), decay_fraction=share)


def test_the_default_ratio_and_share_keep_the_limit():
    check_cost(plan_segments(series_budgets(1e9, 12, 2.0), decay_fraction=0.15, raw=True), decay_fraction=0.15)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_decay_share_is_between_zero_and_one(share):
    with pytest.raises(ValueError, match=r"--decay_fraction .*: use above 0 and below 1"):
        PretrainingOptions(decay_fraction=share)
