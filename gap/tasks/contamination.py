"""Contamination: scored examples whose text occurs in the pretraining corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetuning.examples.pair_template import token_ids
from gap.tasks.corpus_search import RUN_TOKENS, corpus_hits, run_hashes
from gap.tasks.kinds.task_data import TaskData
from runtime.files.schemas import Count, Items, Name, Schema, read_object
from runtime.files.whole_files import write_json
from shards.storage.location import ShardLocation, open_location
from shards.tokenization.vocabulary import load_tokenizer

SCHEMA_VERSION = 1
CONTAMINATED_SHARE = 0.5  # of an example's runs
TOO_SHORT = f"all have fewer than {RUN_TOKENS} tokens"
Shards = str | Path | ShardLocation  # a directory, an https address, or either of them already opened


@dataclass(frozen=True)
class Found:
    """What a search found of a task: the ids of contaminated texts, and how many were too short to be searched for."""

    ids: list[str]
    too_short: int


def search_corpus(tasks: Mapping[str, Mapping[str, str]], shards: Shards) -> dict[str, Found]:
    """By task, the ids of texts at least half of whose runs of 13 tokens occur in the corpus, in one pass over it.

    Texts under 13 tokens have no run: they are never among them, and counted.
    """
    location = open_location(shards)
    tokenizer = load_tokenizer(str(location.directory / location.manifest.tokenizer.path))
    runs = {
        (task, name): run_hashes(np.array(ids, dtype=np.int64))
        for task, texts in tasks.items()
        for name, ids in zip(texts, token_ids(tokenizer, list(texts.values())), strict=True)
    }
    wanted = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *runs.values()]))
    by_task: dict[str, list[str]] = {task: [] for task in tasks}
    hits = corpus_hits(location, wanted) if len(wanted) else wanted
    for (task, name), own in runs.items():
        if len(own) and hits[np.searchsorted(wanted, own)].mean() >= CONTAMINATED_SHARE:
            by_task[task].append(name)
    short = Counter(task for (task, _), own in runs.items() if not len(own))
    return {task: Found(ids, short[task]) for task, ids in by_task.items()}


def passages(data: TaskData) -> dict[str, str]:
    """The text of every scored example that could have been seen, by its id."""
    return {name: data.passage(example) for name, example in data.scored.items()}


def write_contaminated(directory: Path, tasks: Sequence[TaskData], shards: Shards) -> dict[str, int]:
    """Search once per task and corpus, keep the ids in DIRECTORY/contamination/TASK.json; returns how many, by task.

    ValueError if the shards cannot be read.
    """
    try:
        location = open_location(shards)
        corpus = [shard.sha256 for shard in location.manifest.split("train").shards]
    except ValueError as error:
        raise ValueError(f"{error}; --contamination false skips the search of the corpus") from error
    known = {data.spec.name: _read(directory, data.spec.name) for data in tasks}
    new = [
        data
        for data in tasks
        if (known[data.spec.name].get("data"), known[data.spec.name].get("corpus")) != (data.digest, corpus)
    ]
    found = search_corpus({data.spec.name: passages(data) for data in new}, location) if new else {}
    for data in new:
        _write(directory, data, corpus=corpus, **asdict(found[data.spec.name]), texts=len(data.scored))
    return {name: len(found[name].ids if name in found else content["ids"]) for name, content in known.items()}


def write_not_searched(directory: Path, tasks: Sequence[TaskData], reason: str) -> None:
    """Record why there was no search, unless the same examples were searched for before."""
    for data in tasks:
        known = _read(directory, data.spec.name)
        if known.get("data") != data.digest or known.get("corpus") is None:
            _write(directory, data, corpus=None, ids=[], reason=reason)


def read_contaminated(directory: Path, task: str) -> set[str]:
    """The ids that were found in the corpus; none without a search."""
    return set(_read(directory, task).get("ids", []))


def not_searched(directory: Path, task: str) -> str | None:
    """Why there was no search; None if the corpus was searched for one text or more."""
    content = _read(directory, task)
    if not content:
        return "no search is on record"
    if content["corpus"] is None:
        return str(content.get("reason") or "the record has no reason")
    return TOO_SHORT if content.get("texts") and content["too_short"] == content["texts"] else None


def texts_too_short(directory: Path, task: str) -> int | None:
    """How many scored texts the search left out as too short; None without one, and if an earlier version made it."""
    return _read(directory, task).get("too_short")


def _read(directory: Path, task: str) -> dict[str, Any]:
    path = directory / "contamination" / f"{task}.json"
    return read_object(path, _ContaminationFile, "remove it to search the corpus again") if path.exists() else {}


class _ContaminationFile(Schema):
    """The outcome of a search of the corpus for a task's texts."""

    data: Name
    corpus: Items[str] | None
    ids: Items[str]
    reason: str | None = None
    texts: Count | None = None  # that are scored, and how many of them were too short; None: an earlier version's
    too_short: Count | None = None


def _write(directory: Path, data: TaskData, **content: Any) -> None:
    path = directory / "contamination" / f"{data.spec.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema_version": SCHEMA_VERSION, "data": data.digest, **content})
