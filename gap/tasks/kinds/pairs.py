"""Minimal pairs (BLiMP, Warstadt et al. 2020): which of two sentences is likelier to the pretrained model as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetuning.examples.recipe import Recipe
from finetuning.examples.record_files import LINE_FORMATS, file_format, placed_records
from gap.tasks.kinds.certainty import finite
from gap.tasks.kinds.reading import ranked
from gap.tasks.kinds.task_data import ReadingOptions, Record, RowOptions, TaskData, TaskSpec
from runtime.files.schemas import shown

SENTENCES = ("sentence_good", "sentence_bad")
TOKENS_A_WORD = 1.4  # a guess, to estimate the number of rows
LAYOUT = "needs sentence_good and sentence_bad, two texts; UID, pairID and field are optional"


@dataclass(frozen=True)
class MinimalPair:
    """An acceptable sentence and an unacceptable one that differs from it as little as possible."""

    id: str  # of the paradigm and of the pair in it
    good: str
    bad: str
    paradigm: str  # BLiMP's UID
    field: str  # morphology, syntax, semantics, ...; empty: not named


@dataclass(frozen=True)
class PairData(TaskData):
    """A `pairs` task, scored by the share of pairs whose acceptable sentence has the higher log-likelihood.

    Pairs of one paradigm, which are made from one template, are a cluster; with one paradigm alone each pair is.
    """

    in_small_world: ClassVar[bool] = False
    zero_shot: ClassVar[bool] = True

    @classmethod
    def read(cls, spec: TaskSpec, options: ReadingOptions) -> Self:
        """A folder with a JSON-lines file for each paradigm, or one such file; N pairs of every paradigm are drawn."""
        pairs: dict[str, MinimalPair] = {}
        by_paradigm: dict[str, list[str]] = {}
        for pair, place in _pairs_of(_files(spec)):
            if pair.id in pairs:
                raise ValueError(f"{place}: the pair {shown(pair.id)} occurs twice; give each pair its own pairID")
            pairs[pair.id] = pair
            by_paradigm.setdefault(pair.paradigm, []).append(pair.id)
        limits = {"after the @": spec.max_train_samples, "--max_eval_samples": options.max_eval_samples}
        for of, most in limits.items():
            if most is not None and most < 1:
                raise ValueError(f"task {spec.name}: at most {most} pairs ({of}) leave none: name 1 or more")
        drawn = {name for own in by_paradigm.values() for name in ranked(own, "sample")[: spec.max_train_samples]}
        kept = set(ranked(drawn, "sample")[: options.max_eval_samples])
        scored = {name: pair for name, pair in pairs.items() if name in kept}
        several = len({pair.paradigm for pair in scored.values()}) > 1
        clusters = {name: pair.paradigm if several else name for name, pair in scored.items()}
        return cls(spec, "accuracy", train={}, scored=scored, train_clusters={}, scored_clusters=clusters)

    def encode(
        self,
        splits: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        options: RowOptions,
    ) -> Recipe:
        """There is no recipe: nothing is trained."""
        raise TypeError(f"task {self.spec.name} is zero-shot: it has no recipe")

    def record(self, example: Any, prediction: Mapping[str, Any]) -> Record:
        """1 if the acceptable sentence is likelier, 0 if it is less likely, 0.5 for a tie, and both log-likelihoods.

        `prediction` has `good` and `bad`; with `plain_good` and `plain_bad` the record also has `plain_score`.
        """
        good, bad = prediction["good"], prediction["bad"]
        record = {
            "score": preference(good, bad),
            **finite(log_likelihood_good=good, log_likelihood_bad=bad),
        }
        if "plain_good" in prediction:
            record["plain_score"] = preference(prediction["plain_good"], prediction["plain_bad"])
        return record

    def metrics(self, scores: Mapping[str, float], records: Sequence[Record]) -> dict[str, float]:
        """Accuracy, that of plain pseudo-log-likelihoods, and that of every field of linguistics."""
        found = {"accuracy": _mean(record["score"] for record in records)}
        if records and "plain_score" in records[0]:
            found["accuracy_pll_original"] = _mean(record["plain_score"] for record in records)
        fields = {str(record["id"]): self.scored[record["id"]].field for record in records}
        for name in sorted({field for field in fields.values() if field}):
            found[f"accuracy_{name}"] = _mean(record["score"] for record in records if fields[record["id"]] == name)
        return found

    @property
    def grouping(self) -> str:
        """Paradigm, or pair where there is one paradigm only."""
        return "pair" if all(name == cluster for name, cluster in self.scored_clusters.items()) else "paradigm"

    def passage(self, example: Any) -> str:
        """The acceptable sentence: the other one is hardly anywhere."""
        return example.good

    def row_texts(self, example: Any) -> list[str]:
        """Each sentence as often as it is scored: for every token, and for all but the last of a word once more."""
        texts = (example.good, example.bad)
        return [text for text in texts for _ in range(max(1, round((2 * TOKENS_A_WORD - 1) * len(text.split()))))]


def preference(good: float, bad: float) -> float:
    """1 where the first is higher, 0.5 where both are the same, else (and for NaN) 0."""
    return 1.0 if good > bad else 0.5 if good == bad else 0.0


def _files(spec: TaskSpec) -> list[Path]:
    place = Path(spec.place).expanduser()
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise ValueError(
            f"task {spec.name}: {spec.place} does not exist: name a folder of JSON-lines files, one a paradigm, or one "
            "such file"
        )
    files = [file for file in sorted(place.iterdir()) if file.is_file() and file_format(file) in LINE_FORMATS]
    if not files:
        raise ValueError(f"task {spec.name}: {place} holds no file that ends with {' or '.join(LINE_FORMATS)}")
    return files


def _pairs_of(files: Sequence[Path]) -> Iterable[tuple[MinimalPair, str]]:
    """Every pair with its file and line; ValueError names the line of a row that is none."""
    for file in files:
        number = -1
        for number, (place, row) in enumerate(placed_records(file)):
            good, bad = (_sentence(row, name, place) for name in SENTENCES)
            paradigm = _name(row, "UID", place) or file.name.split(".")[0]
            own = _name(row, "pairID", place) or str(number)
            yield MinimalPair(f"{paradigm}-{own}", good, bad, paradigm, _name(row, "field", place)), place
        if number < 0:
            raise ValueError(f"{file}: no row; give a file with at least one pair")


def _sentence(row: Mapping[str, Any], key: str, place: str) -> str:
    text = row.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{place}: {key} is {shown(text)}: a row {LAYOUT}")
    return text


def _name(row: Mapping[str, Any], key: str, place: str) -> str:
    """A name in a row; numbers count as their digits, and empty is none."""
    value = row.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
        raise ValueError(f"{place}: {key} is {shown(value)}: a text or a whole number is needed")
    return "" if value is None else str(value)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
