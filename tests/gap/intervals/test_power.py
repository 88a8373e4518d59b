"""Seeds needed, checked against simulated experiments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from gap.intervals.power import PilotVariance, plan_seeds, power_of


def test_power_is_what_simulated_experiments_find() -> None:
    pilot = PilotVariance(pretraining=0.0, finetuning=0.01**2, examples=0.0)
    promised = power_of(pilot, 0.01, 1, 8)
    random = np.random.default_rng(0)
    seen = ttest_1samp(0.01 + 0.01 * random.standard_normal((4000, 8)), 0.0, axis=1).pvalue < 0.05
    assert promised == pytest.approx(seen.mean(), abs=0.03)


def test_the_plan_is_the_smallest_design_with_the_power() -> None:
    pilot = PilotVariance(pretraining=0.0, finetuning=0.012**2, examples=0.002**2)
    plan = plan_seeds(pilot, 0.01)
    assert plan.finetuning_seeds is not None
    assert power_of(pilot, 0.01, 1, plan.finetuning_seeds) >= 0.8
    assert plan.finetuning_seeds == 3 or power_of(pilot, 0.01, 1, plan.finetuning_seeds - 1) < 0.8


def test_seeds_cannot_make_up_for_a_small_test_set() -> None:
    plan = plan_seeds(PilotVariance(0.0, 0.01**2, 0.02**2), 0.01)
    assert plan.finetuning_seeds is None
    assert "test examples" in str(plan.reason)


def test_variances_are_recovered_from_many_pilot_cells() -> None:
    random = np.random.default_rng(1)
    cells = 0.02 * random.standard_normal((400, 1)) + 0.01 * random.standard_normal((400, 5))
    pilot = PilotVariance.of(cells)
    assert pilot.pretraining**0.5 == pytest.approx(0.02, rel=0.1)
    assert pilot.finetuning**0.5 == pytest.approx(0.01, rel=0.1)


def test_a_pilot_of_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more"):
        PilotVariance.of(np.zeros((1, 1)))
