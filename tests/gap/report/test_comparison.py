"""Several runs side by side: paired, and honest about what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from chromium_page import chromium
from scipy.stats import ttest_ind
from simulated_scores import BUDGETS, SimulatedStudy, expected_score, series_rows, write_study

from gap.cells.store import Cell, append_score, read_scores
from gap.intervals.holm import holm
from gap.report.comparison import SCHEMA_VERSION, Comparison, Difference, RunSource, compare_runs
from gap.report.comparison_page import comparison_answers
from launch.report import main

DRAWS = 2000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for number, (name, middle) in enumerate((("slow", 9e5), ("fast", 3e5))):
        folder = tmp_path_factory.mktemp("runs") / name
        write_study(folder, middle=middle, raw=False, seed=10 * number)
        (folder / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": series_rows()}))
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def comparison(runs: list[Path]) -> Comparison:
    return compare_runs([RunSource.of(folder) for folder in runs], draws=DRAWS)


@pytest.mark.parametrize(
    "checkpoints", [None, {}, "series", [None], [{"path": "x"}], [{**series_rows()[0], "flops": "1"}]]
)
def test_checkpoints_that_no_run_wrote_are_refused_with_their_file(tmp_path: Path, checkpoints: object) -> None:
    (tmp_path / "scores.jsonl").write_text("")
    study = {"schema_version": 1, "checkpoints": checkpoints, "prices": {}, "commands": [], "notes": [], "cells": []}
    (tmp_path / "study.json").write_text(json.dumps(study))
    with pytest.raises(ValueError, match=r"study\.json: checkpoints.*run launch/gap\.py again"):
        RunSource.of(tmp_path)


def test_the_faster_run_needs_a_third_of_the_tokens(comparison: Comparison) -> None:
    half = next(one for one in comparison.differences if one.quantity.startswith("tokens to 50 %"))
    assert half.change.value == pytest.approx(1 / 3, rel=0.3)
    assert half.change.low is not None
    assert half.change.high is not None
    assert half.change.low < 1 / 3 < half.change.high < 1
    assert half.resolved


def test_rows_are_resolved_after_holms_correction_over_all_of_them(comparison: Comparison) -> None:
    """Of many differences of equal runs some are significant by chance: at most 1 in 20 comparisons may flag any."""
    tested = [one for one in comparison.differences if one.p_value is not None]
    assert len(tested) > 10
    adjusted = [one.adjusted_p_value for one in tested]
    assert adjusted == pytest.approx(holm([one.p_value for one in tested if one.p_value is not None]))
    assert [one.resolved for one in tested] == [p is not None and p <= 0.05 for p in adjusted]
    assert f"{len(tested)} differences are tested" in " ".join(comparison.notes)


def test_too_few_draws_for_so_many_rows_are_said(runs: list[Path]) -> None:
    found = compare_runs([RunSource.of(folder) for folder in runs], draws=200)
    assert not any(one.resolved for one in found.differences)
    assert "give --draws" in " ".join(found.notes)


def seeds_apart(folder: Path, first: list[float], second: list[float]) -> Difference:
    """The score of one budget in two runs of these fine-tuning seeds, its examples held fixed."""
    sources = []
    for name, scores in (("one", first), ("two", second)):
        path = folder / name / "scores.jsonl"
        for kind, budget, shift in (("raw", 0, -0.5), ("annealed", 1000, 0.0)):
            for seed, score in enumerate(scores):
                more = (1 if budget else 0.5) * score + shift * 0.1
                append_score(path, Cell(f"{name}{budget}{seed}", "qa", kind, budget, 0, seed, "accuracy", more))
        sources.append(RunSource(name, path))
    found = compare_runs(sources, draws=20_000)
    return next(one for one in found.differences if "1,000" in one.quantity)


def test_seeds_of_two_runs_are_compared_as_by_welch(tmp_path: Path) -> None:
    """Two Student's t of two degrees each would make the interval half as long again."""
    change = seeds_apart(tmp_path, [0.50, 0.52, 0.54], [0.60, 0.62, 0.64]).change
    welch = ttest_ind([0.60, 0.62, 0.64], [0.50, 0.52, 0.54], equal_var=False).confidence_interval(0.95)
    assert change.low is not None
    assert change.low >= welch.low - 0.002


def test_cells_that_both_runs_share_do_not_differ(tmp_path: Path) -> None:
    """One outside reference, scored once and copied: drawn twice, it was +0.0 [-10.7, +12.0]."""
    sources = []
    for name in ("one", "two"):
        study = SimulatedStudy(tmp_path / name, seed=3)
        study.add("qa", "reference", None, 0.9)
        study.random = np.random.default_rng(17 if name == "one" else 18)
        for budget, chance in ((0, 0.1), (1000, 0.6), (2000, 0.8)):
            study.add("qa", "annealed" if budget else "raw", budget, chance)
        sources.append(RunSource(name, study.scores))
    found = {one.quantity: one for one in compare_runs(sources, draws=DRAWS).differences}
    assert "score, reference" not in found  # nothing to compare, and no question to correct for
    assert found["score, annealed at 1,000 tokens"].change.low != 0.0


def tokenized(folder: Path, name: str, bytes_per_token: float | None) -> RunSource:
    """The same curve, counted in tokens of another tokenizer."""
    write_study(folder, raw=False, seed=1)
    rows = series_rows()
    for row in rows:
        row["tokenizer"] = name * 64
        if bytes_per_token is not None:
            row["text_bytes"] = round(bytes_per_token * row["tokens_seen"])
    (folder / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": rows}))
    return RunSource.of(folder)


def test_a_score_that_a_run_loses_again_has_no_price(tmp_path: Path) -> None:
    sources = []
    for name, chances in (("steady", (0.2, 0.5, 0.6, 0.7)), ("falling", (0.2, 0.7, 0.3, 0.35))):
        study = SimulatedStudy(tmp_path / name, seed=3)
        study.add("qa", "raw", 0, 0.1)
        for budget, chance in zip(BUDGETS, chances, strict=False):
            study.add("qa", "annealed", budget, chance)
        study.add("qa", "reference", None, 0.9, details={"model": "same"})
        sources.append(RunSource.of(tmp_path / name))
    found = compare_runs(sources, draws=DRAWS)
    ratios = [one for one in found.differences if one.unit == "ratio"]
    assert any(one.change.refused == "the score falls again" for one in ratios)
    assert not any("50 %" in one.quantity and one.change.low is not None for one in ratios)


def test_runs_of_two_tokenizers_are_compared_in_bytes_of_text(tmp_path: Path) -> None:
    runs = [tokenized(tmp_path / "long", "a", 4.0), tokenized(tmp_path / "short", "b", 2.0)]
    found = compare_runs(runs, draws=DRAWS)
    half = next(one for one in found.differences if one.quantity.startswith("bytes of text to 50 %"))
    assert half.change.value == pytest.approx(0.5)
    assert not any(one.quantity.startswith("tokens to") for one in found.differences)
    assert "equal tokens are not equal text" in " ".join(found.notes)
    unknown = compare_runs([runs[0], tokenized(tmp_path / "old", "c", None)], draws=DRAWS)
    assert not any(one.unit == "ratio" for one in unknown.differences)
    assert "is not compared" in " ".join(unknown.notes)
    alike = compare_runs([runs[0], tokenized(tmp_path / "alike", "a", 4.0)], draws=DRAWS)
    assert any(one.quantity.startswith("tokens to 50 %") for one in alike.differences)


def test_equal_scores_are_not_told_apart(comparison: Comparison) -> None:
    scratch = next(one for one in comparison.differences if (one.task, one.quantity) == ("qa", "score, scratch"))
    assert not scratch.resolved


def test_a_run_against_itself_differs_by_seeds_only(runs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.symlink_to(runs[0])
    sources = [RunSource("first", runs[0] / "scores.jsonl"), RunSource("second", copy / "scores.jsonl")]
    same = compare_runs(sources, draws=DRAWS)
    assert all(one.change.value == pytest.approx(1.0 if one.unit == "ratio" else 0.0) for one in same.differences)
    assert not any(one.resolved for one in same.differences)


def test_cells_that_are_not_of_a_runs_plan_are_not_compared(tmp_path: Path) -> None:
    sources = []
    for number, name in enumerate(("one", "two")):
        study = SimulatedStudy(tmp_path / name, seed=10 * number)
        for budget, chance in ((0, 0.1), (1000, 0.8)):
            study.add("qa", "annealed" if budget else "raw", budget, chance)
        planned = frozenset(cell.fingerprint for cell in read_scores(study.scores))
        study.add("qa", "annealed", 1000, 0.1, finetuning_seeds=9, status="collapsed")  # other options
        sources.append(RunSource(name, study.scores, planned=planned))
    scores = [one for one in compare_runs(sources, draws=DRAWS).differences if "1,000" in one.quantity]
    assert [one.baseline_value for one in scores] == [pytest.approx(0.8, abs=0.05)]


def ending_at(folder: Path, top: float, middle: float, reference: str | None = None) -> RunSource:
    """A run whose curve ends at `top`; `reference` is what the cells say of the outside checkpoint's weights."""
    study = SimulatedStudy(folder, seed=3)
    study.add("qa", "raw", 0, 0.15)
    for budget in BUDGETS:
        study.add("qa", "annealed", budget, expected_score(budget, top=top, middle=middle))
    if reference is not None:
        study.add("qa", "reference", None, 0.97, details={"model": reference})
    return RunSource.of(folder)


def test_shares_of_two_different_gaps_are_no_headline(tmp_path: Path) -> None:
    """A run that is far worse reaches 95 % of its own, smaller gap earlier: that is no advantage."""
    strong, weak = ending_at(tmp_path / "strong", 0.95, 9e5), ending_at(tmp_path / "weak", 0.45, 3e5)
    found = compare_runs([strong, weak], draws=DRAWS)
    shares = [one for one in found.differences if "% of" in one.quantity]
    assert shares
    assert not any(one.same_goal for one in shares)
    assert all("each run's own gap" in one.quantity for one in shares)
    assert "no outside reference in common" in " ".join(found.notes)
    (answer,) = comparison_answers(found)
    assert "score, annealed at 8,000,000 tokens, -4" in answer
    assert "of the gap" not in answer
    assert "own gap" not in answer
    scores = [one for one in found.differences if one.quantity.startswith("tokens to a score of")]
    assert len(scores) == 3
    assert all(one.same_goal for one in scores)
    assert scores[-1].change.value > 1.5  # the weak run needs more tokens to the best score that both have


@pytest.mark.parametrize(("other", "same"), [("a", True), ("b", False)])
def test_the_same_outside_reference_makes_shares_of_the_gap_comparable(tmp_path: Path, other: str, same: bool) -> None:
    runs = [ending_at(tmp_path / "one", 0.95, 9e5, "a"), ending_at(tmp_path / "two", 0.95, 3e5, other)]
    found = compare_runs(runs, draws=DRAWS)
    shares = [one for one in found.differences if "% of" in one.quantity]
    assert [one.same_goal for one in shares] == [same] * 3
    assert ("% of the gap" in comparison_answers(found)[0]) is same
    assert any("no outside reference in common" in note for note in found.notes) is not same


def beginning_at(folder: Path, kind: str, low: float, model: str = "m") -> RunSource:
    """A run of 3 seeds whose gap to one outside reference begins at this checkpoint: random, continued or counted."""
    study = SimulatedStudy(folder, seed=3)
    zero_shot = kind == "unigram"
    more = {"finetuning_seeds": 1, "pretraining_seeds": 3} if zero_shot else {}
    details = {"zero_shot": zero_shot}
    if zero_shot:  # frequencies decide the same pairs in every run
        for seed in range(3):
            study.random = np.random.default_rng(round(100 * low))
            control = {"control": "unigram", "finetuning_seeds": 1, "only_pretraining_seed": seed}
            study.add("qa", "raw", 0, low, details=details, **control)
    else:
        study.add("qa", "start" if kind == "start" else "raw", 0, low, details={**details, "model": model})
    for budget in BUDGETS[2:6]:
        study.add("qa", "annealed", budget, expected_score(budget, scratch=low), details=details, **more)
    study.add("qa", "reference", None, 0.97, details={**details, "model": "same"}, finetuning_seeds=3 - 2 * zero_shot)
    return RunSource.of(folder)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (("raw", 0.15), ("raw", 0.15), None),
        (("raw", 0.15), ("start", 0.5), "begin their gaps at your starting checkpoint and scratch"),
        (("start", 0.5), ("start", 0.5), None),
        (("start", 0.5), ("start", 0.3, "other"), "continue two checkpoints"),
        (("unigram", 0.4), ("unigram", 0.4), None),
        (("unigram", 0.4), ("unigram", 0.5), "unigram floors of two corpora or tokenizers"),
    ],
)
def test_gaps_that_begin_at_other_ends_are_no_common_goal(
    tmp_path: Path, first: tuple[str, float], second: tuple[str, float], said: str | None
) -> None:
    """A continued run reaches half of what its checkpoint left later than one from scratch half of everything."""
    found = compare_runs([beginning_at(tmp_path / "one", *first), beginning_at(tmp_path / "two", *second)], draws=400)
    shares = [one for one in found.differences if "% of" in one.quantity]
    assert [one.same_goal for one in shares] == [said is None] * 3
    notes = [note for note in found.notes if "so 0 % of the gap" in note]
    assert len(notes) == (said is not None)
    assert all(str(said) in note for note in notes)
    assert not any("unigram floor" in one.quantity for one in found.differences)


def test_other_examples_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    write_study(folder, raw=False)
    for file in (folder / "predictions").glob("*.json"):
        file.write_text(file.read_text().replace("question-1", "another-1"))
    found = compare_runs([RunSource.of(runs[0]), RunSource.of(folder)], draws=DRAWS)
    assert found.differences == ()
    assert "different examples" in " ".join(found.notes)


def test_the_command_writes_one_report_of_several_runs(runs: list[Path], tmp_path: Path) -> None:
    arguments = [str(folder) for folder in runs]
    assert main([*arguments, "--output_dir", str(tmp_path), "--draws", "200"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "fast against slow" in page
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["runs"] == ["slow", "fast"]
    assert content["schema_version"] == SCHEMA_VERSION


@pytest.mark.slow
def test_the_comparison_lives_in_a_browser(runs: list[Path], tmp_path: Path) -> None:
    assert main([*map(str, runs), "--output_dir", str(tmp_path), "--draws", "200"]) == 0
    with chromium() as driver:
        driver.get((tmp_path / "report.html").as_uri())
        assert driver.execute_script("return document.querySelectorAll('.chart .main-svg').length") >= 1
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        colours = set()
        for theme in ("light", "dark"):
            driver.execute_script(
                "const s = document.getElementById('theme'); s.value = arguments[0];"
                "s.dispatchEvent(new Event('change'));",
                theme,
            )
            page, line = driver.execute_script(
                "return [getComputedStyle(document.body).backgroundColor,"
                " document.getElementById('runs-0').data.find(t => t.name.startsWith('fast')).line.color]"
            )
            colours |= {page, line}
        assert len(colours) == 4  # page and curves follow the switch
        assert driver.get_log("browser") == []


def test_the_command_refuses_what_it_cannot_do(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder) for folder in runs]) == 2
    assert "--output_dir" in capsys.readouterr().err
    assert main([str(runs[0].parent / "nothing")]) == 2
    assert "scores.jsonl" in capsys.readouterr().err
