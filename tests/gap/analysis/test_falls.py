"""Scores that fall again at a later budget: what is said to be closed, lost, and closed again."""

from __future__ import annotations

import re
from pathlib import Path

from simulated_scores import BUDGETS, SimulatedStudy

from gap.analysis.analysis import analyse
from gap.analysis.wording import interval_text
from gap.report.page import write_report

DRAWS = 600


def test_a_score_that_falls_again_has_no_crossing_above_what_it_keeps(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    made.add("qa", "raw", 0, 0.31)
    for budget, chance in zip(BUDGETS, (0.35, 0.5, 0.92, 0.59, 0.7, 0.7, 0.7), strict=True):
        made.add("qa", "annealed", budget, chance)
    made.add("qa", "reference", None, 0.92)
    task = analyse(made.scores, draws=DRAWS).tasks[0]
    states = {one.level: (one.state, one.tokens) for one in task.curves[0].crossings}
    assert states[0.9] == states[0.95] == ("lost_again", None)
    (note,) = [note for note in task.notes if "the score falls again" in note]
    assert note.count(" points against annealed at 500,000 tokens") == 4
    assert note.count("A share that is lost there") == 1
    drawn = dict(task.curves[0].line)
    assert max(drawn.values()) > 0.95  # the line shows the score that was lost
    assert "0.95" not in task.answer
    assert "95 %" not in task.answer
    write_report(analyse(made.scores, draws=DRAWS), tmp_path / "report")
    assert "lost again at a later budget" in (tmp_path / "report" / "report.html").read_text()


def test_shares_that_were_never_closed_are_not_lost_and_those_closed_again_are_closed(tmp_path: Path) -> None:
    def states(folder: Path, chances: tuple[float, ...], reference: float) -> dict[float, tuple[str, float | None]]:
        made = SimulatedStudy(folder)
        folder.mkdir()
        made.add("qa", "raw", 0, 0.1)
        for budget, chance in zip(BUDGETS, chances, strict=False):
            made.add("qa", "annealed", budget, chance)
        made.add("qa", "reference", None, reference)
        (curve,) = analyse(made.scores, draws=DRAWS).tasks[0].curves
        return {one.level: (one.state, one.tokens) for one in curve.crossings}

    lost = states(tmp_path / "lost", (0.2, 0.65, 0.4, 0.42), 0.95)
    assert lost[0.5][0] == "lost_again"
    assert lost[0.9] == lost[0.99] == ("not_reached", None)
    again = states(tmp_path / "again", (0.2, 0.8, 0.4, 0.5, 0.9), 0.9)
    assert again[0.5][0] == again[0.9][0] == "measured"
    assert again[0.5][1] is not None
    assert again[0.5][1] > BUDGETS[2]  # after the fall, not before it


def test_a_flat_curve_has_no_dip(tmp_path: Path) -> None:
    found = 0
    for number in range(20):
        made = SimulatedStudy(tmp_path / str(number), seed=number, num_examples=200)
        (tmp_path / str(number)).mkdir()
        made.add("qa", "raw", 0, 0.1)
        for budget in BUDGETS:
            made.add("qa", "annealed", budget, 0.7)
        notes = " ".join(analyse(made.scores, draws=400).tasks[0].notes)
        found += "the score falls again" in notes
    assert found <= 4


def test_a_level_that_is_not_reached_is_said_with_what_the_largest_budget_closes(tmp_path: Path) -> None:
    study = SimulatedStudy(tmp_path, num_examples=2000, num_clusters=2000)
    for kind, budget, chance in (("raw", 0, 0.2), ("annealed", 1000, 0.25), ("annealed", 2000, 0.35)):
        study.add("qa", kind, budget, chance)
    study.add("qa", "reference", None, 0.9)
    (task,) = analyse(study.scores, draws=400).tasks
    assert re.search(r"50 % of the gap on qa to reference is not reached by 2e3 tokens, which close 2\d %", task.answer)
    assert [interval_text(one) for one in task.curves[0].crossings][-1] == "[not reached]"
