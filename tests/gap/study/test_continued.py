"""A study of a series that continues a checkpoint: budget 0 is that checkpoint, and scratch stands beside it."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from simulated_scores import BUDGETS, SimulatedStudy, expected_score, series_rows
from tiny_gap import tiny_experiment, tiny_jobs, write_series, write_tasks

from gap.analysis.analysis import analyse
from gap.analysis.tables.costs import Prices
from gap.cells.job_list import read_jobs, write_jobs
from gap.cells.plan import Controls, make_plan, problems_of, sources_of
from gap.cells.search.grid import Grid
from gap.report.charts import score_chart
from gap.report.page import write_report
from gap.study.experiment import series_rows as rows_of
from pretraining.checkpoints.series import read_series
from pretraining.publishing.publication import started_from

START = {"started_from": "models/encoder", "started_digest": "ab" * 32}


def continued(folder, seed=0, **changes):
    """A series with the fields of a run that continued a checkpoint."""
    path = write_series(folder, seed=seed)
    content = json.loads(path.read_text())
    for row in content["checkpoints"]:
        row.update({**START, **changes})
    path.write_text(json.dumps(content))
    return path


def series(seeds=1):
    return [{**row, **START} for row in series_rows(seeds=seeds)]


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    """Scratch at 15 %, the checkpoint at 50 %, and further pretraining from 50 to 90 %."""
    made = SimulatedStudy(tmp_path_factory.mktemp("study"))
    made.add("qa", "start", 0, 0.5)
    made.add("qa", "raw", 0, 0.15)
    made.add("qa", "raw", 0, 0.17, control="scratch_longer", epochs_factor=2.0)
    for budget in BUDGETS:
        made.add("qa", "annealed", budget, expected_score(budget, scratch=0.5, top=0.9))
    return analyse(made.scores, series=series(), prices=Prices(), draws=400)


def test_the_gap_is_from_the_start_to_the_end_and_scratch_is_a_row(analysis):
    task = analysis.tasks[0]
    assert task.floor == "your starting checkpoint"
    assert task.gap.value == pytest.approx(0.4, abs=0.03)
    rows = {checkpoint.name: checkpoint for checkpoint in task.checkpoints}
    assert rows["your starting checkpoint"].gap_closed.value == 0
    assert rows["scratch"].score.value == pytest.approx(0.15, abs=0.03)
    assert rows["scratch"].gap_closed.value < -0.5
    assert rows["your starting checkpoint"].cost.validation_loss == pytest.approx(8.0)
    assert rows["scratch"].cost is None  # nobody measured the loss of random weights


def test_the_answer_the_page_and_the_charts_say_so(analysis, tmp_path):
    task = analysis.tasks[0]
    assert "above your starting checkpoint is closed after" in task.answer
    assert "scratch" not in task.answer
    assert any("points against random weights in its shape (scratch)" in note for note in task.notes)
    names = [trace["name"] for trace in score_chart(task)["data"]]
    assert {"your starting checkpoint", "scratch"} <= set(names)
    write_report(analysis, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Gap from your starting checkpoint to annealed at 8,000,000 tokens" in page
    assert "Gap from scratch" not in page


def pairs_study(folder, **row):
    """Minimal pairs: floor at 40 %, scratch at 30 %, the checkpoint at 60 %, and three runs that go on to 90 %."""
    made = SimulatedStudy(folder)
    once = {"finetuning_seeds": 1, "details": {"zero_shot": True}}
    made.add("p", "raw", 0, 0.4, control="unigram", pretraining_seeds=3, **once)
    made.add("p", "raw", 0, 0.3, pretraining_seeds=3, **once)
    made.add("p", "start", 0, 0.6, **once)
    for budget in BUDGETS[3:]:
        made.add("p", "annealed", budget, expected_score(budget, scratch=0.6, top=0.9), pretraining_seeds=3, **once)
    rows = [{**one, **row} for one in series(seeds=3)]
    return analyse(made.scores, series=rows, prices=Prices(), draws=400).tasks[0]


def test_what_the_checkpoint_knows_of_minimal_pairs_is_no_gain_of_the_tokens(tmp_path):
    task = pairs_study(tmp_path)
    assert task.floor == "your starting checkpoint"
    assert task.gap.value == pytest.approx(0.3, abs=0.05)
    assert not task.gap.refused  # one model that is given, without seeds
    assert task.gap_resolved
    rows = {checkpoint.name: checkpoint for checkpoint in task.checkpoints}
    assert rows["unigram floor"].gap_closed.value < -0.3
    assert rows["your starting checkpoint"].score.low is not None
    assert any("as it is: it is what further" in note and "against the unigram floor" in note for note in task.notes)


def test_the_gap_of_a_checkpoint_without_a_head_begins_at_the_floor(tmp_path):
    """A random head scores at chance, whatever the encoder knows."""
    task = pairs_study(tmp_path, fresh_head=True)
    assert task.floor == "the unigram floor"
    assert any("counts what the checkpoint knew before as well" in note for note in task.notes)


def test_a_run_records_whether_its_head_was_drawn():
    assert started_from("models/encoder", ["cls.predictions.bias", "cls.seq_relationship.bias"])["fresh_head"] is True
    assert started_from("models/encoder", ["cls.seq_relationship.bias"])["fresh_head"] is False
    assert started_from(None) == {}


def test_is_scratch_stuck_is_asked_of_random_weights(analysis):
    slope = analysis.tasks[0].plateau
    assert slope.value == pytest.approx(0.02, abs=0.03)  # from the checkpoint it would be -0.33


def test_the_checkpoint_is_one_run_with_seeds_of_its_own_beside_several():
    sources = sources_of(series(seeds=5), ["annealed"])
    plan = make_plan(sources, ["a"], tasks_at_ends=["z"], finetuning_seeds=1, grid=Grid())
    cells = Counter(
        (cell.setting.task, cell.setting.source.kind) for cell in plan.cells if not cell.setting.source.budget_tokens
    )
    assert cells == {("a", "start"): 5, ("a", "raw"): 5, ("z", "start"): 5, ("z", "raw"): 5}
    start = next(source for source in sources if source.is_start)
    assert not start.starts_random
    assert not start.is_scratch
    assert not start.is_outside
    assert problems_of(plan, intervals=True) == []


def test_controls_compare_with_the_checkpoint_and_train_scratch_longer():
    controls = Controls((2.0,), (0.5,), shuffled_labels=True, same_arguments=True)
    plan = make_plan(
        sources_of(series(), ["annealed"]), ["a"], finetuning_seeds=1, grid=Grid((1e-3, 2e-3)), controls=controls
    )
    kinds = Counter((cell.control, cell.setting.source.kind) for cell in plan.cells if cell.control)
    assert kinds == {
        ("scratch_longer", "raw"): 1,
        ("fewer_labels", "start"): 1,
        ("fewer_labels", "annealed"): 1,
        ("shuffled_labels", "start"): 1,
        ("shuffled_labels", "annealed"): 1,
        ("same_arguments", "start"): 1,
    }


def test_only_the_starting_checkpoint_is_no_gap():
    start = [source for source in sources_of(series(), ["annealed"]) if source.budget_tokens == 0]
    assert (
        "a gap has two ends" in problems_of(make_plan(start, ["a"], finetuning_seeds=3, grid=Grid()), intervals=True)[0]
    )


def test_other_series_plan_what_they_did(tmp_path):
    """No row, no cell and no fingerprint depends on the new fields where they are not there."""
    tasks = write_tasks(tmp_path / "data")[1:2]
    jobs = tiny_jobs(write_series(tmp_path / "run"), tasks)
    assert Counter(cell.setting.source.kind for cell in jobs.plan.cells) == {"raw": 3, "annealed": 6}
    other = tiny_jobs(continued(tmp_path / "run"), tasks)
    assert jobs.cell_names() < other.cell_names()
    assert len(other.cell_names()) == len(jobs.cell_names()) + 3


def test_the_list_on_disk_keeps_the_kind(tmp_path):
    jobs = tiny_jobs(continued(tmp_path / "run"), write_tasks(tmp_path / "data")[1:2])
    write_jobs(tmp_path, jobs)
    assert read_jobs(tmp_path).cell_names() == jobs.cell_names()


def test_runs_from_other_weights_are_refused_by_name(tmp_path):
    first = continued(tmp_path / "a")
    assert len(rows_of([first, continued(tmp_path / "b", seed=1)])) == 6
    with pytest.raises(
        ValueError, match="this run starts from random weights, another of the study continues models/e"
    ):
        rows_of([first, write_series(tmp_path / "c", seed=2)])
    with pytest.raises(ValueError, match=r"this run continues models/encoder .cdcdcd"):
        rows_of([first, continued(tmp_path / "d", seed=3, started_digest="cd" * 32)])
    # The same checkpoint under another name is the same.
    assert rows_of([first, continued(tmp_path / "e", seed=4, started_from="copy/of")])


def test_a_series_of_an_earlier_version_is_known_by_its_run(tmp_path):
    path = write_series(tmp_path)
    identity = {"model_name_or_path": "bert-base-uncased", "shards": "0" * 64}
    for warmup in ({}, {"head_warmup": 1e4}):
        run = {"schema_version": 1, "identity": {**identity, **warmup}, "shards": None}
        (tmp_path / "run.json").write_text(json.dumps(run))
        assert {row["started_from"] for row in rows_of([path])} == {"bert-base-uncased"}
        assert {row["fresh_head"] for row in rows_of([path])} == {bool(warmup)}
    assert "started_from" not in read_series(path)[0]


def test_a_cell_of_the_start_is_trained_from_its_weights(tmp_path):
    """On a real list: the weights that a start cell begins with are those of budget 0, a scratch cell's are not."""
    import torch
    from safetensors.torch import load_file

    from gap.cells.running import Workbench

    tasks = write_tasks(tmp_path / "data")[1:2]
    jobs = tiny_jobs(continued(tmp_path / "run"), tasks)
    bench = Workbench(jobs, torch.device("cpu"), tiny_experiment(tasks).read())
    stored = load_file(tmp_path / "run" / "series" / "raw-0" / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    for source in {cell.setting.source for cell in jobs.plan.cells if cell.setting.source.budget_tokens == 0}:
        setting = next(cell.setting for cell in jobs.plan.cells if cell.setting.source == source)
        model = bench.load(source, bench.rows(setting).head, 0).fresh(0)
        weight = next(value for key, value in model.state_dict().items() if key.endswith(name))
        assert weight.equal(stored[name]) == source.is_start
