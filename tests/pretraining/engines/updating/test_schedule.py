"""Warmup-stable-decay."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretraining.engines.updating.schedule import learning_rate
from pretraining.names import DECAYS

WHOLE = {"peak": 2.0, "warmup": 10.0, "decay_start": 80.0, "decay_end": 100.0}


@pytest.mark.parametrize("decay", DECAYS)
def test_zero_at_both_ends_and_the_peak_between(decay):
    rate = {spent: learning_rate(spent, decay=decay, **WHOLE) for spent in (0, 5, 10, 50, 80, 100, 200)}
    assert rate == {0: 0, 5: 1.0, 10: 2.0, 50: 2.0, 80: 2.0, 100: pytest.approx(0), 200: pytest.approx(0)}


@pytest.mark.parametrize(("decay", "half"), [("linear", 1.0), ("cosine", 1.0), ("sqrt", 2 * (1 - math.sqrt(0.5)))])
def test_halfway_down(decay, half):
    assert learning_rate(90, decay=decay, **WHOLE) == pytest.approx(half)


@given(spent=st.floats(0, 1000), decay=st.sampled_from(DECAYS))
def test_never_above_the_peak_nor_below_zero(spent, decay):
    assert -1e-12 <= learning_rate(spent, decay=decay, **WHOLE) <= 2.0


def test_a_trunk_never_decays():
    ends = {"decay_start": math.inf, "decay_end": math.inf}
    assert learning_rate(1e12, peak=1.0, warmup=0.0, **ends) == 1.0


def test_an_unknown_decay_is_refused():
    with pytest.raises(ValueError, match="use one of linear, sqrt, cosine"):
        learning_rate(90, decay="exponential", **WHOLE)
