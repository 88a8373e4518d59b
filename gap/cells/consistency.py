"""Consistency of a study's cells: same tokenizer and architecture, and one precision for all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from gap.cells.job_list import LIST_NAME, read_jobs
from pretraining.engines.precision import require_half
from pretraining.model.families import fp32_only
from runtime.files.foreign import read_foreign_object
from runtime.machine import bf16_support
from runtime.model_places import model_place


def settled_bf16(choice: str, directory: Path, *, model_types: Collection[str] = (), elsewhere: bool = False) -> str:
    """true or false for auto: as in the directory's list of cells, else by model families and this machine's hardware.

    `elsewhere`: the cells run on GPUs of other machines. ValueError if this machine then cannot know, and for true
    with a family that computes in fp32 only.
    """
    if choice == "true":
        for model_type in model_types:
            require_half(model_type, "--bf16 true")
    if choice != "auto":
        return choice
    before = _before(directory)
    if before != "auto":
        return before
    if any(map(fp32_only, model_types)):
        return "false"
    if elsewhere and not torch.cuda.is_available():
        raise ValueError(
            "--bf16 auto: without a GPU here it is unknown what the array job's GPUs support, and the precision is "
            "part of every cell; give --bf16 true or false"
        )
    return "true" if bf16_support("cuda" if torch.cuda.is_available() else "cpu")[0] else "false"


def _before(directory: Path) -> str:
    """The precision of the cells in the directory; auto without cells, or if their list is to be replaced.

    In lists of earlier versions auto meant fp32 on every CPU.
    """
    if not (directory / LIST_NAME).is_file():
        return "auto"
    try:
        recorded = read_jobs(directory).options.bf16
        return "false" if recorded == "auto" and not torch.cuda.is_available() else recorded
    except ValueError:
        return "auto"


FILES = ("tokenizer.json", "config.json")
NO_MATTER = ("version", "transformers_version", "_name_or_path", "dtype", "torch_dtype", "truncation", "padding")


def model_types_of(paths: Iterable[str]) -> set[str]:
    """The families that those of these checkpoints which are directories name; others are refused later, or fetched."""
    found = set()
    for path in paths:
        with suppress(OSError, ValueError):
            found.add(str(read_foreign_object(Path(model_place(path)) / "config.json").get("model_type", "")))
    return found


def check_same_architecture(paths: Iterable[str]) -> None:
    """ValueError naming two checkpoint directories that differ in tokenizer or configuration.

    Keys for the version that wrote a file, and keys that `encode_task` sets itself, may differ.
    """
    directories = [Path(path) for path in paths]
    for name in FILES:
        first: Any = None
        for directory in directories:
            content = _content(directory / name)
            first = content if first is None else first
            if content != first:
                keys = sorted(key for key in first.keys() | content.keys() if first.get(key) != content.get(key))
                raise ValueError(
                    f"{name} of {directories[0]} and of {directory} differ in {', '.join(keys[:5])}: the runs of one "
                    "study share tokenizer and architecture; pretrain them on the same shards with the same --model, "
                    "or study them apart and compare with launch/report.py"
                )


def _content(path: Path) -> dict[str, Any]:
    """The values that decide the rows; empty if there is no such file."""
    content = read_foreign_object(path) if path.is_file() else {}
    return {key: value for key, value in content.items() if key not in NO_MATTER}
