"""`series.json`, the list of a run's exported checkpoints at each budget: schema, reader and writer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pretraining.plan.budget import UNITS
from runtime.files.schemas import Count, Figure, Items, Name, PathName, Schema, Seconds, read_object, shown
from runtime.files.whole_files import write_json

SERIES_NAME = "series.json"
SCHEMA_VERSION = 1
REMEDY = "restore the file, or let launch/pretrain.py write it"

Tokens = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]  # of FLOPs, or in a budget's own unit


def known_unit(unit: str) -> str:
    """The unit; ValueError for one that no budget has."""
    if unit not in UNITS:
        raise ValueError(f"it must be one of {', '.join(UNITS)}")
    return unit


class SeriesEntry(Schema):
    """An entry of the list."""

    path: PathName  # relative to the folder of series.json
    kind: Literal["raw", "annealed"]  # of the trunk, or after a branch in which the rate went to zero
    budget_tokens: Tokens  # the budget as planned
    tokens_seen: Tokens  # without padding; a token that was seen twice counts twice
    unique_tokens: Tokens  # those seen, each counted once
    flops: Amount  # of the model, forward and backward
    seconds: Seconds  # of training, without evaluation and saving
    validation_loss: Figure  # nats per masked token on the held-out rows; null if not finite
    validation_accuracy: Figure  # share of these tokens predicted right
    pretraining_seed: Count  # --seed of the run
    # Files of older versions lack those that follow.
    devices: Annotated[int, Field(ge=1, le=1 << 20)] | None = None  # that trained it
    untrained_positions: Count | None = None  # of the longest length, which no sequence has reached yet
    budget: Amount | None = None  # in its own unit
    budget_unit: Annotated[str, AfterValidator(known_unit)] = "tokens"  # or "flops", "hours"
    text_bytes: Amount | None = None  # of text seen, in UTF-8: comparable between tokenizers, as tokens are not
    tokenizer: Name | None = None  # its fingerprint
    # Of a run that continued a checkpoint: its name and the digest of its weights. A run from random weights has none.
    started_from: Name | None = None
    started_digest: Name | None = None
    fresh_head: bool | None = None  # whether it lacked a masked-language head, which was then drawn; None: unknown


class _Series(Schema):
    schema_version: Literal[1]
    checkpoints: Items[SeriesEntry]
    run: Name | None = None  # on the hub: the digest of the run's identity


FIELDS = tuple(name for name, field in SeriesEntry.model_fields.items() if field.is_required())


def read_series(path: Path | str) -> list[dict[str, Any]]:
    """The checkpoints of a `series.json` (or of the directory that holds it), paths made absolute, in file order.

    Raises ValueError, naming the file, for one that is not such a list: another schema, a field missing or outside its
    range, a checkpoint or a key that comes twice, or a path that leaves its directory.
    """
    path = Path(path)
    path = path / SERIES_NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path} does not exist: make a series with launch/pretrain.py --output_dir {path.parent}")
    root = path.parent.resolve()
    checkpoints = [{**entry, "path": str(_inside(root, entry["path"], path))} for entry in _entries(path)]
    _refuse_doubles(path, [entry["path"] for entry in checkpoints])
    return checkpoints


def run_named_in(path: Path) -> str | None:
    """The digest of the run's identity in a `series.json` of the hub; ValueError as `read_series`."""
    run = read_object(path, _Series, REMEDY).get("run")
    return None if run is None else str(run)


def finite_figures(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Checked entries; figures that are not finite are None."""
    return [
        {**entry, **{name: _finite(entry[name]) for name in ("validation_loss", "validation_accuracy")}}
        for entry in entries
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def add_to_series(path: Path, entry: dict[str, Any]) -> None:
    """Add a checkpoint, or replace the one of the same path; atomic. ValueError when the file is not such a list."""
    checkpoints = _entries(path) if path.exists() else []
    kept = [other for other in checkpoints if other["path"] != entry["path"]]
    ordered = sorted([*kept, entry], key=lambda other: (other["budget_tokens"], other["kind"] != "raw"))
    write_json(path, {"schema_version": SCHEMA_VERSION, "checkpoints": ordered})


def _entries(path: Path) -> list[dict[str, Any]]:
    """The checked entries as the file has them."""
    entries = finite_figures(read_object(path, _Series, REMEDY)["checkpoints"])
    _refuse_doubles(path, [entry["path"] for entry in entries])
    _refuse_doubles(path, [_planned_as(entry) for entry in entries])
    return entries


def _planned_as(entry: dict[str, Any]) -> str:
    """What identifies a checkpoint of a run: kind, seed, and the budget in the unit it was planned in."""
    unit = entry.get("budget_unit", "tokens")
    planned = entry.get("budget") if unit != "tokens" else None
    amount = entry["budget_tokens"] if planned is None else planned
    return f"{entry['kind']} {float(amount):.17g} {unit}, seed {entry['pretraining_seed']}"


def _inside(root: Path, name: str, path: Path) -> Path:
    """The absolute path of a checkpoint; ValueError unless it lies below `root`."""
    try:
        target = (root / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, or characters that no path can have
        raise ValueError(f"{path}: {shown(name)} is not a path ({error}): {REMEDY}") from error
    if target == root or not target.is_relative_to(root):
        raise ValueError(f"{path}: {shown(name)} lies outside {root}: a series holds its own checkpoints only")
    return target


def _refuse_doubles(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{path} lists {shown(twice[0])} twice: keep one of the two entries")
