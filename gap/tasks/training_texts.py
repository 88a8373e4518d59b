"""The training texts of a task as a corpus: for self-pretraining (Krishna et al. 2023, arXiv:2209.14389).

One document for each text that examples share: a paragraph with its questions, a premise with its hypotheses, a
passage with its choices. A paragraph that was written once for every question would be dropped as a duplicate, or
counted as often as it has questions. Labels and answers are never written, nor any text of a scored example: with the
pair (A, B) in training and (A, C) scored, only B is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from gap.tasks.kinds.task_data import ReadingOptions, TaskData
from gap.tasks.specification import parse_tasks, read_task
from runtime.files.whole_files import write_text
from shards.storage.manifest import Manifest


def training_documents(data: TaskData) -> list[str]:
    """The documents, in the order of the training examples; the fields of one are separated by line ends.

    A field that equals one of a scored example is left out.
    """
    scored = {text for example in data.scored.values() for text in data.text_fields(example)}
    documents: dict[str, dict[str, None]] = {}
    for example in data.train.values():
        first, *others = data.text_fields(example)
        documents.setdefault(first, {}).update(dict.fromkeys(text for text in others if text and text not in scored))
    texts = ("\n".join(filter(None, ["" if first in scored else first, *own])) for first, own in documents.items())
    return [text for text in texts if text]


def corpus_text(data: TaskData) -> str:
    """The documents as JSON lines; its bytes identify them."""
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in training_documents(data))


def write_training_texts(task: str, path: Path, data_dir: str | None = None) -> TaskData:
    """Write the training texts of a task (`[NAME=]KIND:PLACE[@N]`) to a file of JSON lines.

    A text that also occurs among the scored examples is left out. Raises ValueError for several tasks, and for files
    that cannot be read.
    """
    specs = parse_tasks(task)
    if len(specs) > 1:
        raise ValueError(f"--task {task}: {len(specs)} tasks; shards for self-pretraining hold the texts of one")
    data = read_task(specs[0], ReadingOptions(data_dir=data_dir, on_overlap="drop"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, corpus_text(data))
    return data


def holds_training_texts(manifest: Manifest, data: TaskData, reading: ReadingOptions | None = None) -> bool:
    """Whether shards were built from exactly these training texts, by the sha256 of their only source.

    `reading` are the options with which the study read the task. Where it scores a sample, the task is read again: the
    shards lack the texts of all scored examples.
    """
    sources = manifest.data.get("sources")
    if not isinstance(sources, list):
        return False
    if reading is not None and reading.max_eval_samples is not None:
        data = read_task(data.spec, replace(reading, max_eval_samples=None, on_overlap="drop"))
    digest = hashlib.sha256(corpus_text(data).encode()).hexdigest()
    return [source.get("sha256") for source in sources] == [digest]
