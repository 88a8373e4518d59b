"""searches.jsonl: the outcome of every try of every search, and the choice of learning rate and epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gap.cells.job_list import JobList
from gap.cells.plan import PlannedCell, Search, Setting
from gap.cells.running import SearchResult
from runtime.files.json_lines import JsonLines
from runtime.files.schemas import Name, Number, Schema, Seconds
from runtime.plurals import counted

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Choice:
    """The chosen learning rate and epochs, and the gain if they had been picked on the scored examples."""

    learning_rate: float
    epochs: float
    held_out: float | None = None
    peeking_gain: float | None = None


class _SearchLine(Schema):
    schema_version: Literal[1]
    fingerprint: Name
    learning_rate: Number
    epochs: Number
    held_out_score: Number
    held_out_loss: Number | None = None  # not in lines of earlier versions
    scored_score: Number
    status: Name
    seconds: Seconds


def search_lines(path: Path) -> JsonLines[dict[str, Any]]:
    """searches.jsonl, read as it grows."""
    return JsonLines(path, _SearchLine, as_item=dict)


def read_searches(path: Path) -> dict[str, dict[str, Any]]:
    """Fingerprint -> record; a torn last line is left out. ValueError names a damaged line."""
    return {str(record["fingerprint"]): record for record in search_lines(path).read()}


def append_search(path: Path, jobs: JobList, search: Search, result: SearchResult) -> None:
    """Add one line, durably; a line torn by a crash is cut off first."""
    setting = search.setting
    record = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": jobs.fingerprint(search),
        "task": setting.task,
        "kind": setting.source.kind,
        "budget_tokens": setting.source.budget_tokens,
        "pretraining_seed": setting.source.pretraining_seed,
        "label_fraction": setting.label_fraction,
        "epochs_factor": setting.epochs_factor,
        "learning_rate": search.learning_rate,
        "epochs": search.epochs,
        "held_out_score": result.held_out,
        "held_out_loss": result.held_out_loss,
        "scored_score": result.scored,
        "status": result.status,
        "seconds": result.seconds,
    }
    search_lines(path).append(record)


def tries_of(jobs: JobList, job: PlannedCell) -> list[Search]:
    """The tries that decide a cell's options."""
    return [search for search in jobs.plan.searches if search.setting == job.setting]


def choose(tries: Sequence[Search], records: Sequence[Mapping[str, Any]], grid_first: tuple[float, float]) -> Choice:
    """The try with the best held-out score; without tries, the grid's only entry.

    Equal scores, which are common near 0, are told apart by the held-out loss, and only then by their order. Lines of
    versions that did not record a loss count as infinite.
    """
    if not tries:
        return Choice(*grid_first)
    held_out = [float(record["held_out_score"]) for record in records]
    scored = [float(record["scored_score"]) for record in records]
    losses = [math.inf if record.get("held_out_loss") is None else record["held_out_loss"] for record in records]
    best = max(range(len(tries)), key=lambda number: (held_out[number], -losses[number], -number))
    chosen = tries[best]
    return Choice(chosen.learning_rate, chosen.epochs, held_out[best], max(scored) - scored[best])


def same_arguments_notes(jobs: JobList, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For each task: the gap on the held-out part with one learning rate for all, and with one for each."""
    notes = []
    for task in dict.fromkeys(cell.setting.task for cell in jobs.plan.cells):
        table: dict[Setting, dict[tuple[float, float], float]] = {}
        for search in jobs.plan.searches:
            record = records.get(jobs.fingerprint(search))
            setting = search.setting
            if record and setting.task == task and setting.label_fraction == setting.epochs_factor == 1.0:
                table.setdefault(setting, {})[search.learning_rate, search.epochs] = float(record["held_out_score"])
        scratch = next((entry for entry in table if entry.source.is_scratch), None)
        upper = max(
            (entry for entry in table if not entry.source.is_scratch and entry.source.kind != "reference_scratch"),
            key=lambda entry: (
                entry.source.budget_tokens is None,
                entry.source.kind == "annealed",
                entry.source.budget_tokens or 0,
            ),
            default=None,
        )
        if scratch is None or upper is None or table[scratch].keys() != table[upper].keys():
            continue
        rate, epochs = max(table[upper], key=lambda key: table[upper][key])
        same = table[upper][rate, epochs] - table[scratch][rate, epochs]
        own = table[upper][rate, epochs] - max(table[scratch].values())
        length = counted(epochs, "epoch", written=f"{epochs:g}")
        notes.append(
            f"{task}: with the same arguments for all (rate {rate:g}, {length}, the reference's choice) "
            f"the gap on the held-out part of training is {100 * same:.1f} points; with a choice for each it is "
            f"{100 * own:.1f} points (one seed)."
        )
    return notes
