"""`series.json`: the list of a run's checkpoints at each budget, which fine-tuning and the gap read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from runtime.files.whole_files import read_json, write_json

SERIES_NAME = "series.json"
SCHEMA_VERSION = 1
SHOWN_CHARACTERS = 80
REMEDY = "restore the file, or let launch/pretrain.py write it"

Tokens = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]  # of FLOPs, or in a budget's own unit
Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]


def _finite_or_none(value: Any) -> Any:
    """A figure that is infinite or no number says nothing; it is none of what a run is planned by."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Figure = Annotated[float | None, BeforeValidator(_finite_or_none)]


class _Checkpoint(BaseModel):
    """An entry of the list. Whatever else it holds is kept: later versions measure more."""

    model_config = ConfigDict(strict=True, extra="allow")

    path: Annotated[str, Field(min_length=1, max_length=4096)]  # relative to the folder of series.json
    kind: Literal["raw", "annealed"]
    budget_tokens: Tokens
    tokens_seen: Tokens
    unique_tokens: Tokens
    flops: Amount
    seconds: Seconds
    validation_loss: Figure
    validation_accuracy: Figure
    pretraining_seed: Count
    # Files of older versions lack these.
    devices: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    untrained_positions: Count | None = None
    budget: Amount | None = None
    budget_unit: Literal["tokens", "flops", "hours"] = "tokens"


class _Series(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    checkpoints: list[_Checkpoint]


FIELDS = tuple(name for name, field in _Checkpoint.model_fields.items() if field.is_required())


def read_series(path: Path | str) -> list[dict[str, Any]]:
    """The checkpoints of a `series.json` (or of the directory that holds it), paths made absolute, in file order.

    Raises ValueError, naming the file, for one that is no such list: another schema, a field missing or outside its
    range, a checkpoint or a key that comes twice, or a path that leaves its directory.
    """
    path = Path(path)
    path = path / SERIES_NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path} is not there: make a series with launch/pretrain.py --output_dir {path.parent}")
    root = path.parent.resolve()
    checkpoints = [{**entry, "path": str(_inside(root, entry["path"], path))} for entry in _entries(path)]
    _refuse_doubles(path, [entry["path"] for entry in checkpoints])
    return checkpoints


def check_checkpoints(checkpoints: Any) -> list[dict[str, Any]]:
    """The entries of a parsed list of checkpoints, wherever their paths lead; figures that are not finite are None.

    Raises ValueError for anything but a list of such entries, naming the first place that is wrong.
    """
    try:
        found = _Series.model_validate({"checkpoints": checkpoints}).checkpoints
    except ValidationError as error:
        raise ValueError(_complaint(error)) from error
    figures = [
        {"validation_loss": one.validation_loss, "validation_accuracy": one.validation_accuracy} for one in found
    ]
    return [{**entry, **own} for entry, own in zip(checkpoints, figures, strict=True)]


def add_to_series(path: Path, entry: dict[str, Any]) -> None:
    """Add a checkpoint, or replace the one of the same path; atomic. ValueError where the file holds no such list."""
    checkpoints = _entries(path) if path.exists() else []
    kept = [other for other in checkpoints if other["path"] != entry["path"]]
    ordered = sorted([*kept, entry], key=lambda other: (other["budget_tokens"], other["kind"] != "raw"))
    write_json(path, {"schema_version": SCHEMA_VERSION, "checkpoints": ordered})


def _entries(path: Path) -> list[dict[str, Any]]:
    """The checked entries as they stand in the file."""
    content = read_json(path, unique_keys=True)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValueError(f"{path} is no series of schema version {SCHEMA_VERSION}: {REMEDY}")
    try:
        entries = check_checkpoints(content.get("checkpoints"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}: {REMEDY}") from error
    _refuse_doubles(path, [entry["path"] for entry in entries])
    _refuse_doubles(path, [_planned_as(entry) for entry in entries])
    return entries


def _planned_as(entry: dict[str, Any]) -> str:
    """What tells a checkpoint of a run from the others: kind, seed, and the budget in the unit it was planned in."""
    unit = entry.get("budget_unit", "tokens")
    planned = entry.get("budget") if unit != "tokens" else None
    amount = entry["budget_tokens"] if planned is None else planned
    return f"{entry['kind']} {float(amount):.17g} {unit}, seed {entry['pretraining_seed']}"


def _inside(root: Path, name: str, path: Path) -> Path:
    """The absolute path of a checkpoint; ValueError unless it lies below `root`."""
    try:
        target = (root / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, or characters that no path can have
        raise ValueError(f"{path}: {name[:SHOWN_CHARACTERS]!r} is no path ({error}): {REMEDY}") from error
    if target == root or not target.is_relative_to(root):
        shown = name[:SHOWN_CHARACTERS]
        raise ValueError(f"{path}: {shown!r} lies outside {root}: a series holds its own checkpoints only")
    return target


def _refuse_doubles(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{path} lists {twice[0][:SHOWN_CHARACTERS]} twice: keep one of the two entries")


def _complaint(error: ValidationError) -> str:
    """What is wrong, in one line: all fields that the first incomplete checkpoint lacks, or the first wrong value."""
    problems = error.errors(include_url=False)
    missing = [problem["loc"] for problem in problems if problem["type"] == "missing"]
    if missing:
        names = [str(loc[-1]) for loc in missing if loc[:-1] == missing[0][:-1]]
        return f"{_place(missing[0][:-1])} lacks {', '.join(names)}"
    first = problems[0]
    shown, wanted = repr(first["input"]), first["msg"].replace("Input should be", "it must be")
    if first["type"] == "model_type":
        wanted = "it must be an object"
    return f"{_place(first['loc'])} is {shown[:SHOWN_CHARACTERS]}{'...' * (len(shown) > SHOWN_CHARACTERS)}: {wanted}"


def _place(loc: Sequence[int | str]) -> str:
    """("checkpoints", 2, "flops") -> checkpoints[2].flops."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
