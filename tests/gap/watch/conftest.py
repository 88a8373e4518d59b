"""Folders as runs leave them, written in milliseconds: no model is trained."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gap.cells.job_list import CellOptions, JobList, write_jobs
from gap.cells.plan import CellPlan, CellSource, PlannedCell, Search, Setting
from gap.cells.search.grid import Grid
from gap.cells.store import Cell, append_score
from runtime.files.json_lines import as_line
from runtime.processes.liveness import pid_space, start_time

PLACES = {"here": (os.getpid(), pid_space()), "gone": (os.getpid(), pid_space()), "elsewhere": (7, "other/pid:[1]")}
IDENTITY = {
    "shards": {},
    "model": "bert-mini",
    "seed": 3,
    "budget_tokens": 1000.0,
    "series": "2",
    "decay_fraction": 0.2,
}


class WrittenRuns:
    """Writes runs below a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.scored, self.entry = root, scored, entry

    def lock(self, folder: Path, owner: str | None, name: str = "run.lock") -> None:
        """A lock's file whose process lives ("here"), is "gone", is "elsewhere", or no lock (None)."""
        if owner is not None:
            pid, space = PLACES[owner]
            start = f"{start_time(pid)}1" if owner == "gone" else start_time(pid) or "1"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"pid {pid} on host since 2026-11-30 10:00:00\n{space} {start}\n")

    def pretraining(
        self, name: str, *, updates: int = 40, owner: str | None = "here", exported: int = 0, **identity: Any
    ) -> Path:
        """A run of updates of 10 tokens towards 1,000, with the first `exported` checkpoints of its series."""
        folder = self.root / name
        folder.mkdir(parents=True)
        content = {"schema_version": 1, "identity": {**IDENTITY, **identity}, "shards": "shards"}
        (folder / "run.json").write_text(json.dumps(content))
        with (folder / "journal.jsonl").open("w") as file:
            file.writelines(as_line(update_line(number)) for number in range(1, updates + 1))
        kinds = [("raw", 500.0), ("annealed", 500.0), ("raw", 1000.0), ("annealed", 1000.0)]
        rows = [entry(kind, budget) for kind, budget in kinds[:exported]]
        for row in rows:
            (folder / row["path"]).mkdir(parents=True)
            (folder / row["path"] / "model.safetensors").write_bytes(b"x" * 2500)
        if rows:
            (folder / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": rows}))
        self.lock(folder, owner)
        return folder

    def finetuning(self, name: str, *, owner: str | None = "here", results: dict[str, Any] | None = None) -> Path:
        """Ten updates and a validation, and all_results.json where `results` are given."""
        folder = self.root / name
        folder.mkdir(parents=True)
        lines = [{"update": number, "loss": 1 / number, "learning_rate": 1e-4} for number in range(1, 11)]
        lines.append({"update": 10, "epoch": 1.0, "eval_loss": 0.4, "eval_exact_match": 0.75})
        (folder / "journal.jsonl").write_text("".join(map(as_line, lines)))
        if results is not None:
            (folder / "all_results.json").write_text(json.dumps({"schema_version": 1, **results}))
        self.lock(folder, owner)
        return folder

    def study(self, name: str, *, done: int = 0, owner: str | None = "here", seconds: float = 60.0) -> Path:
        """Scratch and one budget with three seeds and two tries each, of which the first `done` cells have a score."""
        folder = self.root / name
        jobs = jobs_of()
        write_jobs(folder, jobs)
        for number, cell in enumerate(jobs.plan.cells[:done]):
            append_score(folder / "scores.jsonl", scored(jobs, cell, 0.5 + number / 100, seconds))
        self.lock(folder, owner)
        return folder

    def sweep(self, name: str, statuses: list[str], *, total: int, owner: str | None = "here") -> Path:
        """A cell of each status, of so many in all."""
        folder = self.root / name
        folder.mkdir(parents=True)
        (folder / "sweep.log").write_text(f"{total} cells, {total} settings x 1 seeds of qa\n")
        for number, status in enumerate(statuses):
            cell = folder / "cells" / f"{number:016}"
            cell.mkdir(parents=True)
            record = {"schema_version": 1, "fingerprint": f"{number:064}", "status": status}
            record |= {"options": {"learning_rate": 10.0**-number, "seed": 0}}
            if status == "running":
                record |= {"pid": os.getpid(), "start": start_time(os.getpid())}
            (cell / "cell.json").write_text(json.dumps(record))
            if status == "finished":
                score = {"metric": "f1", "eval_f1": 0.5 + number / 10, "seconds": 30.0}
                (cell / "all_results.json").write_text(json.dumps(score))
            if status == "failed":
                (cell / "log.txt").write_text("Traceback\nValueError: no <b>such</b> file\n\n")
        self.lock(folder, owner)
        return folder

    def build(self, name: str, *, shards: int = 2, owner: str | None = None) -> Path:
        """A finished build, or with an owner an unfinished one."""
        folder = self.root / name
        (folder / "tokenizer").mkdir(parents=True)
        for number in range(shards):
            (folder / f"train-{number:06}.tar").write_bytes(b"x" * 1500)
        if owner is not None:
            self.lock(folder, owner, "building/lock")
        else:
            split = {"documents": 12, "tokens": 3456, "shards": [{}] * shards}
            (folder / "manifest.json").write_text(
                json.dumps({"splits": {"train": split}, "tokenizer": {"vocab_size": 99}})
            )
        return folder


def update_line(number: int, **changes: Any) -> dict[str, Any]:
    """A line of a pretraining run's journal."""
    line = {"update": number, "serial": number, "segment": "trunk", "tokens": 10 * number, "flops": 1e6 * number}
    line |= {"learning_rate": 1e-3, "seconds": number / 2, "loss": 9.0 - number / 100, "tokens_per_second": 20.0}
    return {**line, **changes}


def entry(kind: str, budget: float) -> dict[str, Any]:
    """An entry of series.json."""
    return {
        "path": f"series/{kind}-{budget:.0f}",
        "kind": kind,
        "budget_tokens": budget,
        "tokens_seen": budget,
        "unique_tokens": budget,
        "flops": 1e6 * budget,
        "seconds": budget / 20,
        "validation_loss": 9.0 - budget / 1000,
        "validation_accuracy": 0.25,
        "pretraining_seed": 3,
    }


def jobs_of() -> JobList:
    """A list of six cells of one task, with their searches."""
    sources = [CellSource("series/raw-0", "raw", 0), CellSource("series/annealed-1000", "annealed", 1000)]
    settings = [Setting(source, "qa") for source in sources]
    grid = Grid((1e-4, 1e-3), (3.0,))
    plan = CellPlan(
        tuple(Search(setting, rate, 3.0) for setting in settings for rate in grid.learning_rates),
        tuple(PlannedCell(setting, seed) for setting in settings for seed in range(3)),
        grid,
    )
    digests = {source.path: "e" * 64 for source in sources}
    return JobList(plan, CellOptions(), {"qa": "squad:train.json"}, {"qa": "d" * 64}, digests, "c" * 64)


def scored(jobs: JobList, cell: PlannedCell, score: float, seconds: float) -> Cell:
    """A finished cell."""
    source = cell.setting.source
    places = (source.kind, source.budget_tokens, source.pretraining_seed, cell.finetuning_seed)
    made = Cell(jobs.fingerprint(cell), cell.setting.task, *places, "exact_match", score, seconds=seconds)
    return replace(made, control=cell.control)


@pytest.fixture
def written(tmp_path: Path) -> WrittenRuns:
    """A writer of runs below an empty folder."""
    (tmp_path / "runs").mkdir()
    return WrittenRuns(tmp_path / "runs")
