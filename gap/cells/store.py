"""scores.jsonl, one line per finished cell, and the files of per-example predictions next to it.

A predictions file is JSON: {"schema_version": 1, "examples": [{"id", "score", "cluster"?, "label"?, "prediction"?,
"contaminated"?, "gold_log_probability"?, "confidence"?}, ...]}. `score` is the example's own score in 0..1 (exact
match, F1 of the answer, right or wrong); `cluster` names what examples share (the article of a question); `label` and
`prediction` are needed by metrics that are not means (f1 of classes, macro_f1, matthews, pearson, spearman), counts by
those that are ratios of sums (`correct` of `words`; `true_positives`, `predicted_entities`, `gold_entities`);
`contaminated` is true for an example whose text was found in the pretraining corpus. Examples are joined by id, never
by row.

`gold_log_probability` is the natural logarithm of the probability that the model gives to the right answer,
`confidence` the probability of the answer that it gives. In a sentence of words they are sums over its `rated_words`:
`gold_log_probability`, `overconfidence` (confidence minus 1 or 0, for right or wrong) and `squared_error` (its square).
A field that is missing is not known: regressions have none, a question whose answer lies in no window has no
log-probability, and files of earlier versions lack them.

Minimal pairs have the log-likelihoods of both sentences (`log_likelihood_good`, `log_likelihood_bad`), and the score by
plain pseudo-log-likelihoods, `plain_score`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from runtime.files.json_lines import JsonLines
from runtime.files.schemas import (
    Count,
    Id,
    Items,
    Leaf,
    Name,
    Number,
    PathName,
    Schema,
    Seconds,
    Share,
    checked,
    read_object,
)
from runtime.files.whole_files import write_text

SCHEMA_VERSION = 1
LINEAR_PROBE = "linear_probe"  # the control of a cell whose encoder is frozen
KINDS = ("raw", "annealed", "reference", "reference_scratch", "start")
STATUSES = ("done", "collapsed", "not_finite")
LARGEST_PREDICTIONS_BYTES = 1 << 30
PREDICTIONS_REMEDY = "restore it, or remove its line from scores.jsonl and run the same command again"


@dataclass(frozen=True)
class Cell:
    """One fine-tuning run of one checkpoint and its score (0 to 1; correlations from -1).

    `budget_tokens` is None for a reference from outside the series. `details` keeps all other values of the line.
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
                "a run that became NaN gets the score of wrong predictions; write that"
            )
        if self.kind in ("raw", "annealed", "start") and (self.budget_tokens is None or self.budget_tokens < 0):
            raise ValueError(f"budget_tokens {self.budget_tokens!r} of a {self.kind} checkpoint: 0 or more is needed")

    @property
    def failed(self) -> bool:
        """Collapsed to the majority answer, or not finite."""
        return self.status != "done"

    @property
    def place(self) -> tuple[Any, ...]:
        """What the cell measures, regardless of the code and options."""
        return (
            *(self.task, self.kind, self.budget_tokens, self.control, self.label_fraction, self.epochs_factor),
            *(self.pretraining_seed, self.finetuning_seed),
        )


CELL_FIELDS = frozenset(item.name for item in fields(Cell)) - {"details"}


class _ScoreLine(Schema):
    """A line of scores.jsonl; the ranges are the cell's own."""

    schema_version: Literal[1]
    fingerprint: Name  # of all that decides the score
    task: Name
    kind: Name  # of the checkpoint: raw, annealed, reference, ...
    budget_tokens: Count | None  # null for a reference
    pretraining_seed: Count
    finetuning_seed: Count
    metric: Name
    score: Number  # a share, 0 to 1; higher is better
    control: Name | None = None  # which control it belongs to
    label_fraction: Number = 1.0  # share of the training examples
    epochs_factor: Number = 1.0  # of the epochs that others have
    metrics: dict[str, Number] = {}  # noqa: RUF012
    status: Name = "done"  # or collapsed, not_finite
    seconds: Seconds = 0.0
    predictions: PathName | None = None  # file with the records of the examples, relative to this one
    # The details that the analysis computes with.
    learning_rate: Number | None = None
    epochs: Number | None = None
    training_examples: Count | None = None
    peeked_score: Number | None = None  # the best epoch by the scored examples themselves
    zero_shot: bool = False  # scored without fine-tuning
    search_seconds: Seconds | None = None  # its share of the search that chose its learning rate and epochs
    clusters: Name | None = None  # what a cluster of examples is, in the singular


LogProbability = Annotated[float, Field(le=0, ge=-1e12, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class _Example(Schema):
    id: Id
    score: Number  # of this example, 0 to 1
    cluster: Leaf = None  # what it shares with others: an article, a paragraph, a document
    label: Leaf = None
    prediction: Leaf = None
    contaminated: bool | None = None  # whether its text stands in the corpus
    gold_log_probability: LogProbability | None = None  # of the right answer
    confidence: Share | None = None  # in the predicted answer
    rated_words: Count | None = None
    overconfidence: Number | None = None  # confidence minus right
    squared_error: Amount | None = None  # its square, the Brier score
    correct: Count | None = None
    words: Count | None = None
    true_positives: Count | None = None
    predicted_entities: Count | None = None
    gold_entities: Count | None = None
    log_likelihood_good: LogProbability | None = None
    log_likelihood_bad: LogProbability | None = None
    plain_score: Share | None = None


class _Predictions(Schema):
    examples: Items[_Example]


def fingerprint(parts: Mapping[str, Any]) -> str:
    """sha256 of everything that decides a cell (model, data, options, code version), in any order of keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class ScoreFile:
    """scores.jsonl as it grows: a line is parsed once, however often the cells are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = JsonLines(path, _ScoreLine, as_item=_cell_of, unique="fingerprint")

    def append(self, cell: Cell) -> None:
        """Add one line, durably; refuses a fingerprint that is already there. A line torn by a crash is cut off first.

        Several processes may append to one file: it is locked while it is read and written.
        """
        record = {"schema_version": SCHEMA_VERSION, **asdict(cell)}
        record.update(record.pop("details"))
        self._lines.append(record)

    def cells(self) -> list[Cell]:
        """All finished cells in the order they were written, none without a file; a torn last line is left out.

        Raises ValueError naming the line if another line is damaged or a fingerprint occurs twice.
        """
        return self._lines.read()


def append_score(path: Path, cell: Cell) -> None:
    """Add one line, as `ScoreFile.append`."""
    ScoreFile(path).append(cell)


def read_scores(path: Path) -> list[Cell]:
    """All finished cells, as `ScoreFile.cells`; ValueError if there is no file."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run the cells first, or name the folder that holds scores.jsonl")
    return ScoreFile(path).cells()


def _cell_of(record: Mapping[str, Any]) -> Cell:
    known = {name: value for name, value in record.items() if name in CELL_FIELDS}
    rest = {name: value for name, value in record.items() if name not in CELL_FIELDS and name != "schema_version"}
    return Cell(**known, details=rest)


def reported_cells(cells: Sequence[Cell], planned: Collection[str] | None) -> tuple[list[Cell], int]:
    """The cells whose fingerprints are planned, and how many others are left out.

    Otherwise seeds of other options would be averaged with them. Without a known plan (None), the last line for each
    measurement is kept.
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
    content = read_object(path, _Predictions, PREDICTIONS_REMEDY, largest=LARGEST_PREDICTIONS_BYTES)
    return _by_id(content["examples"], str(path))


def checked_records(examples: Sequence[Mapping[str, Any]], place: str, remedy: str) -> dict[str, dict[str, Any]]:
    """Example id -> its record, for records that were not read from a predictions file; errors name the `place`."""
    checked({"examples": list(examples)}, _Predictions, place, remedy)
    return _by_id(examples, place)


def _by_id(examples: Sequence[Mapping[str, Any]], place: str) -> dict[str, dict[str, Any]]:
    records = {str(example["id"]): dict(example) for example in examples}
    if len(records) != len(examples) or not records:
        raise ValueError(f"{place}: {len(examples)} examples with {len(records)} different ids; each id may occur once")
    outside = next((name for name, record in records.items() if not 0.0 <= float(record["score"]) <= 1.0), None)
    if outside is not None:
        raise ValueError(f"{place}: scores outside 0..1, the first of example {outside}; write shares, not percent")
    return records


def write_predictions(path: Path, examples: Iterable[Mapping[str, Any]]) -> None:
    """Write per-example records ({"id", "score", ...}) whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {"schema_version": SCHEMA_VERSION, "examples": list(examples)}
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
