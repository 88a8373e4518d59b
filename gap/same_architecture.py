"""All checkpoints of a study read text alike: one tokenizer and one configuration, or a task's rows are not theirs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pretraining.files import read_json

FILES = ("tokenizer.json", "config.json")
NO_MATTER = ("version", "transformers_version", "_name_or_path", "dtype", "torch_dtype", "truncation", "padding")


def check_same_architecture(paths: Iterable[str]) -> None:
    """ValueError naming two checkpoint directories that differ in tokenizer or configuration.

    Keys that say by which version a file was written, or what `encode_task` sets itself, may differ.
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
    """What decides the rows; empty where there is no such file."""
    content = read_json(path) if path.is_file() else {}
    return {key: value for key, value in content.items() if key not in NO_MATTER}
