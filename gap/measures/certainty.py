"""Loss and calibration of cells, from what their records say about how sure the model was.

All are means over examples (over words, where a sentence's words are answered one by one), so they are unbiased at any
number of examples and the multi-bootstrap holds for them as it does for accuracy. A binned calibration error is neither
(docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gap.intervals.bootstrap import Evaluate
from gap.intervals.variance import Floats
from gap.measures.ratios import Places, ratio_of

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """A measure that is a mean: `of_record` is an example's (a sentence's sum over its rated words), None: unknown."""

    title: str
    unit: str
    bounds: tuple[float, float]
    of_record: Callable[[Record], float | None]


def _loss(record: Record) -> float | None:
    known = record.get("gold_log_probability")
    return None if known is None else -float(known)


def _overconfidence(record: Record) -> float | None:
    if "rated_words" in record:
        return record.get("overconfidence")
    return None if record.get("confidence") is None else float(record["confidence"]) - float(record["score"])


def _squared_error(record: Record) -> float | None:
    if "rated_words" in record:
        return record.get("squared_error")
    over = _overconfidence(record)
    return None if over is None else over * over


MEASURES = {
    "loss": Measure("loss", "nats", (0.0, np.inf), _loss),
    "brier_score": Measure("Brier score", "probability squared", (0.0, 1.0), _squared_error),
    "overconfidence": Measure("overconfidence", "probability", (-1.0, 1.0), _overconfidence),
}


@dataclass(frozen=True)
class Certainty:
    """A measure of M cells on the examples for which all of them have it."""

    values: Floats  # [M]
    evaluate: Evaluate
    units: NDArray[np.float32]  # [M, G]: what each cluster of examples contributes
    num_examples: int


def certainty_of(cells: Sequence[Sequence[Record]], clusters: Places) -> dict[str, Certainty]:
    """The measures, by name, of M cells' records of the same N examples in clusters [N].

    An example that lacks a measure in one cell is left out of it in all: the cells would be averaged over different
    examples. A measure that no example has in all cells is absent.
    """
    sizes = np.array([[record.get("rated_words", 1) for record in records] for records in cells], dtype=np.float32)
    found = {}
    for name, measure in MEASURES.items():
        values = np.array([[measure.of_record(record) for record in records] for records in cells], dtype=np.float64)
        known = np.isfinite(values).all(axis=0)
        if not known.any() or not (sizes[:, known].sum(axis=1) > 0).all():
            continue
        tops = np.where(known, values, 0.0).astype(np.float32)
        evaluate, units = ratio_of(tops, np.where(known, sizes, 0).astype(np.float32), clusters)
        even = np.ones((1, int(clusters.max()) + 1), dtype=np.float32)
        found[name] = Certainty(evaluate(even)[0], evaluate, units, int(known.sum()))
    return found
