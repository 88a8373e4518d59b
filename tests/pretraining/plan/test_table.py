"""Updates counted before a run, against the training loop's own rule played through."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pretraining.plan.budget import Budget
from pretraining.plan.segments import plan_segments, series_budgets
from pretraining.plan.table import planned_updates


@dataclass
class Options:
    global_batch_rows: int = 4


class SmallPlan:
    options = Options()

    def __init__(self, unit):
        self.budget, self.lengths = Budget(12_345.0, unit), ((0, 16), (80, 32))
        self.segments = plan_segments(series_budgets(12_345.0, 4, 2.0), decay_fraction=0.15, raw=True)

    def cost_of_update(self, row):
        if self.budget.unit == "tokens":
            return 100.0
        return 70.0 if row < 80 else 150.0


@pytest.mark.parametrize("unit", ["tokens", "flops"])
def test_the_count_is_that_of_the_loop(unit):
    plan, trunk, total, kept = SmallPlan(unit), 0, 0, 0.0
    for segment in plan.segments:
        updates, spent = trunk, kept
        while spent < segment.end:
            spent += plan.cost_of_update(4 * updates)
            updates += 1
        total += updates - trunk
        if not segment.is_branch:
            trunk, kept = updates, spent
    assert planned_updates(plan) == (trunk, total)


def test_hours_say_nothing_about_updates():
    assert planned_updates(SmallPlan("hours")) is None
