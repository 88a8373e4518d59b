"""What is killed at random: real commands, how long each takes, and how a resumed one is compared with a whole one."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pretraining_runs as runs
from tiny_encoder import save_tiny_model
from tiny_examples import WORDS, tiny_questions
from tiny_gap import write_series, write_tasks

from shards.tokenization.vocabulary import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
LOSS_TOLERANCE = 1e-5
MEASURED = {"seconds", "search_seconds", "finished"}  # by a clock


@dataclass(frozen=True)
class Subject:
    """A command to be killed; `compare` says how a directory differs from the uninterrupted run's."""

    kind: str
    name: str
    command: Callable[[Path, Path], list[str]]  # of the folder of inputs and the output directory
    working: Callable[[Path], bool]  # whether the output directory shows that the work itself has begun
    progress: Callable[[Path], int]
    compare: Callable[[Path, Path], list[str]]
    victims: tuple[str, ...] = ("all",)
    variables: dict[str, str] = field(default_factory=dict)
    forked_ranks: int = 0  # ranks forked from a process with the imports done; 0: the command is started as it stands
    saving: Callable[[Path], bool] | None = None  # whether a checkpoint is being written, as the directory shows
    kills_a_run: int = 3


def write_inputs(folder: Path) -> None:
    """Everything that the commands read, the same every time."""
    runs.write_shards(folder / "corpus")
    write_series(folder / "run", (100, 200))
    write_tasks(folder / "tasks")
    save_tiny_model(folder / "model", "modernbert", WORDS)
    for name, number, seed in (("train", 120, 1), ("validation", 30, 2)):
        entries = [
            {
                "context": each.context,
                "qas": [
                    {
                        "id": each.id,
                        "question": each.question,
                        "answers": [{"text": answer.text, "answer_start": answer.start} for answer in each.answers],
                    }
                ],
            }
            for each in tiny_questions(number, prefix=name[0], seed=seed)
        ]
        (folder / f"{name}.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": entries}]}))
    generator = random.Random(0)
    words = [word for word in load_tokenizer(str(folder / "corpus" / "tokenizer")).get_vocab() if word.isalpha()]
    lines = [" ".join(generator.choices(words, k=generator.randint(20, 300))) for _ in range(16_000)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; a torn last line is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if line]


def digests(folder: Path, pattern: str) -> dict[str, str]:
    files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def differing(name: str, mine: Any, theirs: Any) -> list[str]:
    return [] if mine == theirs else [name]


def _pretraining(folder: Path, output: Path, engine: str, options: dict[str, Any]) -> list[str]:
    """It saves so often that many kills fall into a save; `engine` "" leaves out the launcher."""
    chosen = {"series": 2, "save_steps": 2 if engine else 1, "budget_tokens": 8_000, **options}
    script = str(ROOT / "launch" / "pretrain.py")
    started = runs.launcher(engine, 2) if engine else []
    return [*started, script, *runs.arguments(folder / "corpus" / "shards", output, chosen)]


def _is_saving(output: Path) -> bool:
    return any((output / "checkpoints").glob(".tmp-step-*"))


def _same_pretraining(mine: Path, theirs: Path) -> list[str]:
    """Rows, losses, figures and weights: the weights bit for bit, since the number of ranks is the same."""
    first, second = runs.course(mine), runs.course(theirs)
    faults = differing("rows", [line[:3] for line in first], [line[:3] for line in second])
    if not faults and max(abs(a[3] - b[3]) for a, b in zip(first, second, strict=True)) > LOSS_TOLERANCE:
        faults.append("losses")
    entries = [[{**entry, "seconds": 0} for entry in runs.series(run)] for run in (mine, theirs)]
    faults += differing("series", *entries)
    return faults + differing("weights", digests(mine, "series/*/*.safetensors"), digests(theirs, "series/*/*.safe*"))


def _pretraining_subject(name: str, engine: str, options: dict[str, Any], *victims: str) -> Subject:
    return Subject(
        "pretraining",
        name,
        lambda folder, output: _pretraining(folder, output, engine, options),
        lambda output: (output / "journal.jsonl").exists(),
        lambda output: len(lines_of(output / "journal.jsonl")),
        _same_pretraining,
        ("all", "launcher", "rank 0", "rank 1", *victims) if engine else ("all", "rank 0", "rank 1", *victims),
        forked_ranks=0 if engine else 2,
        saving=_is_saving,
        kills_a_run=3 if engine else 9,
    )


def _build(folder: Path, output: Path) -> list[str]:
    options = [
        "--document",
        "line",
        "--tokenizer",
        str(folder / "corpus" / "tokenizer"),
        "--block_tokens",
        "1024",
        "--blocks_per_shard",
        "16",
    ]
    options += ["--near_duplicates", "drop", "--validation_fraction", "0.05", "--processes", "2"]
    script = str(ROOT / "launch" / "build_shards.py")
    return [sys.executable, script, "--input", str(folder / "text.txt"), "--output_dir", str(output), *options]


def _study(folder: Path, output: Path) -> list[str]:
    options = ["--learning_rates", "1e-3,1e-2", "--num_train_epochs", "8", "--max_seq_length", "32"]
    options += ["--doc_stride", "8", "--draws", "200", "--max_parallel", "2", "--finetuning_seeds", "4"]
    tasks = f"questions=qa:{folder / 'tasks' / 'questions'}"
    series = ["--series", str(folder / "run" / "series.json"), "--tasks", tasks]
    return [sys.executable, str(ROOT / "launch" / "gap.py"), *series, *options, "--output_dir", str(output)]


def _timeless(value: Any) -> Any:
    """The same without measured times, at any depth."""
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in MEASURED}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def _same_study(mine: Path, theirs: Path) -> list[str]:
    cells = [
        sorted(json.dumps(_timeless(line), sort_keys=True) for line in lines_of(run / "scores.jsonl"))
        for run in (mine, theirs)
    ]
    dots = [
        [
            [each["dots"] for each in task["checkpoints"]]
            for task in json.loads((run / "curve.json").read_text())["tasks"]
        ]
        for run in (mine, theirs)
    ]
    faults = differing("scores", *cells) + differing("curve", *map(_timeless, dots))
    return faults + differing("predictions", digests(mine, "predictions/**/*"), digests(theirs, "predictions/**/*"))


def _finetuning(folder: Path, output: Path, engine: str, *more: str) -> list[str]:
    options = ["--num_train_epochs", "6", "--max_seq_length", "32", "--doc_stride", "8", "--bf16", "false"]
    options += ["--global_batch_rows", "8", "--learning_rate", "5e-3", "--report_to", "none", "--save_steps", "10"]
    files = [f"--{name}_file" if part == 0 else str(folder / f"{name}.json") for name in ("train", "validation")
             for part in (0, 1)]  # fmt: skip
    script = str(ROOT / "finetuning" / "qa.py")
    start = ["--model_name_or_path", str(folder / "model"), "--output_dir", str(output)]
    return [*runs.launcher(engine, 2), script, *start, *files, *options, *more]


def _same_finetuning(mine: Path, theirs: Path) -> list[str]:
    results = [
        {k: v for k, v in json.loads((run / "all_results.json").read_text()).items() if k.startswith("eval_")}
        for run in (mine, theirs)
    ]
    losses = [[line.get("loss") for line in lines_of(run / "journal.jsonl")] for run in (mine, theirs)]
    faults = differing("results", *results) + differing("losses", *losses)
    faults += differing("predictions", digests(mine, "predictions.json"), digests(theirs, "predictions.json"))
    return faults + differing("weights", digests(mine, "best/*.safetensors"), digests(theirs, "best/*.safetensors"))


def _finetuning_subject(name: str, engine: str, *more: str) -> Subject:
    return Subject(
        "finetuning",
        name,
        lambda folder, output: _finetuning(folder, output, engine, *more),
        lambda output: (output / "journal.jsonl").exists(),
        lambda output: len(lines_of(output / "journal.jsonl")),
        _same_finetuning,
        ("all",) if engine == "python" else ("all", "launcher", "rank 0", "rank 1"),
    )


SUBJECTS = (
    _pretraining_subject(
        "deepspeed zero3, data workers",
        "deepspeed",
        {"deepspeed": ROOT / "ds_configs" / "zero3.json", "dataloader_num_workers": 1},
        "worker",
    ),
    _pretraining_subject("torchrun fsdp, data workers", "torchrun", {"dataloader_num_workers": 1}, "worker"),
    _pretraining_subject("deepspeed zero2", "deepspeed", {"deepspeed": ROOT / "ds_configs" / "zero2.json"}),
    _pretraining_subject("forked fsdp, data workers", "", {"dataloader_num_workers": 1}, "worker"),
    _pretraining_subject("forked zero2", "", {"deepspeed": ROOT / "ds_configs" / "zero2.json"}),
    _pretraining_subject("forked zero3", "", {"deepspeed": ROOT / "ds_configs" / "zero3.json"}),
    _pretraining_subject("forked fsdp", "", {}),
    Subject(
        "build",
        "two processes",
        _build,
        lambda output: (output / "building").exists(),
        lambda output: len(list(output.glob("*.tar"))),
        lambda mine, theirs: differing("files", digests(mine, "**/*"), digests(theirs, "**/*")),
        ("all", "launcher", "worker"),
    ),
    Subject(
        "study",
        "two workers",
        _study,
        lambda output: (output / "cells.json").exists(),
        lambda output: len(lines_of(output / "searches.jsonl")) + len(lines_of(output / "scores.jsonl")),
        _same_study,
        ("all", "launcher", "worker"),
    ),
    _finetuning_subject("one process", "python"),
    _finetuning_subject("torchrun fsdp", "torchrun"),
    _finetuning_subject("deepspeed zero2", "deepspeed", "--deepspeed", str(ROOT / "ds_configs" / "zero2.json")),
)
