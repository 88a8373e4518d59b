"""From a scores file to the numbers that are reported, on made-up studies with known answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from simulated_scores import BUDGETS, SimulatedStudy, expected_score, series_rows, write_study

from gap.analysis.analysis import analyse, analysis_json
from gap.analysis.results import Analysis, TaskResult
from gap.analysis.tables.costs import Prices, converter, series_costs
from gap.analysis.tables.task_table import CheckpointKey, describe
from gap.cells.store import Cell, append_score
from gap.report.charts import available_units
from gap.report.page import write_report
from gap.report.tables import crossing_table
from gap.report.text import task_parts

DRAWS = 600


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    scores = write_study(tmp_path_factory.mktemp("study"))
    return analyse(scores, series=series_rows(kinds=("annealed", "raw")), prices=Prices(2.0), draws=DRAWS)


def task_of(analysis: Analysis, name: str) -> TaskResult:
    return next(task for task in analysis.tasks if task.task == name)


def test_the_crossing_of_the_made_up_curve_is_found(study: Analysis) -> None:
    curve = task_of(study, "qa").curves[0]
    half = curve.crossings[0]
    assert (curve.kind, half.level, half.state) == ("annealed", 0.5, "measured")
    # Half of the way to the largest budget, whose score is below the sigmoid's top and cut off at a perfect one.
    assert half.tokens == pytest.approx(6.6e5, rel=0.15)
    assert half.low is not None
    assert half.high is not None
    assert half.low < half.tokens < half.high < 1.5 * half.low
    hours = half.other_units["hours"][0]
    assert hours == pytest.approx(half.tokens / 20_000 / 3600, rel=0.01)
    assert half.other_units["money"][0] == pytest.approx(2.0 * hours)


def test_without_an_outside_reference_the_answer_is_of_this_series_gap(study: Analysis) -> None:
    task = task_of(study, "qa")
    assert task.reference_in_series
    assert "this series' gap" in task.answer
    assert "given this pretraining run" in task.answer
    assert [one.level for one in task.curves[0].crossings] == [0.5, 0.9, 0.95]


def test_the_trend_over_the_budgets_has_an_interval(tmp_path: Path) -> None:
    """Where the two ends alone resolve nothing, all budgets together may."""
    made = SimulatedStudy(tmp_path, num_examples=2000, num_clusters=2000)
    made.add("qa", "raw", 0, 0.5)
    for number, budget in enumerate(BUDGETS):
        made.add("qa", "annealed", budget, 0.5 + 0.01 * number)
    curve = analyse(made.scores, draws=DRAWS).tasks[0].curves[0]
    slope = curve.points_per_doubling
    assert slope is not None
    assert slope.low is not None
    assert slope.high is not None
    assert slope.low < 0.01 < slope.high
    assert slope.low > 0.0
    assert curve.budgets == (BUDGETS[0], BUDGETS[-1])
    write_report(analyse(made.scores, draws=DRAWS), tmp_path / "report")
    assert "points per doubling of the budget, annealed" in (tmp_path / "report" / "report.html").read_text()


def test_one_gap_of_many_tasks_is_judged_with_the_others(tmp_path: Path) -> None:
    """Of nine tasks without a gap, one that looks resolved by itself is what chance gives in a third of the studies."""
    random = np.random.default_rng(5)
    seen = set()
    for number in range(12):
        path = tmp_path / str(number) / "scores.jsonl"
        for task in "abcdefghi":
            for kind, budget in (("raw", 0), ("annealed", 1000)):
                for seed in range(3):
                    score = 0.5 + 0.02 * random.standard_normal()
                    append_score(path, Cell(f"{task}{budget}{seed}", task, kind, budget, 0, seed, "accuracy", score))
        for task in analyse(path, draws=4000).tasks:
            assert task.gap_p_value is not None
            assert task.gap_adjusted_p_value is not None
            alone, together = task.gap_p_value <= 0.05, task.gap_adjusted_p_value <= 0.05
            seen.add((alone, together))
            said = "by Holm's correction for their number" in task.answer
            assert said is (not task.gap.includes_zero and not together)
    assert (True, False) in seen


@pytest.mark.parametrize(("runs", "refused"), [(1, True), (3, False), (5, False)])
def test_one_finetuning_seed_suffices_where_there_are_several_runs(tmp_path: Path, runs: int, refused: bool) -> None:
    made = SimulatedStudy(tmp_path)
    made.add("qa", "raw", 0, 0.2, pretraining_seeds=runs, finetuning_seeds=1)
    for budget in BUDGETS[:2]:
        made.add("qa", "annealed", budget, 0.6, pretraining_seeds=runs, finetuning_seeds=1)
    gap = analyse(made.scores, draws=DRAWS).tasks[0].gap
    assert (gap.low is None) is refused
    assert gap.refused == ("1 fine-tuning seed: an interval needs 3" if refused else None)


def test_every_control_is_reported(study: Analysis) -> None:
    task = task_of(study, "qa")
    controls = {one.name: one for one in task.checkpoints if one.control}
    longer = controls["scratch, 8x epochs"]
    assert longer.gap_closed is not None
    assert longer.gap_closed.value < 0.2
    shuffled = next(one for name, one in controls.items() if "shuffled" in name)
    assert shuffled.gap_closed is not None
    assert shuffled.gap_closed.value < 0.05
    assert task.plateau is not None
    assert task.plan is not None
    assert any(one.state == "more_than_all" for one in task.labels)
    curve = task.curves[0]
    assert [one.multiple for one in (*curve.forecast, *curve.withheld)] == [2.0, 5.0, 10.0]
    assert curve.withheld[-1].reason.startswith("no budget lies 10 times above 4 others")
    assert [test.tokens for test in curve.backtests] == [BUDGETS[-3], BUDGETS[-1], BUDGETS[-2], BUDGETS[-1]]


def test_the_controls_say_whether_the_curve_can_be_believed(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    made.add("qa", "raw", 0, 0.1)
    made.add("qa", "raw", 0, 0.05, control="same_arguments")
    made.add("qa", "annealed", 1000, 0.7)
    made.add("qa", "annealed", 1000, 0.8, control="independent_run")
    made.add("qa", "annealed", 1000, 0.4, control="shuffled_labels")
    notes = " ".join(analyse(made.scores, draws=DRAWS).tasks[0].notes)
    assert "no verdict: with one pretraining run the spread of its seeds is unknown" in notes
    assert "something leaks" in notes
    assert re.search(r"same arguments .* the gap is \+6\d\.\d \[", notes)


def test_a_new_seed_is_expected_to_differ_as_much_as_the_seeds_of_the_branch_do(tmp_path: Path) -> None:
    """Nothing differs but the seeds: one verdict in twenty may say that it does, where one in five did."""
    alarms, studies = 0, 60
    for number in range(studies):
        random = np.random.default_rng(number)
        made = SimulatedStudy(tmp_path / str(number), seed=number)
        (tmp_path / str(number)).mkdir()
        made.add("qa", "raw", 0, 0.1, pretraining_seeds=3)
        for seed, shift in enumerate(random.normal(0.0, 0.08, 4)):
            own = {"control": "independent_run"} if seed == 3 else {}
            made.add("qa", "annealed", 1000, 0.6 + shift, only_pretraining_seed=seed, **own)
        notes = " ".join(analyse(made.scores, draws=200).tasks[0].notes)
        assert "how well the branch replaces it" in notes
        alarms += "which is resolved" in notes
    assert alarms <= 7  # of 60; the chance of more is under 3 % where 1 in 20 is false


def test_pretraining_that_lowers_the_score_is_said_to(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    made.add("qa", "raw", 0, 0.8)
    for budget in BUDGETS[:3]:
        made.add("qa", "annealed", budget, 0.5)
    study = analyse(made.scores, draws=DRAWS)
    task = study.tasks[0]
    assert not task.gap_resolved
    assert re.search(r"On qa pretraining lowers the score: .* minus scratch is -\d\d\.\d points \[-", task.answer)
    assert "given this pretraining run" in task.answer
    write_report(study, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Pretraining lowers the score here" in page
    assert "no gap to close" not in page


@pytest.mark.parametrize("chance", [-9.0, 9.0])
def test_answers_that_are_all_alike_have_an_interval(tmp_path: Path, chance: float) -> None:
    made = SimulatedStudy(tmp_path, num_examples=200, num_clusters=100)
    made.add("qa", "raw", 0, chance)
    made.add("qa", "annealed", 1000, 0.6)
    score = next(one for one in analyse(made.scores, draws=DRAWS).tasks[0].checkpoints if one.kind == "scratch").score
    assert score.value == (chance > 0)
    assert score.low is not None
    assert score.high is not None
    assert score.high - score.low == pytest.approx(1 - 0.025 ** (1 / 100))  # 3.6 points of 100 paragraphs


def test_shuffled_labels_without_an_interval_are_not_judged(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    for kind, budget, chance in (("raw", 0, 0.1), ("annealed", 1000, 0.5)):
        for control in (None, "shuffled_labels"):
            made.add("qa", kind, budget, chance, control=control, finetuning_seeds=2)
    notes = " ".join(analyse(made.scores, draws=DRAWS).tasks[0].notes)
    assert "no verdict, since there is no interval (2 fine-tuning seeds" in notes
    assert "as it should be" not in notes


def test_failed_runs_are_counted_and_stay_in_the_mean(study: Analysis) -> None:
    scratch = next(one for one in task_of(study, "classification").checkpoints if one.kind == "scratch")
    assert (scratch.failed_runs, scratch.runs) == (3, 3)
    assert scratch.score.value == pytest.approx(np.mean([dot.score for dot in scratch.dots]))


def test_failed_and_torn_runs_are_warned_of(study: Analysis, tmp_path: Path) -> None:
    task = task_of(study, "classification")
    assert task.failures.failed == 3
    (warning,) = task.warnings
    assert warning.startswith("scratch: 3 of 3 runs failed. Where some runs fail")
    assert task_of(study, "qa").warnings == ()
    write_report(study, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert warning[:30] in page
    assert f"3 of 6 runs failed, {task.failures}" in page


def test_the_analysis_is_strict_json(study: Analysis) -> None:
    parsed = json.loads(analysis_json(study))
    assert parsed["schema_version"] == 1
    assert {task["task"] for task in parsed["tasks"]} == {"qa", "classification"}


def test_two_seeds_give_scores_but_no_interval(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    made.add("qa", "raw", 0, 0.1, finetuning_seeds=2)
    for budget in BUDGETS[:4]:
        made.add("qa", "annealed", budget, expected_score(budget), finetuning_seeds=2)
    task = analyse(made.scores, draws=DRAWS).tasks[0]
    assert task.gap.value > 0.1
    assert task.gap.low is None
    assert "2 fine-tuning seeds: an interval needs 3" in task.answer
    assert all(one.score.low is None for one in task.checkpoints)


def test_no_gap_is_said_to_be_none(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    for kind, budget in (("raw", 0), *(("annealed", 1000 * 2**step) for step in range(6))):
        made.add("qa", kind, budget, 0.5)
    task = analyse(made.scores, draws=DRAWS).tasks[0]
    assert not task.gap_resolved
    assert (task.curves[0].forecast, task.curves[0].backtests) == ((), ())  # noise has no trend to follow
    assert "no gap to close" in task.answer
    assert all(one.gap_closed is None for one in task.checkpoints)


def test_an_outside_reference_has_a_99_percent_row_and_says_what_is_mixed(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    made.add("qa", "raw", 0, 0.1, pretraining_seeds=3)
    for budget in BUDGETS:
        made.add("qa", "annealed", budget, 0.8 * expected_score(budget), pretraining_seeds=3)
    made.add("qa", "reference", None, 0.97)
    task = analyse(made.scores, draws=DRAWS).tasks[0]
    assert not task.reference_in_series
    assert task.conditional is None
    levels = {one.level: one for one in task.curves[0].crossings}
    assert levels[0.99].state == "not_reached"
    assert levels[0.99].tokens is None
    assert any("mixes architecture" in note for note in task.notes)


def test_what_was_reached_before_the_first_budget_is_censored_below(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    made.add("qa", "raw", 0, 0.1)
    for budget, chance in zip(BUDGETS, (0.8, 0.85, 0.9, 0.9, 0.9, 0.9, 0.9), strict=True):
        made.add("qa", "annealed", budget, chance)
    task = analyse(made.scores, draws=DRAWS).tasks[0]
    half = task.curves[0].crossings[0]
    assert (half.state, half.tokens, half.low_open) == ("already_reached", None, True)


def test_what_is_found_in_the_corpus_after_the_cells_reaches_the_report(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    for kind, budget in (("raw", 0), ("annealed", 1000)):
        made.add("qa", kind, budget, 0.5)
    first = analyse(made.scores, draws=DRAWS)
    assert "was not searched for the scored texts: no search is on record" in write_report(first, tmp_path).read_text()
    (tmp_path / "contamination").mkdir()
    path = tmp_path / "contamination" / "qa.json"
    for ids, told in (([], "was searched: no scored text"), (["question-3", "question-4", "gone"], "2 examples have")):
        path.write_text(json.dumps({"schema_version": 1, "data": "x", "corpus": ["y"], "ids": ids}))
        found = analyse(made.scores, draws=DRAWS)
        assert told in write_report(found, tmp_path).read_text()
    assert found.tasks[0].contaminated_examples == 2
    assert found.tasks[0].checkpoints[0].score_without_contaminated is not None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "was searched: no scored text was found in it."),
        ({"texts": 2, "too_short": 0}, "was searched: no scored text was found in it."),
        ({"texts": 3, "too_short": 1}, "was found in it. 1 text has fewer than 13 tokens and was not searched for."),
        ({"texts": 9, "too_short": 9}, "was not searched for the scored texts: all have fewer than 13 tokens."),
    ],
    ids=["a record without counts", "all searched", "one too short", "all too short"],
)
def test_texts_too_short_to_be_searched_for_are_not_called_searched(
    tmp_path: Path, more: dict[str, int], said: str
) -> None:
    study = SimulatedStudy(tmp_path)
    study.add("qa", "raw", 0, 0.2)
    study.add("qa", "annealed", 1_000_000, 0.8)
    (tmp_path / "contamination").mkdir()
    record = {"schema_version": 1, "data": "d", "corpus": ["c"], "ids": [], **more}
    (tmp_path / "contamination" / "qa.json").write_text(json.dumps(record))
    found = analyse(study.scores, draws=100)
    parts = task_parts(found.tasks[0], found, [])
    assert next(part.text for part in parts if part.heading == "Contamination").endswith(said)


def test_the_score_without_contaminated_examples_stands_beside_it(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    made.add("qa", "raw", 0, 0.1)
    made.add("qa", "annealed", 1000, 0.6)
    for file in (tmp_path / "predictions").glob("*.json"):
        content = json.loads(file.read_text())
        for example in content["examples"][:40]:
            example.update(contaminated=True, score=1.0)
        file.write_text(json.dumps(content))
    task = analyse(made.scores, draws=DRAWS).tasks[0]
    assert task.contaminated_examples == 40
    scratch = task.checkpoints[0]
    assert scratch.score_without_contaminated is not None
    assert scratch.score_without_contaminated < 0.2


def test_scratch_is_required(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    made.add("qa", "annealed", 1000, 0.6)
    with pytest.raises(ValueError, match="budget 0"):
        analyse(made.scores, draws=DRAWS)


def test_one_run_of_any_budget_makes_the_intervals_those_of_that_run(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    for budget, runs in ((0, 3), (1000, 3), (2000, 1)):
        made.add("qa", "annealed" if budget else "raw", budget, 0.1 + budget / 4000, pretraining_seeds=runs)
    assert analyse(made.scores, draws=DRAWS).tasks[0].conditional == "given this pretraining run"
    for seed_count in (1, 2):  # an outside reference has one run, always: its note says so
        made = SimulatedStudy(tmp_path / str(seed_count))
        for kind, budget, runs in (("raw", 0, seed_count), ("annealed", 1000, seed_count), ("reference", None, 1)):
            made.add("qa", kind, budget, 0.1 if budget == 0 else 0.6, pretraining_seeds=runs)
        conditional = analyse(made.scores, draws=DRAWS).tasks[0].conditional
        assert (conditional is not None) == (seed_count == 1)


def test_intervals_of_another_confidence_say_so_in_the_answer(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    for kind, budget in (("raw", 0), ("annealed", 1000), ("annealed", 2000)):
        made.add("qa", kind, budget, 0.3)
    analysis = analyse(made.scores, draws=DRAWS, confidence=0.9875)
    assert not analysis.tasks[0].gap_resolved
    assert analysis.tasks[0].conditional == "of 98.75 % confidence, given this pretraining run"
    assert analysis.tasks[0].answer.endswith("] (of 98.75 % confidence, given this pretraining run).")


def test_the_planner_plans_for_a_gap_that_is_not_resolved(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    for kind, budget, chance in (("raw", 0, 0.5), ("annealed", 1000, 0.52)):
        made.add("qa", kind, budget, chance)
    analysis = analyse(made.scores, draws=DRAWS)
    (task,) = analysis.tasks
    assert not task.gap_resolved
    assert task.plan is not None
    assert task.plan.difference == pytest.approx(task.gap.value) != 0.01
    assert "scratch and annealed at 1,000 tokens, the difference that was observed," in task.plan.between
    assert task.plan.between in write_report(analysis, tmp_path).read_text()
    asked = analyse(made.scores, draws=DRAWS, resolve=0.02).tasks[0].plan
    assert asked is not None
    assert (asked.difference, asked.between) == (0.02, "scratch and annealed at 1,000 tokens")


def test_device_hours_count_the_devices_of_the_series(tmp_path: Path) -> None:
    rows = series_rows(seeds=2)
    with_devices = [{**row, "devices": 2 + 4 * row["pretraining_seed"]} for row in rows]
    hours = BUDGETS[-1] / 20_000 / 3600
    for given, devices, expected in ((rows, None, 1), (with_devices, None, 4), (with_devices, 8, 8)):
        cost = series_costs(given, Prices(2.0, devices=devices))[len(BUDGETS) - 1]
        assert (cost.hours, cost.money) == (pytest.approx(expected * hours), pytest.approx(2.0 * expected * hours))
    made = SimulatedStudy(tmp_path)
    for kind, budget in (("raw", 0), ("annealed", BUDGETS[0])):
        made.add("qa", kind, budget, 0.5)
    analyses = [analyse(made.scores, series=given, draws=200) for given in (rows, with_devices)]
    told = [any("--devices" in note for note in one.notes) for one in analyses]
    assert told == [True, False]


def test_budgets_are_also_given_in_bytes_of_text(tmp_path: Path) -> None:
    """Two runs whose tokenizers make 4 and 2 bytes a token have an axis in common; earlier series have none."""
    write_study(tmp_path)
    rows = series_rows(kinds=("annealed", "raw"))
    for per_token in (4.0, 2.0):
        own = [{**row, "text_bytes": per_token * row["budget_tokens"], "tokenizer": f"t{per_token}"} for row in rows]
        task = task_of(analyse(tmp_path / "scores.jsonl", series=own, draws=DRAWS), "qa")
        half = task.curves[0].crossings[0]
        assert half.tokens is not None
        assert half.other_units["text_bytes"][0] == pytest.approx(per_token * half.tokens)
        cost = next(one.cost for one in task.checkpoints if one.kind == "annealed" and one.control is None)
        assert cost is not None
        assert (cost.text_bytes, cost.tokenizer) == (per_token * BUDGETS[0], f"t{per_token}")
        assert "text_bytes" in available_units(task, priced=False)
        assert "bytes of text" in crossing_table(task, "$", priced=False).header
    earlier = task_of(analyse(tmp_path / "scores.jsonl", series=rows, draws=DRAWS), "qa")
    assert "text_bytes" not in available_units(earlier, priced=False)
    assert "bytes of text" not in crossing_table(earlier, "$", priced=False).header


def test_draws_of_tokens_are_converted_together_and_stay_unbounded(tmp_path: Path) -> None:
    costs = series_costs([{**row, "text_bytes": 3.0 * row["budget_tokens"]} for row in series_rows()], Prices())
    convert = converter(costs, "annealed", "text_bytes")
    assert convert is not None
    tokens = np.array([0.0, BUDGETS[0], 3e5, BUDGETS[-1], np.inf])
    assert convert(tokens) == pytest.approx(3.0 * tokens)
    assert converter(costs, "raw", "text_bytes") is None


@pytest.mark.parametrize(("share", "words"), [(0.125, "1/8 of"), (1 / 3, "1/3 of"), (0.3, "0.3 of"), (0.75, "0.75 of")])
def test_a_share_of_the_labels_is_a_fraction_where_it_is_one(share: float, words: str) -> None:
    assert describe(CheckpointKey("scratch", 0, "fewer_labels", share)) == f"scratch, {words} the labels"


def test_no_interval_of_a_difference_is_wider_than_differences_can_be(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    for budget, scores in ((0, (0.0, 1.0, 0.0)), (100, (0.5, 0.5, 0.5)), (200, (1.0, 0.0, 1.0))):
        for seed, score in enumerate(scores):
            kind = "annealed" if budget else "raw"
            append_score(path, Cell(f"{budget}-{seed}", "qa", kind, budget, 0, seed, "exact_match", score))
    gap = analyse(path, draws=DRAWS).tasks[0].gap
    assert gap.low is not None
    assert gap.high is not None
    assert -1.0 <= gap.low < 0.0 < gap.high <= 1.0


@pytest.mark.parametrize(("number", "few"), [(19, True), (100, False)])
def test_the_report_says_what_the_clusters_are_and_whether_they_are_few(tmp_path: Path, number: int, few: bool) -> None:
    made = SimulatedStudy(tmp_path, num_clusters=number)
    for kind, budget, chance in (("raw", 0, 0.3), ("annealed", 1000, 0.8)):
        made.add("qa", kind, budget, chance, details={"clusters": "article"})
    analysis = analyse(made.scores, draws=DRAWS)
    said = any("of 19 articles: intervals from fewer than 20 are too short" in note for note in analysis.tasks[0].notes)
    assert said is few
    write_report(analysis, tmp_path / "report")
    assert f"400 examples in {number} articles" in (tmp_path / "report" / "report.html").read_text()
