"""Scored examples whose text stands in the pretraining corpus: their score is partly memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetuning.pair_template import token_ids
from gap.tasks import TaskData
from pretraining.files import read_json, write_json
from shards.manifest import read_manifest
from shards.shard_reader import ShardReader
from shards.vocabulary import load_tokenizer

SCHEMA_VERSION = 1
RUN_TOKENS = 13  # a run of so many tokens in common is no accident (Brown et al. 2020, appendix C, with words)
CONTAMINATED_SHARE = 0.5  # of an example's runs
FACTOR = np.uint64(0x9E3779B97F4A7C15)
Hashes = NDArray[np.uint64]


def run_hashes(tokens: NDArray[Any]) -> Hashes:
    """Hash of every run of 13 tokens, [N] -> [N - 12]; empty for shorter texts."""
    values = np.asarray(tokens).astype(np.uint64) + np.uint64(1)
    count = len(values) - RUN_TOKENS + 1
    found = np.zeros(max(0, count), dtype=np.uint64)
    for place in range(RUN_TOKENS if count > 0 else 0):
        found = found * FACTOR + values[place : place + count]
    return found ^ (found >> np.uint64(29))


def corpus_hits(shards: Path, wanted: Hashes) -> NDArray[np.bool_]:
    """Which of the sorted hashes occur in the training split of a shard directory; one pass, block by block."""
    manifest = read_manifest(shards)
    reader = ShardReader(shards, manifest, "train", capacity=1)
    hits = np.zeros(len(wanted), dtype=bool)
    tail = np.zeros(0, dtype=np.int64)
    for number in range(sum(len(shard.keys) for shard in manifest.split("train").shards)):
        tokens = np.concatenate([tail, reader.block(number).tokens.astype(np.int64)])
        found = run_hashes(tokens)
        places = np.searchsorted(wanted, found)
        places[places == len(wanted)] = 0
        hits[places[wanted[places] == found]] = True
        tail = tokens[-(RUN_TOKENS - 1) :]
    return hits


def contaminated_ids(tasks: Mapping[str, Mapping[str, str]], shards: Path) -> dict[str, list[str]]:
    """By task the ids of its texts at least half of whose runs of 13 tokens stand in the corpus, in one pass over it.

    Texts under 13 tokens never do.
    """
    tokenizer = load_tokenizer(str(shards / read_manifest(shards).tokenizer.path))
    runs = {
        (task, name): run_hashes(np.array(ids, dtype=np.int64))
        for task, texts in tasks.items()
        for name, ids in zip(texts, token_ids(tokenizer, list(texts.values())), strict=True)
    }
    wanted = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *runs.values()]))
    found: dict[str, list[str]] = {task: [] for task in tasks}
    if not len(wanted):
        return found
    hits = corpus_hits(shards, wanted)
    for (task, name), own in runs.items():
        if len(own) and hits[np.searchsorted(wanted, own)].mean() >= CONTAMINATED_SHARE:
            found[task].append(name)
    return found


def passages(data: TaskData) -> dict[str, str]:
    """The text of every scored example that could have been seen: its paragraph, or the text itself."""
    if data.spec.kind == "qa":
        return {name: question.context for name, question in data.scored.items()}
    if data.spec.kind == "multiple_choice":
        return {
            name: question.firsts[0] if len(set(question.firsts)) == 1 else "\n".join(question.firsts)
            for name, question in data.scored.items()
        }
    return {
        name: example.text if example.text_pair is None else f"{example.text}\n{example.text_pair}"
        for name, example in data.scored.items()
    }


def write_contaminated(directory: Path, tasks: Sequence[TaskData], shards: Path) -> dict[str, int]:
    """Look once a task and corpus, keep the ids in DIRECTORY/contamination/TASK.json; returns how many, by task."""
    corpus = [shard.sha256 for shard in read_manifest(shards).split("train").shards]
    known = {data.spec.name: _read(directory, data.spec.name) for data in tasks}
    new = [
        data
        for data in tasks
        if (known[data.spec.name].get("data"), known[data.spec.name].get("corpus")) != (data.digest, corpus)
    ]
    found = contaminated_ids({data.spec.name: passages(data) for data in new}, shards) if new else {}
    for data in new:
        _write(directory, data, corpus=corpus, ids=found[data.spec.name])
    return {name: len(found.get(name, content.get("ids", []))) for name, content in known.items()}


def write_not_searched(directory: Path, tasks: Sequence[TaskData], reason: str) -> None:
    """Keep why nobody looked, unless these very examples were looked for before."""
    for data in tasks:
        known = _read(directory, data.spec.name)
        if known.get("data") != data.digest or known.get("corpus") is None:
            _write(directory, data, corpus=None, ids=[], reason=reason)


def read_contaminated(directory: Path, task: str) -> set[str]:
    """The ids that were found in the corpus; none when nobody looked."""
    return set(_read(directory, task).get("ids", []))


def not_searched(directory: Path, task: str) -> str | None:
    """Why nobody looked; None where the corpus was searched."""
    content = _read(directory, task)
    if not content:
        return "no search is on record"
    return None if content["corpus"] is not None else str(content["reason"])


def _read(directory: Path, task: str) -> dict[str, Any]:
    path = directory / "contamination" / f"{task}.json"
    return read_json(path) if path.is_file() else {}


def _write(directory: Path, data: TaskData, **content: Any) -> None:
    path = directory / "contamination" / f"{data.spec.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema_version": SCHEMA_VERSION, "data": data.digest, **content})
