"""Generation of the small world, its corpus and its task sets, from a seed and sizes alone."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.files.schemas import Count, Leaf, Name, PathName, Schema, read_object, shown
from runtime.files.whole_files import sha256_of, whole_file
from shards.small_world.names import Cast, Names, invent_names, seeded
from shards.small_world.questions import (
    Example,
    MakeExample,
    acceptability,
    choice_question,
    examples,
    named_words,
    span_question,
)
from shards.small_world.sentences import documents

SCHEMA_VERSION = 2
WORLD_FILE = "world.json"
GROUP_OF_SPLIT = {"train": "open", "validation": "validation", "test": "test"}
TASKS: dict[str, MakeExample] = {
    "qa": span_question,
    "multiple_choice": choice_question,
    "classification": acceptability,
    "token_classification": named_words,
}


@dataclass(frozen=True)
class WorldSizes:
    """The sizes of a world: documents of the corpus (about 36 tokens each), examples of every task's three sets."""

    documents: int = 40_000
    names_per_class: int = 160
    zipf_exponent: float = 0.5
    train: int = 1_500
    validation: int = 500
    test: int = 600


class _FileFacts(Schema):
    bytes: Count
    sha256: Name


class _WorldFile(Schema):
    """What every `world.json` holds; the parameters are compared as they stand."""

    schema_version: Count
    seed: int
    sizes: dict[str, Leaf]
    files: dict[PathName, _FileFacts]


def write_small_world(directory: str | Path, *, seed: int = 0, sizes: WorldSizes | None = None) -> dict[str, Any]:
    """Write the corpus and the task sets and return the content of ``world.json``.

    The files are ``corpus.jsonl`` ({"text"}), and for ``qa`` (SQuAD v1.1 layout), ``multiple_choice`` (lists of {"id",
    "context", "question", "choices", "label"}), ``classification`` ({"id", "text", "label"}) and
    ``token_classification`` ({"id", "tokens", "tags"}) a ``train.json``, ``validation.json`` and ``test.json`` each;
    last ``world.json`` with the parameters, and bytes and sha256 of every file. Equal seed and sizes give equal bytes.
    A directory that holds this very world is left as it is; an earlier version's gets the sets that it lacks.

    Raises ValueError when the directory holds another world.
    """
    directory, sizes = Path(directory), sizes or WorldSizes()
    parameters = {"schema_version": SCHEMA_VERSION, "seed": seed, "sizes": asdict(sizes)}
    present = _present_world(directory, parameters)
    if present:
        return present
    names = invent_names(seed, sizes.names_per_class, sizes.zipf_exponent)
    corpus = documents(names, sizes.documents, seeded(seed, "corpus"))
    files = {"corpus.jsonl": _write(directory / "corpus.jsonl", (_line({"text": text}) for text in corpus))}
    for task, make in TASKS.items():
        for split, content in _task_sets(task, make, names, seed, sizes).items():
            name = f"{task}/{split}.json"
            layout = _squad_layout(content) if task == "qa" else content
            files[name] = _write(directory / name, [json.dumps(layout, indent=1) + "\n"])
    world = {**parameters, "names": {key: value.ranked for key, value in names.items()}, "files": files}
    _write(directory / WORLD_FILE, [json.dumps(world, indent=1) + "\n"])
    return _read_world(directory)


def _task_sets(
    task: str, make: MakeExample, names: Mapping[str, Names], seed: int, sizes: WorldSizes
) -> dict[str, list[Example]]:
    taken: set[str] = set()
    sets = {}
    for split, group in GROUP_OF_SPLIT.items():
        cast = Cast(names, group, seeded(seed, f"{task} {split}"))
        sets[split] = examples(make, cast, getattr(sizes, split), f"{task}-{split}", taken)
    return sets


def _squad_layout(questions: list[Example]) -> dict[str, Any]:
    paragraphs = []
    for question in questions:
        answer = {"text": question["answer"], "answer_start": question["answer_start"]}
        entry = {"id": question["id"], "question": question["question"], "answers": [answer]}
        paragraphs.append({"context": question["context"], "qas": [entry]})
    return {"version": "1.1", "data": [{"title": "small world", "paragraphs": paragraphs}]}


def _present_world(directory: Path, parameters: dict[str, Any]) -> dict[str, Any] | None:
    if not (directory / WORLD_FILE).exists():
        return None
    world = _read_world(directory)
    if any(world.get(key) != value for key, value in parameters.items()):
        held = {key: world.get(key) for key in parameters}
        raise ValueError(
            f"{directory / WORLD_FILE} is of another world ({shown(held)}, wanted {parameters}): delete {directory} or "
            "choose another directory"
        )
    sets = {f"{task}/{split}.json" for task in TASKS for split in GROUP_OF_SPLIT}
    whole = sets <= world["files"].keys() and all(
        _is_whole(directory / name, facts) for name, facts in world["files"].items()
    )
    return world if whole else None


def _read_world(directory: Path) -> dict[str, Any]:
    return read_object(directory / WORLD_FILE, _WorldFile, f"delete {directory}, and it is written again")


def _is_whole(path: Path, facts: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == facts["bytes"] and sha256_of(path) == facts["sha256"]


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _write(path: Path, pieces: Iterable[str]) -> dict[str, Any]:
    """Write whole or not at all; returns bytes and sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, num_bytes = hashlib.sha256(), 0
    with whole_file(path) as stream:
        for piece in pieces:
            content = piece.encode()
            digest.update(content)
            num_bytes += stream.write(content)
    return {"bytes": num_bytes, "sha256": digest.hexdigest()}
