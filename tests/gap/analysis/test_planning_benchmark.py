"""The simulation of plans: its worlds have the differences that they name, and its tables hold what was found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks import planning
from gap.analysis.planning import POWER
from gap.intervals.spending import ERROR


@pytest.mark.parametrize("name", [*planning.PILOTS, *planning.UNTIL])
def test_the_worlds_have_the_gap_that_is_asked_for(name: str) -> None:
    world = {**planning.PILOTS, **planning.UNTIL}[name]
    for gap in (0.0, 0.04):
        own = planning.with_gap(world, gap)
        chances = planning.Simulated(own, 1, 0).chances
        assert own.scores[-1] - own.scores[0] == pytest.approx(gap)
        assert chances.truth == pytest.approx(own.scores)  # one run, which is given


def test_a_study_of_the_first_seeds_has_their_scores() -> None:
    planned = planning.PLANNED["plan: gap of 12, three runs"]
    simulated = planning.Simulated(planned.world, planned.runs, 0)
    for seeds in (3, 5):
        study = simulated.study(seeds, draws=100)
        means = simulated.answers[:, :, :seeds].mean(axis=(1, 2, 3), dtype=float)
        assert study.draws.observed == pytest.approx(means, abs=1e-6)
        assert [len(grid.cells) for grid in study.table.grids] == [3 * seeds] * 4


def test_the_tables_hold_promises_verdicts_and_looks() -> None:
    plans, pilots, until = "\n".join(planning.tables(4, 600, "400 examples", (0.0, 0.3))).split("\n\n")
    name, _, promised, found, _, none = (cell.strip() for cell in plans.splitlines()[2].strip("|").split("|"))
    assert name == "gap of 6, 400 examples"
    assert float(promised) >= 100 * POWER
    assert "±" in found
    assert none == "0"
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in pilots.splitlines()[2:]]
    assert [row[1] for row in rows] == ["0", "30"]
    assert rows[1][2:4] == ["100.0 ± 0.0", "100 0 0"]  # a gap of 30 points is resolved by the pilot itself
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in until.splitlines()[2:]]
    assert rows[1][2:] == ["100.0 ± 0.0", "100.0 ± 0.0", "3.0"]


IN_CI = ("plan: gap of 6, 400 examples", "plan: gap of 6, seeds vary by 3 points")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in IN_CI else pytest.mark.long)
        for name, planned in planning.PLANNED.items()
        if planned.promised
    ],
)
def test_planned_seeds_have_the_promised_power(name: str) -> None:
    """Within 5 points of the promise, as far as 150 studies can tell (one in a thousand that keep it fails)."""
    found = planning.plans(planning.PLANNED[name], 150, 500)
    promised, number = float(np.mean(found.promised)), len(found.kept)
    assert sum(found.kept) >= binom.ppf(0.001, number, promised - 0.05)
    assert sum(found.kept) <= binom.ppf(0.999, number, min(1.0, promised + 0.05))


@pytest.mark.long
def test_looks_until_a_gap_is_resolved_err_together_as_one_may() -> None:
    world = planning.UNTIL["until: 1,000 examples, seeds vary by 3 points"]
    wrong = [stopped.resolved for stopped, _ in planning.until_resolved(world, 0.0, 200, 2000)]
    assert sum(wrong) <= binom.ppf(0.999, 200, ERROR)
