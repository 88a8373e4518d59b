"""A run on the task's own training texts as a control: what is accepted, where it is run, and what is said of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from shard_directories import write_directory
from simulated_scores import BUDGETS, SimulatedStudy, expected_score, series_rows
from tiny_gap import tiny_experiment, write_series, write_tasks

from gap.analysis.analysis import analyse
from gap.analysis.tables.costs import Prices
from gap.cells.job_list import read_jobs, write_jobs
from gap.cells.plan import SELF_PRETRAINED, sources_of
from gap.cells.store import Cell, append_score
from gap.report.charts import score_chart
from gap.study import study as study_module
from gap.study.options import GapOptions
from gap.study.sources import self_pretrained_sources
from gap.tasks.kinds.task_data import ReadingOptions
from gap.tasks.specification import read_task
from gap.tasks.training_texts import corpus_text
from launch import gap
from pretraining.checkpoints.series import read_series

OWN = 900_000  # tokens; of the series' budgets 1,000,000 is nearest


@pytest.fixture
def world(tmp_path):
    """A series, a run on the texts of the task `texts`, and the tasks' data."""
    tasks = write_tasks(tmp_path / "data")
    data = tiny_experiment(tasks).read()
    main, own = write_series(tmp_path / "main"), write_series(tmp_path / "own", budgets=(50, 150), seed=7)
    manifest = write_directory(tmp_path / "shards")
    (tmp_path / "texts.jsonl").write_text(corpus_text(data["texts"]))
    note(tmp_path, manifest, tmp_path / "texts.jsonl")
    run = {"schema_version": 1, "identity": {"shards": "0" * 64}, "shards": str(tmp_path / "shards")}
    (tmp_path / "own" / "run.json").write_text(json.dumps(run))
    options = GapOptions(series=str(main), tasks="texts=classification:x", self_pretrained=str(own))
    return SimpleNamespace(path=tmp_path, data=data, tasks=tasks, options=options, manifest=manifest, main=main)


def note(path, manifest, *files):
    """Let the manifest name these files as its sources."""
    sources = [
        {
            "name": file.name,
            "bytes": file.stat().st_size,
            "documents": 1,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in files
    ]
    (path / "shards" / "manifest.json").write_text(json.dumps({**manifest, "sources": sources}))


def test_its_largest_checkpoint_is_run_on_its_own_task_only(world):
    (source,) = self_pretrained_sources(world.options, world.data)
    assert (source.kind, source.budget_tokens, source.control, source.task) == (
        "annealed",
        150,
        SELF_PRETRAINED,
        "texts",
    )
    experiment = tiny_experiment(world.tasks)
    sources = [*sources_of(read_series(world.main), ["annealed"]), source]
    jobs = experiment.jobs(sources, world.data)
    cells = [cell for cell in jobs.plan.cells if cell.control == SELF_PRETRAINED]
    assert {cell.setting.task for cell in cells} == {"texts"}
    assert len(cells) == 3
    write_jobs(world.path, jobs)
    assert read_jobs(world.path).cell_names() == jobs.cell_names()
    assert experiment.jobs(sources[:-1], world.data).cell_names() < jobs.cell_names()


def test_shards_are_accepted_where_the_study_scores_a_sample_and_some_texts_are_shared(world):
    (spec,) = (spec for spec in world.tasks if spec.name == "texts")
    train, test = (Path(spec.place) / f"{name}.json" for name in ("train", "test"))
    shared = [{**row, "id": f"again-{row['id']}"} for row in json.loads(train.read_text())[:6]]
    test.write_text(json.dumps([*json.loads(test.read_text()), *shared]))
    whole, sampled = (read_task(spec, ReadingOptions(max_eval_samples=most, on_overlap="drop")) for most in (None, 2))
    assert len(sampled.train) > len(whole.train)
    (world.path / "texts.jsonl").write_text(corpus_text(whole))
    note(world.path, world.manifest, world.path / "texts.jsonl")
    options = replace(world.options, max_eval_samples=2, on_overlap="drop")
    (source,) = self_pretrained_sources(options, {"texts": sampled})
    assert source.task == "texts"


def test_shards_of_anything_else_are_refused(world):
    other = world.path / "other.txt"
    other.write_text("more text\n")
    note(world.path, world.manifest, world.path / "texts.jsonl", other)
    with pytest.raises(ValueError, match="were not built from exactly the training texts of questions or texts or cho"):
        self_pretrained_sources(world.options, world.data)


def test_shards_that_are_gone_are_refused(world):
    shutil.rmtree(world.path / "shards")
    with pytest.raises(ValueError, match="what it was trained on is unknown"):
        self_pretrained_sources(world.options, world.data)


def test_a_run_from_other_weights_is_refused(world):
    path = world.path / "own" / "series.json"
    content = json.loads(path.read_text())
    content["checkpoints"] = [{**row, "started_from": "bert"} for row in content["checkpoints"]]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="this run continues bert, another of the study starts from random weights"):
        self_pretrained_sources(world.options, world.data)


def test_a_task_that_is_run_at_the_ends_only_has_no_control(world):
    options = replace(world.options, tasks="questions=qa:x", tasks_at_ends="texts=classification:x")
    with pytest.raises(ValueError, match=r"texts of texts, one of --tasks_at_ends.*: name the task in --tasks"):
        self_pretrained_sources(options, world.data)


def test_a_pilot_says_that_it_leaves_the_control_out_and_counts_its_hours(world, monkeypatch, capsys):
    left = []
    monkeypatch.setattr(study_module, "run_local", lambda *_: None)
    monkeypatch.setattr(study_module, "finish_pilot", lambda _, jobs, rows, sources, *__, **___: left.extend(sources))
    spec = world.tasks[1]
    command = ["--series", str(world.main), "--self_pretrained", world.options.self_pretrained, "--pilot", "true"]
    command += ["--tasks", f"texts={spec.kind}:{spec.place}", "--output_dir", str(world.path / "study")]
    assert gap.main([*command, "--max_parallel", "1", "--contamination", "false"]) == 0
    assert "--pilot leaves out --self_pretrained" in capsys.readouterr().out
    assert [source.task for source in left if source.control == SELF_PRETRAINED] == ["texts"]


def test_without_a_series_there_is_nothing_to_compare_with():
    with pytest.raises(ValueError, match="--self_pretrained needs --series"):
        GapOptions(self_pretrained="x")


def study(folder, chance, **more):
    """Three runs of the series, and one run on the task's own texts."""
    made = SimulatedStudy(folder, num_examples=1000, num_clusters=1000)
    made.add("qa", "raw", 0, 0.15, pretraining_seeds=3)
    for budget in BUDGETS[3:]:
        made.add("qa", "annealed", budget, expected_score(budget), pretraining_seeds=3)
    made.add("qa", "annealed", OWN, chance, control=SELF_PRETRAINED, **more)
    return analyse(made.scores, series=series_rows(), prices=Prices(), draws=200).tasks[0]


@pytest.mark.parametrize(
    ("chance", "verdict"),
    [
        (0.40, "which is resolved: the corpus brings what the task's own texts do not"),
        (expected_score(1_000_000), "not resolved: the corpus is not shown to bring more"),
        (0.90, "which is resolved: the task's own texts bring more than the corpus at this budget"),
    ],
)
def test_one_sentence_says_its_share_and_its_difference_at_the_nearest_budget(tmp_path, chance, verdict):
    notes = [text for text in study(tmp_path, chance).notes if "own training texts alone" in text]
    assert len(notes) == 1
    assert "(900,000 tokens) closes " in notes[0]
    assert "points against the series' annealed at 1,000,000 tokens" in notes[0]
    assert verdict in notes[0]


def sentence(folder, series, own):
    """What is said of runs with these scores, at 900,000 own tokens and at 1,000,000 of the series."""
    path = folder / "scores.jsonl"
    columns = [("raw", 0, None, [0.2 for _ in series]), ("annealed", 1_000_000, None, series)]
    for kind, budget, control, runs in [*columns, ("annealed", OWN, SELF_PRETRAINED, own)]:
        for run, score in enumerate(runs):
            for seed in range(3):
                seen, run_seed = score + 0.001 * (seed - 1), run + (10 if control else 0)
                name = f"{budget}-{run}-{seed}"
                append_score(path, Cell(name, "qa", kind, budget, run_seed, seed, "em", seen, control=control))
    (note,) = [text for text in analyse(path, draws=400).tasks[0].notes if "own training texts alone" in text]
    return note


SPREAD = [0.58, 0.59, 0.60, 0.61, 0.62]


def test_one_run_on_the_own_texts_varies_as_the_runs_beside_it_do(tmp_path):
    """A run three points from the mean of five, whose own spread is 1.6 points, is no effect of the texts."""
    assert "not resolved" in sentence(tmp_path / "one", SPREAD, [0.63])
    assert "which is resolved" in sentence(tmp_path / "far", SPREAD, [0.75])
    assert "+3.0 [-" in sentence(tmp_path / "turned", [0.57], [one + 0.0 for one in SPREAD])
    several = sentence(tmp_path / "several", SPREAD, [one + 0.05 for one in SPREAD])
    assert "+5.0 [" in several
    assert "which is resolved" in several
    assert "no verdict: with one pretraining run" in sentence(tmp_path / "alone", [0.6], [0.8])


def test_it_is_a_mark_on_the_chart_and_no_point_of_the_curve(tmp_path):
    task = study(tmp_path, 0.4)
    chart = score_chart(task)
    (mark,) = [trace for trace in chart["data"] if trace["name"] == "the task's own texts"]
    assert mark["x"] == [OWN]
    assert mark["y"][0] == pytest.approx(0.4, abs=0.03)
    assert mark["error_y"]["array"][0] > 0
    (curve,) = [trace for trace in chart["data"] if trace["name"] == "annealed"]
    assert OWN not in curve["x"]
    rows = {checkpoint.name: checkpoint for checkpoint in task.checkpoints}
    assert rows["the task's own texts, 900,000 tokens"].cost is None
