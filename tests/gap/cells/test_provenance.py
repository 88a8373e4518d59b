"""A report has the dates, devices, options and commands of its cells, also after an extension."""

import json
from dataclasses import replace

import torch
from tiny_gap import tiny_jobs, write_series, write_tasks

from gap.analysis.tables.costs import Prices
from gap.analysis.tables.run_folder import RunSource
from gap.cells.provenance import device_text, made_of, precision_notes
from gap.cells.store import read_scores
from gap.cells.worker import work
from gap.study.experiment import finish_experiment, write_list
from pretraining.checkpoints.series import read_series


def silent(*words):
    pass


def study(directory, series, tasks, seeds, command):
    jobs = tiny_jobs(series, tasks, finetuning_seeds=seeds)
    write_list(jobs, {}, directory, None, silent)
    work(directory, say=silent)
    rows = read_series(series)
    return finish_experiment(
        directory, jobs, rows, prices=Prices(), draws=100, commands=[command], series=[series]
    )  # fmt: skip


def test_an_extended_study_keeps_its_first_command_and_says_what_it_was_made_with(tmp_path):
    series, tasks = write_series(tmp_path / "run", (100,)), write_tasks(tmp_path / "tasks")[1:2]
    identity = {"model": "tiny", "learning_rate": 0.002, "budget_hours": None, "seed": 7, "shards": {"train": ["ab"]}}
    (series.parent / "run.json").write_text(json.dumps({"schema_version": 1, "identity": identity}))
    out = tmp_path / "out"
    study(out, series, tasks, 3, "python launch/gap.py --finetuning_seeds 3")
    found = study(out, series, tasks, 4, "python launch/gap.py --finetuning_seeds 4")
    assert found.commands == ("python launch/gap.py --finetuning_seeds 3", "python launch/gap.py --finetuning_seeds 4")
    again = study(out, series, tasks, 4, "python launch/gap.py --finetuning_seeds 4")
    assert again.commands == found.commands  # a command given twice is told once
    assert found.made["pretraining, seed 7"] == "model=tiny, learning_rate=0.002, seed=7"
    assert "max_seq_length=32" in found.made["fine-tuning"]
    assert "global_batch_rows=8" in found.made["fine-tuning"]
    assert found.made["cells trained on"] == f"{device_text(torch.device('cpu'))}, fp32 (8)"
    assert found.made["cells finished"][:4].isdigit()
    page = (out / "report.html").read_text()
    for text in (
        "--finetuning_seeds 3",
        "model=tiny, learning_rate=0.002",
        "global_batch_rows=8",
        found.made["cells finished"],
    ):
        assert text in page
    assert RunSource.of(out).made["pretraining, seed 7"] == found.made["pretraining, seed 7"]


def test_another_study_in_the_folder_does_not_inherit_commands(tmp_path):
    series, tasks = write_series(tmp_path / "run", (100,)), write_tasks(tmp_path / "tasks")
    out = tmp_path / "out"
    study(out, series, tasks[1:2], 3, "first")
    assert study(out, series, tasks[2:], 3, "second").commands == ("second",)


def test_cells_of_two_precisions_are_told(tmp_path):
    series, tasks = write_series(tmp_path / "run", (100,)), write_tasks(tmp_path / "tasks")[1:2]
    out = tmp_path / "out"
    study(out, series, tasks, 3, "first")
    cells = read_scores(out / "scores.jsonl")
    assert precision_notes(cells) == []
    mixed = [replace(cells[0], details={**cells[0].details, "precision": "bf16"}), *cells[1:]]
    assert "bf16 and fp32" in precision_notes(mixed)[0]
    old = [replace(cell, details={}) for cell in cells]
    assert precision_notes(old) == []
    assert made_of(old) == {}
