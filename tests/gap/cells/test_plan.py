"""The plan: which cells there are, which there are not, and what is refused."""

from collections import Counter

import pytest

from gap.cells.plan import (
    SELF_PRETRAINED,
    CellSource,
    Controls,
    PlannedCell,
    Search,
    make_plan,
    problems_of,
    reference_sources,
    sources_of,
)
from gap.cells.search.grid import Grid

SERIES = [
    {"path": f"/s/{seed}/{kind}-{budget}", "kind": kind, "budget_tokens": float(budget), "pretraining_seed": seed}
    for seed in (0, 1)
    for kind, budget in [("raw", 0), *((kind, budget) for budget in (10, 20) for kind in ("raw", "annealed"))]
]


def test_cells_are_the_product_of_checkpoints_tasks_and_seeds():
    sources = sources_of(SERIES, ["annealed", "raw"])
    plan = make_plan(sources, ["a", "b"], finetuning_seeds=4, grid=Grid())
    assert len(plan.cells) == 2 * 5 * 2 * 4
    assert len(set(plan.cells)) == len(plan.cells)
    assert not plan.searches  # one learning rate: nothing to choose
    annealed = make_plan(sources_of(SERIES, ["annealed"]), ["a"], finetuning_seeds=1, grid=Grid())
    assert Counter(cell.setting.source.kind for cell in annealed.cells) == {"raw": 2, "annealed": 4}


def test_every_setting_has_the_same_search_scratch_included():
    grid = Grid((1e-3, 2e-3), (1.0, 3.0))
    plan = make_plan(
        sources_of(SERIES, ["annealed"]), ["a"], finetuning_seeds=3, grid=grid,
        controls=Controls((2.0,), (0.5,), shuffled_labels=True),
    )  # fmt: skip
    tries = Counter(search.setting for search in plan.searches)
    assert set(tries) == set(plan.settings)
    assert set(tries.values()) == {4}
    order = list(plan.jobs())
    assert Counter(order) == Counter([*plan.searches, *plan.cells])
    for cell in plan.cells:
        assert all(order.index(one) < order.index(cell) for one in plan.searches if one.setting == cell.setting)


def test_controls_are_run_where_they_say_something():
    controls = Controls((2.0, 4.0), (0.25, 1.0), shuffled_labels=True)
    sources = [*sources_of(SERIES, ["annealed"]), *reference_sources("bert")]
    plan = make_plan(sources, ["a"], tasks_at_ends=["z"], finetuning_seeds=1, grid=Grid(), controls=controls)
    count = Counter(cell.control for cell in plan.cells)
    assert count["scratch_longer"] == 2 * 2
    assert count["fewer_labels"] == 2 * 2  # scratch and the largest budget of two runs; all labels are no control
    assert count["shuffled_labels"] == 2 * 2
    longer = [cell for cell in plan.cells if cell.control == "scratch_longer"]
    assert all(cell.setting.source.is_scratch for cell in longer)
    ends = [cell.setting.source for cell in plan.cells if cell.setting.task == "z"]
    assert Counter(one.kind for one in ends) == {"raw": 2, "reference": 1, "reference_scratch": 1}


def test_a_reference_beside_runs_of_one_seed_has_as_many_seeds_as_there_are_runs():
    series = [{**row, "pretraining_seed": seed} for row in SERIES if row["pretraining_seed"] == 0 for seed in range(5)]
    sources = [*sources_of(series, ["annealed"]), *reference_sources("bert")]
    plan = make_plan(sources, ["a"], finetuning_seeds=1, grid=Grid())
    seeds = Counter((cell.setting.source.kind, cell.setting.source.pretraining_seed) for cell in plan.cells)
    assert seeds["reference", 0] == seeds["reference_scratch", 0] == 5
    assert seeds["raw", 3] == 1
    assert problems_of(plan, intervals=True) == []  # five runs make an interval
    assert len(problems_of(make_plan(sources[:1], ["a"], finetuning_seeds=1, grid=Grid()), intervals=True)) == 2


def test_one_task_may_have_more_seeds_than_another():
    sources = sources_of(SERIES, ["annealed"])
    plan = make_plan(sources, ["a", "b"], finetuning_seeds=5, task_seeds={"a": 3}, grid=Grid())
    assert {cell.finetuning_seed for cell in plan.cells if cell.setting.task == "a"} == {0, 1, 2}
    assert {cell.finetuning_seed for cell in plan.cells if cell.setting.task == "b"} == set(range(5))


def test_a_zero_shot_task_has_a_cell_for_every_checkpoint_and_the_floor_of_every_run():
    controls = Controls((2.0,), (0.5,), shuffled_labels=True, same_arguments=True)
    sources = [*sources_of(SERIES, ["annealed"]), *reference_sources("bert")]
    own = {"tasks_at_ends": ["z"], "finetuning_seeds": 3, "grid": Grid((1.0, 2.0)), "controls": controls}
    plan = make_plan(sources, ["a", "p"], zero_shot=["p", "z"], **own)
    places = [
        (cell.setting.source.budget_tokens, cell.setting.source.pretraining_seed, cell.control)
        for cell in plan.cells
        if cell.setting.task == "p"
    ]
    expected = [(budget, seed, None) for seed in (0, 1) for budget in (0, 10, 20)]
    assert sorted(places, key=str) == sorted(
        [*expected, (None, 0, None), (0, 0, "unigram"), (0, 1, "unigram")], key=str
    )
    ends = Counter((cell.setting.source.kind, cell.control) for cell in plan.cells if cell.setting.task == "z")
    assert ends == {("raw", None): 2, ("raw", "unigram"): 2, ("reference", None): 1}
    assert all(cell.zero_shot == (cell.setting.task in ("p", "z")) for cell in plan.cells)
    assert {cell.finetuning_seed for cell in plan.cells if cell.zero_shot} == {0}
    assert {search.setting.task for search in plan.searches} == {"a"}
    without = make_plan(sources, ["a"], **{**own, "tasks_at_ends": []})
    assert [cell for cell in plan.cells if cell.setting.task == "a"] == list(without.cells)
    assert plan.searches == without.searches


def test_a_run_on_the_texts_of_one_task_is_scored_on_no_zero_shot_task():
    own = CellSource("/own", "annealed", 20, 7, control=SELF_PRETRAINED, task="a")
    plan = make_plan(
        [*sources_of(SERIES, ["annealed"]), own], ["a", "p"], zero_shot=["p"], finetuning_seeds=1, grid=Grid()
    )
    assert [cell.setting.task for cell in plan.cells if cell.control == SELF_PRETRAINED] == ["a"]


def test_a_zero_shot_task_needs_three_pretraining_runs_for_an_interval():
    for runs, refused in ((1, True), (2, True), (3, False)):
        series = [{**row, "pretraining_seed": seed} for row in SERIES[:5] for seed in range(runs)]
        plan = make_plan(
            sources_of(series, ["annealed"]), ["p"], zero_shot=["p"], finetuning_seeds=1, grid=Grid((1.0, 2.0))
        )
        problems = problems_of(plan, intervals=True)
        assert len(problems) == refused
        assert all("3 series.json of pretraining runs of different --seed" in problem for problem in problems)
        assert not problems_of(plan, intervals=False)
        assert not plan.searches


def test_what_cannot_answer_is_refused():
    with pytest.raises(ValueError, match="budget 0"):
        sources_of([row for row in SERIES if row["budget_tokens"]], ["raw"])
    with pytest.raises(ValueError, match="no annealed"):
        sources_of([row for row in SERIES if row["kind"] == "raw"], ["annealed"])
    with pytest.raises(ValueError, match="no final checkpoint"):
        sources_of(SERIES, ["final"])
    for wrong in ({"scratch_longer": (1.0,)}, {"label_fractions": (0.0,)}, {"label_fractions": (2.0,)}):
        with pytest.raises(ValueError, match="--"):
            Controls(**wrong)
    with pytest.raises(ValueError, match="above 0"):
        Grid((0.0,), (1.0,))
    scratch = CellSource("/s", "raw", 0)
    plan = make_plan([scratch], ["a"], finetuning_seeds=2, grid=Grid())
    problems = problems_of(plan, intervals=True)
    assert len(problems) == 2
    assert "an interval needs 3" in problems[0]
    assert "two ends" in problems[1]
    assert len(problems_of(plan, intervals=False)) == 1


def test_jobs_of_different_kinds_are_told_apart():
    plan = make_plan(sources_of(SERIES, ["annealed"]), ["a"], finetuning_seeds=1, grid=Grid((1.0, 2.0)))
    kinds = [type(job) for job in plan.jobs()]
    assert kinds[:3] == [Search, Search, PlannedCell]
