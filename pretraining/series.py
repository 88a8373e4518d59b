"""`series.json`: the list of a run's checkpoints at each budget, which fine-tuning and the gap read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretraining.files import read_json, write_json

SCHEMA_VERSION = 1
FIELDS = (
    "path",
    "kind",
    "budget_tokens",
    "tokens_seen",
    "unique_tokens",
    "flops",
    "seconds",
    "validation_loss",
    "validation_accuracy",
    "pretraining_seed",
)


def read_series(path: Path | str) -> list[dict[str, Any]]:
    """The checkpoints of a `series.json` (or of the directory that holds it), paths made absolute, in file order.

    Raises ValueError for a file of another schema, with a field missing, or with a path that leaves its directory.
    """
    path = Path(path)
    path = path / "series.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path} is not there: make a series with launch/pretrain.py --output_dir {path.parent}")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{path} is no series of schema version {SCHEMA_VERSION}: write it with launch/pretrain.py")
    root, checkpoints = path.parent.resolve(), []
    for entry in content["checkpoints"]:
        missing = [name for name in FIELDS if name not in entry]
        if missing:
            raise ValueError(f"{path}: a checkpoint lacks {', '.join(missing)}: write it with launch/pretrain.py")
        target = (root / str(entry["path"])).resolve()
        if not target.is_relative_to(root):
            raise ValueError(f"{path}: {entry['path']!r} lies outside {root}: a series holds its own checkpoints only")
        checkpoints.append({**entry, "path": str(target)})
    return checkpoints


def add_to_series(path: Path, entry: dict[str, Any]) -> None:
    """Add a checkpoint, or replace the one of the same path; atomic."""
    checkpoints = read_json(path)["checkpoints"] if path.exists() else []
    kept = [other for other in checkpoints if other["path"] != entry["path"]]
    ordered = sorted([*kept, entry], key=lambda other: (other["budget_tokens"], other["kind"] != "raw"))
    write_json(path, {"schema_version": SCHEMA_VERSION, "checkpoints": ordered})
