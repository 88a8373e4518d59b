"""A tiny series, tasks and lists of cells for tests: made-up words, models that run in a second."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tiny_encoder import save_tiny_model
from transformers import BertConfig, BertForMaskedLM, BertModel

from gap.cells.job_list import CellOptions, JobList
from gap.cells.plan import CellSource, sources_of
from gap.cells.search.grid import Grid
from gap.study.experiment import Experiment
from gap.tasks.kinds.task_data import ReadingOptions, RowOptions, TaskSpec
from pretraining.checkpoints.series import read_series
from shards.building.builder import build_shards
from shards.building.options import BuildOptions

COLOURS = ("red", "blue", "green", "grey")
THINGS = tuple(f"{first}{second}" for first in ("ba", "ki", "mo", "tu") for second in ("lan", "rek", "sop"))
WORDS = [*COLOURS, *THINGS, "what", "colour", "has", "the", "is", "old", "and", "good", "bad", ".", "?"]


def write_series(
    directory: Path, budgets: tuple[int, ...] = (100, 200), seed: int = 0, *, masked_lm: bool = False
) -> Path:
    """Scratch and annealed checkpoints of different random weights, encoders alone or with `masked_lm` heads; returns
    series.json."""
    rows: list[dict[str, Any]] = []
    for budget in (0, *budgets):
        kind = "annealed" if budget else "raw"
        path = directory / "series" / f"{kind}-{budget}"
        save_tiny_model(path, "bert", WORDS)
        torch.manual_seed(budget + seed)
        config = BertConfig.from_pretrained(str(path))
        model = BertForMaskedLM(config) if masked_lm else BertModel(config, add_pooling_layer=False)
        model.save_pretrained(path)
        rows.append(
            {
                "path": f"series/{kind}-{budget}",
                "kind": kind,
                "budget_tokens": float(budget),
                "tokens_seen": budget,
                "unique_tokens": budget,
                "flops": 1e6 * budget,
                "seconds": budget / 10,
                "validation_loss": 5.0 - budget / 100,
                "validation_accuracy": 0.1,
                "pretraining_seed": seed,
            }
        )
    (directory / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": rows}))
    return directory / "series.json"


def wider(series: Path, directory: Path) -> Path:
    """A reference twice as wide as the series, with the series' tokenizer."""
    own = series.parent / "series" / "raw-0"
    config = BertConfig.from_pretrained(str(own))
    config.hidden_size, config.intermediate_size = 2 * config.hidden_size, 2 * config.intermediate_size
    for file in own.iterdir():
        if "token" in file.name or "vocab" in file.name:
            directory.mkdir(exist_ok=True)
            (directory / file.name).write_bytes(file.read_bytes())
    BertModel(config, add_pooling_layer=False).save_pretrained(directory)
    return directory


def write_questions(path: Path, number: int, *, seed: int = 0, per_context: int = 2) -> Path:
    """A SQuAD file: what colour a thing has; several questions share a context."""
    generator = random.Random(seed)
    paragraphs = []
    for start in range(0, number, per_context):
        things = generator.sample(THINGS, per_context)
        colours = [generator.choice(COLOURS) for _ in things]
        context = " and ".join(f"the {t} is {c}" for t, c in zip(things, colours, strict=True)) + f" . {seed} {start}"
        entries = [
            {
                "id": f"q{seed}-{start + i}",
                "question": f"what colour has the {thing} ?",
                "answers": [{"text": colour, "answer_start": context.index(f"{thing} is {colour}") + len(thing) + 4}],
            }
            for i, (thing, colour) in enumerate(zip(things, colours, strict=True))
        ]
        paragraphs.append({"context": context, "qas": entries})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


def write_texts(path: Path, number: int, *, seed: int = 0) -> Path:
    """Texts with a label: is the word good in it?"""
    generator = random.Random(seed)
    rows = []
    for i in range(number):
        label = i % 2
        words = [generator.choice(THINGS) for _ in range(5)] + [("bad", "good")[label]]
        rows.append({"id": f"t{seed}-{i}", "text": " ".join(words) + f" {seed} {i}", "label": label})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def write_choices(path: Path, number: int, *, seed: int = 0) -> Path:
    """Which colour; one of two to three choices."""
    generator = random.Random(seed)
    rows = []
    for i in range(number):
        choices = generator.sample(COLOURS, 2 + i % 2)
        label = generator.randrange(len(choices))
        thing = generator.choice(THINGS)
        context = f"the {thing} is {choices[label]} . {seed} {i}"
        row = {"id": f"c{seed}-{i}", "context": context, "question": f"the {thing} is"}
        rows.append({**row, "choices": choices, "label": label})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def write_pairs(folder: Path, paradigms: int, number: int, *, seed: int = 0) -> Path:
    """A file for each paradigm, of pairs whose second sentence has two of its words swapped, or one replaced."""
    generator = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for paradigm in range(paradigms):
        rows = []
        for i in range(number):
            words = ["the", generator.choice(THINGS), "is", generator.choice(COLOURS), "and", "good"]
            wrong = (
                [*words[:2], generator.choice(WORDS[:4]), *words[3:]]
                if i % 2
                else [words[2], words[1], words[0], *words[3:]]
            )
            row = {"sentence_good": " ".join(words), "sentence_bad": " ".join(wrong), "UID": f"rule_{paradigm}"}
            rows.append({**row, "pairID": str(i), "field": ("syntax", "semantics")[paradigm % 2]})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"rule_{paradigm}.jsonl").write_text(text)
    return folder


def write_corpus(directory: Path, tokenizer: Path) -> Path:
    """Shards of sentences in the words of the series, under its tokenizer."""
    generator = random.Random(3)
    lines = [json.dumps({"text": " ".join(generator.choices(WORDS, k=40))}) for _ in range(80)]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "corpus.jsonl").write_text("\n".join(lines))
    options = BuildOptions(
        input=[str(directory / "corpus.jsonl")],
        output_dir=str(directory / "shards"),
        tokenizer=str(tokenizer),
        block_tokens=512,
        near_duplicates="ignore",
        validation_fraction=0.1,
        processes=1,
    )
    build_shards(options)
    return directory / "shards"


def write_tasks(directory: Path) -> tuple[TaskSpec, TaskSpec, TaskSpec]:
    """Folders with train and test files of three kinds."""
    for split, number, seed in (("train", 24, 1), ("test", 10, 2)):
        write_questions(directory / "questions" / f"{split}.json", number, seed=seed)
        write_texts(directory / "texts" / f"{split}.json", number, seed=seed)
        write_choices(directory / "choices" / f"{split}.json", number, seed=seed)
    return (
        TaskSpec("questions", "qa", str(directory / "questions")),
        TaskSpec("texts", "classification", str(directory / "texts")),
        TaskSpec("choices", "multiple_choice", str(directory / "choices")),
    )


def tiny_experiment(tasks: tuple[TaskSpec, ...], **more: Any) -> Experiment:
    """Cells of one epoch of rows of 32 tokens."""
    reading = more.pop("reading", ReadingOptions())
    options = CellOptions(reading, RowOptions(32, 8), global_batch_rows=8, bf16="false")
    defaults: dict[str, Any] = {"finetuning_seeds": 3, "grid": Grid((1e-2,), (1.0,)), "options": options}
    return Experiment(tasks, **{**defaults, **more})


def tiny_jobs(series: Path, tasks: tuple[TaskSpec, ...], extra: tuple[CellSource, ...] = (), **more: Any) -> JobList:
    """The list of a tiny experiment."""
    experiment = tiny_experiment(tasks, **more)
    sources = [*sources_of(read_series(series), ["annealed"]), *extra]
    return experiment.jobs(sources, experiment.read())
