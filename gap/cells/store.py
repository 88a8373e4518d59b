"""scores.jsonl, one line a finished cell, and the files of per-example predictions beside it.

A predictions file is JSON: {"schema_version": 1, "examples": [{"id", "score", "cluster"?, "label"?, "prediction"?,
"contaminated"?}, ...]}. `score` is the example's own score in 0..1 (exact match, F1 of the answer, right or wrong);
`cluster` names what examples share (the paragraph of a question); `label` and `prediction` are needed by metrics that
are no mean (f1 of classes, macro_f1, matthews, pearson, spearman); `contaminated` is true for an example whose text was
found in the pretraining corpus. Examples are joined by id, never by row.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
KINDS = ("raw", "annealed", "reference", "reference_scratch")
STATUSES = ("done", "collapsed", "not_finite")
LONGEST_LINE_BYTES = 1 << 20
LARGEST_PREDICTIONS_BYTES = 1 << 30


@dataclass(frozen=True)
class Cell:
    """One fine-tuning run of one checkpoint and its score (0 to 1; correlations from -1).

    `budget_tokens` is None for a reference from outside the series. `details` keeps whatever else the line holds.
    """

    fingerprint: str
    task: str
    kind: str
    budget_tokens: int | None
    pretraining_seed: int
    finetuning_seed: int
    metric: str
    score: float
    control: str | None = None
    label_fraction: float = 1.0
    epochs_factor: float = 1.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    status: str = "done"
    seconds: float = 0.0
    predictions: str | None = None  # relative to the folder of scores.jsonl
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r}: use one of {', '.join(KINDS)}")
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r}: use one of {', '.join(STATUSES)}")
        if not isinstance(self.score, (int, float)) or not math.isfinite(self.score) or not -1 <= self.score <= 1:
            raise ValueError(
                f"score {self.score!r} of {self.task}: a number from 0 to 1 (correlations from -1) is needed; "
                "a run that became NaN predicts nothing right, write the score of that"
            )
        if self.kind in ("raw", "annealed") and (self.budget_tokens is None or self.budget_tokens < 0):
            raise ValueError(f"budget_tokens {self.budget_tokens!r} of a {self.kind} checkpoint: 0 or more is needed")

    @property
    def failed(self) -> bool:
        """Collapsed to the majority answer, or not finite."""
        return self.status != "done"

    @property
    def place(self) -> tuple[Any, ...]:
        """What the cell measures, whatever code and options measured it."""
        return (
            *(self.task, self.kind, self.budget_tokens, self.control, self.label_fraction, self.epochs_factor),
            *(self.pretraining_seed, self.finetuning_seed),
        )


def fingerprint(parts: Mapping[str, Any]) -> str:
    """sha256 of everything that decides a cell (model, data, options, code version), whatever the order of keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def append_score(path: Path, cell: Cell) -> None:
    """Add one line, durably; refuses a fingerprint that is there. A line torn by a crash is cut off first.

    Several processes may append to one file: the file is locked while it is looked at and written.
    """
    record = {"schema_version": SCHEMA_VERSION, **asdict(cell)}
    record.update(record.pop("details"))
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if cell.fingerprint in {one.fingerprint for one in _parse(content[:whole], path)}:
            raise ValueError(f"{path} holds the cell {cell.fingerprint} already: a finished cell is never run again")
        file.truncate(whole)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read_scores(path: Path) -> list[Cell]:
    """All finished cells in the order they were written; a torn last line (a crash while writing) is left out.

    Raises ValueError naming the line when another line is damaged or a fingerprint comes twice.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run the cells first, or name the folder that holds scores.jsonl")
    content = path.read_bytes()
    cells = _parse(content[: content.rfind(b"\n") + 1], path)
    seen: set[str] = set()
    for cell in cells:
        if cell.fingerprint in seen:
            raise ValueError(f"{path}: fingerprint {cell.fingerprint} comes twice; remove one of the two lines")
        seen.add(cell.fingerprint)
    return cells


def reported_cells(cells: Sequence[Cell], planned: Collection[str] | None) -> tuple[list[Cell], int]:
    """The cells whose fingerprints are planned, and how many others are left out.

    Seeds of other options would be averaged with them. Where no plan is known (None): the last written of each place.
    """
    if planned is not None:
        kept = [cell for cell in cells if cell.fingerprint in planned]
    else:
        kept = list({cell.place: cell for cell in cells}.values())
    return kept, len(cells) - len(kept)


def read_predictions(path: Path) -> dict[str, dict[str, Any]]:
    """Example id -> its record. Raises ValueError for a damaged file, a repeated id or a score outside 0..1."""
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: scores.jsonl names it; restore it, or remove its line from scores.jsonl and run the "
            "same command again"
        )
    if path.stat().st_size > LARGEST_PREDICTIONS_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes: at most {LARGEST_PREDICTIONS_BYTES} are read")
    try:
        examples = json.loads(path.read_text(encoding="utf-8"))["examples"]
        records = {str(example["id"]): dict(example) for example in examples}
        outside = [name for name, record in records.items() if not 0.0 <= float(record["score"]) <= 1.0]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f'{path} is no predictions file ({error}): {{"examples": [{{"id", "score"}}]}} is') from error
    if len(records) != len(examples) or not records:
        raise ValueError(f"{path}: {len(examples)} examples with {len(records)} different ids; each id comes once")
    if outside:
        raise ValueError(f"{path}: scores outside 0..1, the first of example {outside[0]}; write shares, not percent")
    return records


def write_predictions(path: Path, examples: Iterable[Mapping[str, Any]]) -> None:
    """Write per-example records ({"id", "score", ...}) whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    value = {"schema_version": SCHEMA_VERSION, "examples": list(examples)}
    temporary.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _parse(content: bytes, path: Path) -> list[Cell]:
    names = {one.name for one in fields(Cell)} - {"details"}
    cells = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        if len(line) > LONGEST_LINE_BYTES:
            raise ValueError(f"{path}, line {number}: {len(line)} bytes; a cell has at most {LONGEST_LINE_BYTES}")
        try:
            record = json.loads(line)
            version = record.pop("schema_version")
            known = {name: record.pop(name) for name in list(record) if name in names}
            if version != SCHEMA_VERSION:
                raise ValueError(f"schema_version {version}, this program reads {SCHEMA_VERSION}")
            cells.append(Cell(**known, details=record))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}; mend or remove the line") from error
    return cells
