"""searches.jsonl: the outcome of every try of every search, and the choice of learning rate and epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gap.cells.job_list import JobList
from gap.cells.plan import SEARCH_SEED, Search, Setting
from gap.cells.running import SearchResult
from runtime.files.json_lines import JsonLines
from runtime.files.schemas import Count, Name, Number, Schema, Seconds

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Choice:
    """The chosen learning rate and epochs, and the gain if they had been picked on the scored examples."""

    learning_rate: float
    epochs: float
    held_out: float | None = None
    peeking_gain: float | None = None


@dataclass(frozen=True)
class Trail:
    """A search as far as it has come: its tries in their order, and the choice once none of them is missing."""

    tries: tuple[Search, ...] = ()
    missing: tuple[Search, ...] = ()  # yet to be run
    choice: Choice | None = None
    edges: tuple[str, ...] = ()  # where the choice is at an edge of all that was tried
    further: tuple[Search, ...] = ()  # that may follow the missing ones at most; of their values only `epochs` counts


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
    search_seed: Count = SEARCH_SEED  # not in lines of earlier versions


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
        "search_seed": search.seed,
        "held_out_score": result.held_out,
        "held_out_loss": result.held_out_loss,
        "scored_score": result.scored,
        "status": result.status,
        "seconds": result.seconds,
    }
    search_lines(path).append(record)


def follow(jobs: JobList, setting: Setting, seed: int, records: Mapping[str, Mapping[str, Any]]) -> Trail:
    """Follow a search through the records of its tries: the grid, then one try after another beyond its edges.

    Each next try depends on the records of those before it alone, so all workers find the same one, and a restart
    finds those that are done. Records of other tries, of a wider bound for instance, have no part in it.
    """
    grid = jobs.plan.grid_of(setting.source)
    if not grid.is_searched:
        return Trail(choice=Choice(*grid.tries[0]))
    pairs = grid.tries
    while True:
        tries = tuple(Search(setting, rate, epochs, seed) for rate, epochs in pairs)
        found = [records.get(jobs.fingerprint(search)) for search in tries]
        done = [record for record in found if record is not None]
        if len(done) < len(tries):
            missing = tuple(search for search, record in zip(tries, found, strict=True) if record is None)
            more = tuple(Search(setting, pairs[0][0], epochs, seed) for epochs in grid.further(pairs))
            return Trail(tries, missing, further=more)
        choice = choose(tries, done, pairs[0])
        best = (choice.learning_rate, choice.epochs)
        following = grid.beyond(pairs, best)
        if following is None:
            return Trail(tries, choice=choice, edges=tuple(grid.edges(pairs, best)))
        pairs = [*pairs, following]


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
