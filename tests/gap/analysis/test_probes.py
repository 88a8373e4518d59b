"""The linear probe beside fine-tuning: rank agreement by hand, and intervals without copies of a seed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau

from gap.analysis.controls import compare_probes, kendall, rank_agreement
from gap.analysis.tables.costs import Prices
from gap.analysis.tables.task_study import study_task
from gap.analysis.tables.task_table import tabulate
from gap.analysis.task_analysis import analyse_task
from gap.cells.store import LINEAR_PROBE, Cell, write_predictions
from gap.intervals.bootstrap import Resampling
from gap.report.control_charts import probe_chart
from gap.report.tables import control_table, probe_table

EXAMPLES = 400
SCORES = {0: 0.3, 100: 0.5, 200: 0.6, 400: 0.62}  # by budget, fine-tuned
PROBED = {0: 0.2, 100: 0.35, 200: 0.5, 400: 0.48}


def cells_of(folder, probed=PROBED, *, seeds=3, runs=1):
    """Cells with predictions: three seeds of each checkpoint, of a probe on pretrained weights one."""
    random, cells = np.random.default_rng(0), []
    difficulty = random.random(EXAMPLES)
    plans = [(SCORES, None), (probed, LINEAR_PROBE)]
    for scores, control in plans:
        for budget, score in scores.items():
            for run, seed in itertools.product(range(runs), range(seeds if control is None or budget == 0 else 1)):
                right = difficulty + 0.05 * random.normal(size=EXAMPLES) < score + 0.01 * run
                name = f"{control}-{budget}-{run}-{seed}"
                rows = [{"id": str(i), "score": float(value), "cluster": str(i)} for i, value in enumerate(right)]
                write_predictions(folder / f"{name}.json", rows)
                kind = "annealed" if budget else "raw"
                place = {"budget_tokens": budget, "pretraining_seed": run, "finetuning_seed": seed}
                own = {"control": control, "seconds": 10.0 if control is None else 2.0, "predictions": f"{name}.json"}
                details = {"search_seconds": 5.0} if control is None else {}
                mean = float(right.mean())
                cells.append(Cell(name, "t", kind, metric="accuracy", score=mean, details=details, **place, **own))
    return cells


def study_of(folder, cells):
    return study_task(tabulate("t", cells, folder), (), Resampling(draws=2000), 0.95)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),  # five pairs agree, one does not
        ([1, 2, 3], [1, 1, 2], 2 / np.sqrt(3 * 2)),  # one tie: two pairs agree
        ([0.1 + 0.2, 0.3, 1], [1, 2, 3], 2 / np.sqrt(2 * 3)),  # what is left beyond rounding is a tie
    ],
)
def test_agreement_by_hand(first, second, wanted):
    rows = np.array([first, first], dtype=np.float64), np.array([second, second], dtype=np.float64)
    assert kendall(*rows) == pytest.approx([wanted, wanted])


def test_agreement_is_scipys_tau_b():
    random = np.random.default_rng(0)
    first, second = random.integers(4, size=(30, 6)) / 4, random.integers(4, size=(30, 6)) / 4
    wanted = [kendalltau(one, other).statistic for one, other in zip(first, second, strict=True)]
    assert kendall(first, second) == pytest.approx(np.array(wanted), nan_ok=True)
    assert np.isnan(kendall(np.ones((1, 3)), np.arange(3.0)[None]))


def test_the_agreement_has_an_interval_from_the_draws_of_both_curves(tmp_path):
    study = study_of(tmp_path, cells_of(tmp_path))
    found = compare_probes(study)
    assert found.ranked == 4
    assert found.agreement.value == pytest.approx(4 / 6)
    assert found.agreement.low <= 4 / 6 < found.agreement.high == 1.0  # 200 and 400 tokens are near each other
    scores = study.draws.scores(None)
    tuned = [pair.finetuned for pair in found.checkpoints]
    probed = [pair.probe for pair in found.checkpoints]
    draws = [kendalltau(row[tuned], row[probed]).statistic for row in scores[:300]]
    assert np.mean(draws) == pytest.approx(np.mean(kendall(scores[:, tuned], scores[:, probed])), abs=0.05)


def test_far_apart_scores_agree_for_certain(tmp_path):
    agreement = compare_probes(study_of(tmp_path, cells_of(tmp_path, {0: 0.1, 100: 0.3, 200: 0.5, 400: 0.8}))).agreement
    assert agreement.value == agreement.high == 1.0


def test_a_probe_with_one_optimum_has_an_interval_of_its_examples_and_none_of_seeds(tmp_path):
    study = study_of(tmp_path, cells_of(tmp_path))
    column = next(c for c, key in enumerate(study.table.checkpoints) if key.has_one_optimum)
    assert study.table.grids[column].finetuning_seeds == (0,)
    assert not study.draws.finetuning[:, column].any()
    estimate = study.score(column)
    assert estimate.refused is None
    error = np.sqrt(estimate.value * (1 - estimate.value) / EXAMPLES)
    assert (estimate.high - estimate.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.1)
    scratch = next(c for c, key in enumerate(study.table.checkpoints) if key.control and key.kind == "scratch")
    assert study.draws.finetuning[:, scratch].any()
    # The seeds of scratch's probe help to estimate no spread of fine-tuning, and the other way round.
    groups = {(key.control, grid.group) for key, grid in zip(study.table.checkpoints, study.table.grids, strict=True)}
    assert groups == {(None, "labels"), (LINEAR_PROBE, LINEAR_PROBE)}


def test_an_interval_of_scratchs_probe_still_needs_its_seeds(tmp_path):
    study = study_of(tmp_path, cells_of(tmp_path, seeds=2))
    scratch = next(c for c, key in enumerate(study.table.checkpoints) if key.control and key.kind == "scratch")
    assert "interval needs 3" in study.score(scratch).refused
    assert "interval needs 3" in compare_probes(study).agreement.refused


def test_several_runs_vary_by_their_own_probes(tmp_path):
    study = study_of(tmp_path, cells_of(tmp_path, runs=3, seeds=1))
    column = next(c for c, key in enumerate(study.table.checkpoints) if key.has_one_optimum)
    assert study.table.grids[column].pretraining_seeds == (0, 1, 2)
    assert study.draws.pretraining[:, column].any()
    assert compare_probes(study).agreement.low is not None


def test_two_checkpoints_or_equal_scores_have_no_order(tmp_path):
    study = study_of(tmp_path, cells_of(tmp_path))
    pairs = [(pair.finetuned, pair.probe) for pair in compare_probes(study).checkpoints]
    assert "an order needs 3" in rank_agreement(study, pairs[:2]).refused
    equal = replace(study, draws=replace(study.draws, observed=np.full_like(study.draws.observed, 0.5)))
    assert "no order" in rank_agreement(equal, pairs).refused


def test_probes_are_no_part_of_the_gap_of_the_controls_and_of_the_failures(tmp_path):
    cells = cells_of(tmp_path)
    cells = [replace(cell, status="collapsed") if cell.control else cell for cell in cells]
    result = analyse_task(study_of(tmp_path, cells), Prices())
    without = analyse_task(study_of(tmp_path, [cell for cell in cells if not cell.control]), Prices())
    assert result.failures == without.failures
    assert result.warnings == without.warnings
    assert [curve.budgets for curve in result.curves] == [curve.budgets for curve in without.curves]
    assert result.gap.value == without.gap.value
    assert result.gap.low == pytest.approx(without.gap.low, abs=0.01)
    assert control_table(result) is None
    assert without.probe is None
    assert probe_chart(without) is None


def test_the_table_and_the_chart_show_both_with_what_they_cost(tmp_path):
    result = analyse_task(study_of(tmp_path, cells_of(tmp_path)), Prices())
    rows = probe_table(result).rows
    assert [row[0] for row in rows][:2] == ["scratch", "annealed at 100 tokens"]
    assert [row[3] for row in rows] == ["1 x 3", "1 x 1", "1 x 1", "1 x 1"]
    assert {row[5:] for row in rows} == {("15.0", "2.0")}
    names = [trace["name"] for trace in probe_chart(result)["data"] if trace.get("showlegend", True)]
    assert names == ["annealed", "scratch", "annealed, linear probe", "scratch, linear probe"]
