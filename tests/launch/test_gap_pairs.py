"""launch/gap.py on minimal pairs: the cells and what decides them, the floor in the report, mixed studies, refusals."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretraining_runs import in_process, write_shards
from tiny_gap import (
    tiny_experiment,
    wider,
    write_corpus,
    write_pairs,
    write_series,
    write_tasks,
)

from gap.analysis.tables.run_folder import RunSource
from gap.cells.job_list import read_jobs
from gap.cells.plan import make_plan, reference_sources, sources_of
from gap.cells.search.grid import Grid
from gap.cells.store import read_predictions, read_scores
from gap.study.experiment import series_rows
from gap.study.seeds import with_runs
from gap.study.until import GapWatch
from gap.tasks.specification import parse_tasks
from launch import gap, report


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three series with heads, their shards, and pairs of 22 paradigms."""
    folder = tmp_path_factory.mktemp("world")
    series = [write_series(folder / f"run{seed}", seed=seed, masked_lm=True) for seed in range(3)]
    write_corpus(folder, series[0].parent / "series" / "raw-0")
    write_pairs(folder / "pairs", 22, 3)
    return folder


def arguments(world, output, *, runs=3, **more):
    values = {
        "series": ",".join(str(world / f"run{seed}") for seed in range(runs)),
        "tasks": f"blimp=pairs:{world / 'pairs'}", "output_dir": output, "shards": world / "shards",
        "draws": 200, "max_parallel": 1, "bf16": "false", **more,
    }  # fmt: skip
    return [part for name, value in values.items() if value is not None for part in (f"--{name}", str(value))]


def test_pairs_are_scored_without_training_and_the_gap_begins_at_the_floor(world, tmp_path, capsys):
    argv, out = arguments(world, tmp_path / "out"), tmp_path / "out"
    assert gap.main([*argv, "--dry_run", "true"]) == 0
    said = capsys.readouterr().out
    assert "blimp: 12 cells (scratch 3, annealed 6, unigram 3)" in said
    assert "blimp: 66 examples in 22 paradigms scored" in said
    assert "12 cells and 0 searches to run" in said
    assert "learning rate" not in said
    assert gap.main(argv) == 0
    said = capsys.readouterr().out
    assert re.search(r"cell \d+/12  blimp, scratch, run 0, frequencies of tokens alone: accuracy 0\.\d+, done", said)
    assert re.search(r"cell \d+/12  blimp, annealed 200, run 2: accuracy 0\.\d+, done", said)
    cells = read_scores(out / "scores.jsonl")
    assert len(cells) == 12
    floors = {cell.score for cell in cells if cell.control == "unigram"}
    assert len(floors) == 1
    records = read_predictions(out / str(cells[0].predictions))
    assert {record["cluster"] for record in records.values()} == {f"rule_{i}" for i in range(22)}
    assert {record["score"] for record in records.values()} <= {0.0, 0.5, 1.0}
    check_report(out, next(iter(floors)))
    without_effect = "--learning_rates 1e-3 --finetuning_seeds 4 --per_device_eval_batch_size 7 --dry_run true"
    assert gap.main([*argv, *without_effect.split()]) == 0
    assert "0 cells and 0 searches to run, 12 cells already finished" in capsys.readouterr().out


def check_report(out, floor):
    """The floor is the lower end everywhere; scratch is a row of its own, and every interval is there."""
    (task,) = json.loads((out / "curve.json").read_text())["tasks"]
    points = {one["name"]: one for one in task["checkpoints"]}
    assert set(points) == {"scratch", "annealed at 100 tokens", "annealed at 200 tokens", "unigram floor"}
    lower, upper = points["unigram floor"]["score"]["value"], points["annealed at 200 tokens"]["score"]["value"]
    assert lower == pytest.approx(floor)
    assert task["gap"]["value"] == pytest.approx(upper - lower)
    assert (task["floor"], task["cluster"], task["num_clusters"]) == ("the unigram floor", "paradigm", 22)
    assert {one["layout"] for one in points.values()} == {"3 x 1"}
    for estimate in (task["gap"], *(one["score"] for one in points.values())):
        assert estimate["refused"] is None
        assert estimate["low"] < estimate["value"] < estimate["high"]
    assert "unigram floor" in task["answer"]
    assert "scratch" not in task["answer"]
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in ("Gap from the unigram floor to", "nothing is fine-tuned", '"name": "unigram floor"', "22 paradigms"):
        assert words in page or words.replace('": "', '":"') in page
    before = (out / "curve.json").read_text()
    assert report.main([str(out), "--draws", "200"]) == 0
    assert json.loads((out / "curve.json").read_text())["tasks"] == json.loads(before)["tasks"]


def verdicts(out):
    return json.loads((out / "pilot.json").read_text())["verdicts"]


def test_a_pilot_scores_the_floor_and_the_end_and_plans_runs_and_paradigms(world, tmp_path, capsys):
    argv, out = arguments(world, tmp_path / "out"), tmp_path / "out"
    assert gap.main([*argv, "--pilot", "true", "--dry_run", "true"]) == 0
    assert "blimp: 6 cells (annealed 3, unigram 3)" in capsys.readouterr().out
    assert gap.main([*argv, "--pilot", "true"]) == 0
    said = capsys.readouterr().out
    pilot = read_scores(out / "scores.jsonl")
    assert sorted((cell.control or "", cell.budget_tokens, cell.pretraining_seed) for cell in pilot) == [
        *[("", 200, run) for run in range(3)],
        *[("unigram", 0, run) for run in range(3)],
    ]
    (verdict,) = verdicts(out)
    assert (verdict["runs"], verdict["zero_shot"], verdict["finetuning_seeds"]) == (3, True, None)
    assert (verdict["cluster"], verdict["pilot_clusters"]) == ("paradigm", 22)
    scores = {kind: np.mean([c.score for c in pilot if (c.control is not None) == kind]) for kind in (True, False)}
    assert verdict["gap"]["value"] == pytest.approx(scores[False] - scores[True])
    assert verdict["gap"]["low"] < verdict["gap"]["value"] < verdict["gap"]["high"]
    assert (verdict["limit"] or 0.0) <= verdict["smallest"]
    assert "blimp: annealed at 200 tokens minus the unigram floor" in said
    assert "(98.75% confidence)" in said
    (look,) = RunSource.of(out).looks
    assert (look.pilot, look.runs, look.resolved) == (True, 3, {"blimp": verdict["verdict"] == "resolved"})
    (note,) = json.loads((out / "study.json").read_text())["notes"]
    assert note.removeprefix("Pilot: ") in said.splitlines()
    assert report.main([str(out), "--draws", "200"]) == 0
    assert "Pilot: blimp" in (out / "report.html").read_text(encoding="utf-8")
    assert gap.main(argv) == 0
    assert read_scores(out / "scores.jsonl")[:6] == pilot  # kept, and not run again
    assert len(read_scores(out / "scores.jsonl")) == 12
    assert [(one.pilot, one.runs, one.error) for one in RunSource.of(out).looks] == [(False, 3, 0.05)]


def test_further_runs_have_the_cells_of_those_that_there_are(world):
    sources = sources_of(series_rows([world / f"run{seed}" / "series.json" for seed in range(3)]), ["annealed"])
    outside = reference_sources(str(world / "run0"))
    five = with_runs([*sources, *outside], 5)
    assert {source.pretraining_seed for source in five} == set(range(5))
    assert [source for source in five if source.is_outside] == outside
    tasks = tuple(parse_tasks(f"blimp=pairs:{world / 'pairs'}"))
    plan = make_plan(five, ["blimp"], zero_shot=["blimp"], finetuning_seeds=3, grid=Grid((1e-3,), (1.0,)))
    assert len(plan.cells) == 5 * (3 + 1) + 1  # scratch, two budgets and the floor of each; the reference
    assert with_runs(sources, 3) == sources
    assert len(tiny_experiment(tasks).plan(with_runs(sources, 4)).cells) == 4 * 4


def test_the_pilot_of_one_run_says_what_it_does_not_know(world, tmp_path, capsys):
    assert gap.main(arguments(world, tmp_path / "out", runs=1, pilot="true")) == 0
    said = capsys.readouterr().out
    (verdict,) = verdicts(tmp_path / "out")
    assert (verdict["verdict"], verdict["pretraining_runs"], verdict["limit"]) == ("needs runs", 3, None)
    assert verdict["gap"]["low"] < verdict["gap"]["high"]
    assert "given this pretraining run): the spread of the runs is unknown with 1 pretraining run" in said
    assert "give --series 3 or more" in said
    assert gap.main(arguments(world, tmp_path / "out", pilot="true")) == 0  # what it asked for
    assert verdicts(tmp_path / "out")[0]["runs"] == 3
    assert [(one.pilot, one.runs) for one in RunSource.of(tmp_path / "out").looks] == [(True, 1), (True, 3)]


@pytest.mark.slow
def test_pairs_stand_beside_tasks_that_are_trained_and_beside_a_reference(world, tmp_path, capsys):
    texts = write_tasks(tmp_path / "tasks")[1]
    reference = write_series(tmp_path / "other", (300,), 9, masked_lm=True).parent / "series" / "annealed-300"
    more = {
        "tasks": f"blimp=pairs:{world / 'pairs'}@1,texts=classification:{texts.place}", "learning_rates": "1e-3,1e-2",
        "num_train_epochs": 1, "grid_extensions": 0, "scratch_longer": "", "max_seq_length": 32, "finetuning_seeds": 1,
        "reference": reference,
    }  # fmt: skip
    assert gap.main(arguments(world, tmp_path / "out", **more)) == 0
    said = capsys.readouterr().out
    assert "28 cells and 22 searches to run" in said  # two rates for nine checkpoints, the reference and its shape
    cells = read_scores(tmp_path / "out" / "scores.jsonl")
    assert sum(cell.task == "blimp" for cell in cells) == 9 + 3 + 1
    assert sum(cell.task == "texts" for cell in cells) == 9 + 2 * 3
    tasks = {task["task"]: task for task in json.loads((tmp_path / "out" / "curve.json").read_text())["tasks"]}
    assert tasks["blimp"]["gap"]["low"] is not None
    assert tasks["blimp"]["reference"] == "reference"
    assert tasks["texts"]["floor"] == "scratch"
    assert "the unigram floor" in tasks["blimp"]["answer"]
    assert gap.main([*arguments(world, tmp_path / "out", **more), "--pilot", "true"]) == 0
    assert {one["task"] for one in verdicts(tmp_path / "out")} == {"blimp", "texts"}
    assert "blimp: reference minus the unigram floor" in capsys.readouterr().out
    assert gap.main([*arguments(world, tmp_path / "out", **more), "--seeds_until_resolved", "3"]) == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"runs": 2}, "blimp: 2 pretraining runs"),
        ({"shards": None}, "name them with --shards"),
        ({"seeds_until_resolved": 5}, "zero-shot tasks have no fine-tuning seeds"),
    ],
)
def test_what_pairs_cannot_do_is_refused_before_any_cell(world, tmp_path, capsys, more, words):
    assert gap.main(arguments(world, tmp_path / "out", **more)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "scores.jsonl").exists()


def test_scores_of_one_run_have_no_interval_and_say_what_to_do(world, tmp_path, capsys):
    assert gap.main(arguments(world, tmp_path / "out", runs=1, intervals="false")) == 0
    (task,) = json.loads((tmp_path / "out" / "curve.json").read_text())["tasks"]
    assert "different --seed" in task["gap"]["refused"]
    assert "different --seed" in capsys.readouterr().out


def test_a_checkpoint_without_a_masked_language_head_is_refused_by_name(world, tmp_path, capsys):
    reference = wider(write_series(tmp_path / "other", (300,)), tmp_path / "headless")
    assert gap.main(arguments(world, tmp_path / "out", reference=reference)) == 2
    said = capsys.readouterr().err
    assert f"--reference {reference} has no masked-language head" in said
    series = ",".join(str(write_series(tmp_path / f"bare{seed}", seed=seed)) for seed in range(3))
    assert gap.main(arguments(world, tmp_path / "out", series=series)) == 2
    assert "--series" in (said := capsys.readouterr().err)
    assert "annealed-100 has no masked-language head" in said


def test_until_refuses_pairs():
    tasks = tuple(parse_tasks("p=pairs:there"))
    with pytest.raises(ValueError, match=r"p is zero-shot .* --until looks at one"):
        GapWatch(Path("run"), "gap_closed>=0.9", tiny_experiment(tasks), "bert", [100.0])


def test_what_decides_a_cell_of_pairs(world):
    """Options of training do not; the precision does, and of the floor the corpus."""
    tasks = tuple(parse_tasks(f"blimp=pairs:{world / 'pairs'}"))
    sources = sources_of(series_rows([world / f"run{seed}" / "series.json" for seed in range(3)]), ["annealed"])
    experiment = tiny_experiment(tasks)
    jobs = experiment.jobs(sources, experiment.read(), corpus="c")
    names = {cell: jobs.fingerprint(cell) for cell in jobs.plan.cells}
    assert len(set(names.values())) == 12

    def changed(**more):
        other = replace(jobs, **more)
        return [cell for cell, name in names.items() if other.fingerprint(cell) != name]

    assert changed(options=replace(jobs.options, warmup_ratio=0.5, weight_decay=0.2, dropout=0.1)) == []
    assert len(changed(options=replace(jobs.options, bf16="true"))) == 12
    assert changed(corpus="d") == [cell for cell in names if cell.is_floor]


@pytest.mark.slow
def test_three_pretraining_runs_and_their_pairs(tmp_path, capsys):
    shards = write_shards(tmp_path / "data")
    for seed in range(3):
        in_process(shards, tmp_path / f"run{seed}", {"seed": seed, "series": 2})
    words = sorted(json.loads((tmp_path / "data" / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"])[5:]
    (tmp_path / "pairs").mkdir()
    for paradigm in range(20):
        rows = [
            {"sentence_good": " ".join(words[i : i + 6]), "sentence_bad": " ".join(reversed(words[i : i + 6]))}
            for i in range(paradigm, paradigm + 6)
        ]
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / "pairs" / f"rule{paradigm}.jsonl").write_text(text)
    series = ",".join(str(tmp_path / f"run{seed}") for seed in range(3))
    argv = ["--series", series, "--tasks", f"pairs:{tmp_path / 'pairs'}", "--output_dir", str(tmp_path / "out")]
    assert gap.main([*argv, "--draws", "200", "--max_parallel", "1", "--bf16", "false"]) == 0
    jobs = read_jobs(tmp_path / "out")
    assert jobs.corpus is not None
    cells = read_scores(tmp_path / "out" / "scores.jsonl")
    assert {cell.score for cell in cells if cell.control == "unigram"} == {0.5}  # the same words in another order
    (task,) = json.loads((tmp_path / "out" / "curve.json").read_text())["tasks"]
    assert task["gap"]["low"] is not None
    assert "unigram floor" in capsys.readouterr().out
