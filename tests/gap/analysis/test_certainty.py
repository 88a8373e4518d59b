"""Loss and calibration of checkpoints: the draws of the score, intervals, differences to scratch, and the report."""

from __future__ import annotations

import csv
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_scores import BUDGETS, SimulatedStudy

from gap.analysis.analysis import analyse, read_studies
from gap.analysis.certainty import measure_checkpoints
from gap.analysis.tables.costs import Prices
from gap.intervals.bootstrap import Resampling
from gap.measures.certainty import certainty_of
from gap.report.page import write_report

DRAWS = 600


def made_study(folder: Path, confidence: float | None = 0.9) -> SimulatedStudy:
    """Scratch is as sure as the others and right less often."""
    made = SimulatedStudy(folder)
    made.add("qa", "raw", 0, 0.4, confidence=confidence)
    for budget, chance in zip(BUDGETS[:3], (0.5, 0.7, 0.85), strict=True):
        made.add("qa", "annealed", budget, chance, confidence=confidence)
    return made


def test_a_measure_that_equals_the_score_has_the_interval_of_the_score(tmp_path: Path) -> None:
    scores = made_study(tmp_path, None).scores
    resampling = Resampling(DRAWS)
    studies, _ = read_studies(scores, series=None, prices=Prices(), resampling=resampling, confidence=0.95)
    study = studies[0]
    assert study.table.examples is not None
    as_loss = [
        [{"score": 0.0, "gold_log_probability": -float(one)} for one in row] for row in study.table.examples.scores
    ]
    names = [f"paragraph-{int(name.split('-')[1]) % 100}" for name in study.table.examples.ids]
    clusters = np.unique(names, return_inverse=True)[1]
    examples = replace(study.table.examples, certainty=certainty_of(as_loss, clusters))
    study = replace(study, table=replace(study.table, examples=examples))
    measured = measure_checkpoints(study, replace(resampling, example_stream=zlib.crc32(b"qa")))
    for column, own in enumerate(measured):
        expected = study.score(column)
        found = own["loss"].value
        assert (found.value, found.low, found.high) == pytest.approx(
            (expected.value, expected.low, expected.high), abs=1e-6
        )
    gap = measured[-1]["loss"].against_scratch
    expected = study.difference(len(measured) - 1, study.scratch)
    assert gap is not None
    assert (gap.low, gap.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_loss_and_calibration_are_compared_with_scratch(tmp_path: Path) -> None:
    scratch, *others = analyse(made_study(tmp_path).scores, draws=DRAWS).tasks[0].checkpoints
    assert set(scratch.measures) == {"loss", "brier_score", "overconfidence"}
    assert all(measured.against_scratch is None for measured in scratch.measures.values())
    over = scratch.measures["overconfidence"].value
    assert over.low is not None
    assert over.value == pytest.approx(0.9 - scratch.score.value)
    assert 0.4 < over.low < over.value
    best = others[-1].measures
    for name in best:
        change = best[name].against_scratch
        assert change is not None
        assert change.is_below_zero
    assert best["overconfidence"].value.includes_zero or abs(best["overconfidence"].value.value) < 0.1
    right = others[-1].score.value
    expected = -right * np.log(0.9) - (1 - right) * np.log(0.1)
    assert best["loss"].value.value == pytest.approx(expected, abs=1e-5)


def test_the_report_gives_them_to_readers_and_machines(tmp_path: Path) -> None:
    analysis = analyse(made_study(tmp_path).scores, draws=DRAWS)
    write_report(analysis, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Loss and calibration" in page
    rows = list(csv.DictReader((tmp_path / "report" / "curve.csv").open()))
    assert rows[0]["loss_minus_scratch"] == ""
    assert float(rows[0]["loss_low"]) < float(rows[0]["loss"]) < float(rows[0]["loss_high"])
    assert float(rows[-1]["brier_score_minus_scratch_high"]) < 0


def test_without_the_fields_the_rows_are_absent(tmp_path: Path) -> None:
    analysis = analyse(made_study(tmp_path, None).scores, draws=DRAWS)
    assert all(not checkpoint.measures for checkpoint in analysis.tasks[0].checkpoints)
    write_report(analysis, tmp_path / "report")
    assert "Loss and calibration" not in (tmp_path / "report" / "report.html").read_text()
    assert {row["loss"] for row in csv.DictReader((tmp_path / "report" / "curve.csv").open())} == {""}


def test_two_seeds_give_measures_without_intervals(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    for kind, budget in (("raw", 0), ("annealed", 1000)):
        made.add("qa", kind, budget, 0.5, finetuning_seeds=2, confidence=0.8)
    own = analyse(made.scores, draws=DRAWS).tasks[0].checkpoints[1].measures["loss"]
    assert (own.value.low, own.value.refused) == (None, "2 fine-tuning seeds: an interval needs 3")
