"""Metrics under example weights: every cell's score, recomputed (not averaged) for any weights of the examples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gap.intervals.bootstrap import Evaluate, Weights
from gap.intervals.variance import Floats
from gap.measures.certainty import Certainty, certainty_of
from gap.measures.ratios import Places, by_cluster, mean_of, ratio_of

Records = Mapping[str, Mapping[str, Any]]  # example id -> its record in a predictions file
CORRELATIONS = ("pearson", "spearman")
SIGNED_METRICS = ("matthews", *CORRELATIONS)  # from -1 to 1; all others from 0
CORPUS_METRICS = ("f1", "macro_f1", "matthews", *CORRELATIONS)
# Metrics that are ratios of sums over examples, where the records have these counts: numerator, denominator.
RATIOS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "accuracy": (("correct",), ("words",)),
    "f1": (("true_positives", "true_positives"), ("predicted_entities", "gold_entities")),
}


@dataclass(frozen=True)
class ExampleTable:
    """M cells scored on N examples in G clusters."""

    evaluate: Evaluate
    num_examples: int
    num_clusters: int
    units: NDArray[np.float32] | None  # [M, G]: what each cluster contributes, for means and ratios
    scores: NDArray[np.float32]  # [M, N] each example's own score
    contaminated: NDArray[np.bool_]  # [N]
    ids: tuple[str, ...]  # of the N examples
    clean_scores: Floats | None  # [M]: every cell's score without contaminated examples, if there are both
    certainty: Mapping[str, Certainty]  # loss and calibration by name, those that the records have


def tabulate_examples(metric: str, cells: Sequence[Records], contaminated_ids: Collection[str] = ()) -> ExampleTable:
    """Join the predictions of M cells by example id.

    An example is contaminated if its id is named, or a cell's record says so: the corpus may have been searched after
    the first cells. Raises ValueError if the cells were not scored on the same examples with the same labels and
    clusters.
    """
    ids = sorted(cells[0])
    for number, records in enumerate(cells):
        if records.keys() != cells[0].keys():
            strange = sorted(records.keys() ^ cells[0].keys())[:3]
            raise ValueError(
                f"predictions {number} and 0 are for different examples ({len(records)} and {len(cells[0])}, "
                f"such as {strange}): score every cell of a task on the same file"
            )
    first = [cells[0][name] for name in ids]
    names = [str(record.get("cluster", name)) for name, record in zip(ids, first, strict=True)]
    clusters = np.unique(names, return_inverse=True)[1]
    scores = np.array([[records[name]["score"] for name in ids] for records in cells], dtype=np.float32)
    contaminated = np.array(
        [name in contaminated_ids or any(records[name].get("contaminated") for records in cells) for name in ids]
    )
    if metric in RATIOS and all(name in record for record in first for names in RATIOS[metric] for name in names):
        parts = [
            np.array([[sum(records[name][key] for key in keys) for name in ids] for records in cells], dtype=np.float32)
            for keys in RATIOS[metric]
        ]
        there = RATIOS[metric][1][-1]  # of the data, not of a prediction
        if any(records[name].get(there) != record[there] for records in cells for name, record in cells[0].items()):
            raise ValueError(f"cells of one task disagree about {there}: score every cell on the same file")

        def evaluator(kept: Places, groups: Places) -> tuple[Evaluate, NDArray[np.float32] | None]:
            return ratio_of(parts[0][:, kept], parts[1][:, kept], groups)

    elif metric in CORPUS_METRICS and all("label" in record and "prediction" in record for record in first):
        labels = np.array([record["label"] for record in first], dtype=object)
        if any([records[name].get("label") for name in ids] != labels.tolist() for records in cells):
            raise ValueError("cells of one task disagree about the labels: score every cell on the same file")
        predictions = np.array([[records[name].get("prediction") for name in ids] for records in cells], dtype=object)
        named = () if metric in CORRELATIONS else (*labels, *predictions.flat)
        classes = sorted({str(label) for label in named})

        def evaluator(kept: Places, groups: Places) -> tuple[Evaluate, NDArray[np.float32] | None]:
            return _corpus_metric(metric, labels[kept], predictions[:, kept], groups, classes), None
    else:

        def evaluator(kept: Places, groups: Places) -> tuple[Evaluate, NDArray[np.float32] | None]:
            return mean_of(scores[:, kept], groups)

    evaluate, units = evaluator(np.arange(len(ids)), clusters)
    clean, kept = None, np.flatnonzero(~contaminated)
    if 0 < len(kept) < len(ids):
        without, _ = evaluator(kept, np.zeros(len(kept), dtype=np.intp))
        clean = without(np.ones((1, 1), dtype=np.float32))[0]
    return ExampleTable(
        evaluate,
        len(ids),
        int(clusters.max()) + 1,
        units,
        scores,
        contaminated,
        tuple(ids),
        clean,
        certainty_of([[records[name] for name in ids] for records in cells], clusters),
    )


def _corpus_metric(
    metric: str, labels: NDArray[Any], predictions: NDArray[Any], clusters: Places, classes: Sequence[str]
) -> Evaluate:
    """The metric of predictions [M, N] of labels [N]; `classes` may exceed those that occur here."""
    if metric in CORRELATIONS:
        return _correlation(
            np.asarray(labels, float), np.asarray(predictions, float), clusters, ranked=metric == "spearman"
        )
    index = {name: number for number, name in enumerate(classes)}
    truth = np.array([index[str(label)] for label in labels])
    guesses = np.array([[index[str(label)] for label in row] for row in predictions])
    size = len(classes)
    cells = truth * size + guesses  # [M, N]
    counts = np.stack([by_cluster(cells == number, clusters) for number in range(size * size)], axis=-1)  # [M, G, K*K]
    table = counts.transpose(1, 0, 2).reshape(counts.shape[1], -1)
    measure = {"f1": _f1(index.get("1", size - 1)), "macro_f1": _macro_f1, "matthews": _matthews}[metric]

    def evaluate(weights: Weights) -> Floats:
        confusion = (weights @ table).astype(np.float64).reshape(len(weights), len(cells), size, size)
        return measure(confusion)

    return evaluate


def _f1(positive: int) -> Callable[[Floats], Floats]:
    """F1 of one class from confusion matrices [..., label, prediction]."""

    def measure(confusion: Floats) -> Floats:
        return _class_f1(confusion)[..., positive]

    return measure


def _class_f1(confusion: Floats) -> Floats:
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)


def _macro_f1(confusion: Floats) -> Floats:
    present = (confusion.sum(axis=-1) + confusion.sum(axis=-2)) > 0
    return _class_f1(confusion).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)


def _matthews(confusion: Floats) -> Floats:
    """Matthews correlation of any number of classes (Gorodkin 2004, equation 8)."""
    total = confusion.sum(axis=(-2, -1))
    truth, guess = confusion.sum(axis=-1), confusion.sum(axis=-2)
    covariance = total * np.trace(confusion, axis1=-2, axis2=-1) - (truth * guess).sum(axis=-1)
    spread = (total**2 - (truth**2).sum(axis=-1)) * (total**2 - (guess**2).sum(axis=-1))
    return np.where(spread > 0, covariance / np.sqrt(np.maximum(spread, 1e-300)), 0.0)


def _correlation(labels: Floats, predictions: Floats, clusters: NDArray[np.intp], *, ranked: bool) -> Evaluate:
    """Weighted Pearson correlation of values, or of mid-ranks recomputed under every draw's weights."""

    def evaluate(weights: Weights) -> Floats:
        spread = weights[:, clusters].astype(np.float64)
        truth = _midranks(labels, spread) if ranked else labels - labels.mean()
        columns = []
        for row in predictions:
            columns.append(_pearson(truth, _midranks(row, spread) if ranked else row - row.mean(), spread))
        return np.stack(columns, axis=1)

    return evaluate


def _midranks(values: Floats, weights: Floats) -> Floats:
    """Weight below each value plus half the weight of its ties, [D, N]."""
    ties = np.unique(values, return_inverse=True)[1]
    order = np.argsort(ties, kind="stable")
    starts = np.searchsorted(ties[order], np.arange(ties.max() + 1))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(sizes, axis=1) - sizes / 2)[:, ties]


def _pearson(first: Floats, second: Floats, weights: Floats) -> Floats:
    total = weights.sum(axis=1, keepdims=True)
    first_deviation = first - (weights * first).sum(axis=1, keepdims=True) / total
    second_deviation = second - (weights * second).sum(axis=1, keepdims=True) / total
    spread = (weights * first_deviation**2).sum(axis=1) * (weights * second_deviation**2).sum(axis=1)
    covariance = (weights * first_deviation * second_deviation).sum(axis=1)
    return np.where(spread > 1e-20, covariance / np.sqrt(np.maximum(spread, 1e-300)), 0.0)
