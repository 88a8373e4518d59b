"""Every cell's score under weights of the examples equals the metric of the examples repeated that often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from gap.intervals.weighted_metrics import tabulate_examples

RANDOM = np.random.default_rng(0)
NUM = 60
REPEATS = RANDOM.integers(0, 4, NUM)


def records(labels: Any, predictions: Any, clusters: Any = None) -> dict[str, dict[str, Any]]:
    return {
        f"example-{number:03d}": {
            "id": f"example-{number:03d}",
            "score": float(label == prediction),
            "label": label,
            "prediction": prediction,
            **({} if clusters is None else {"cluster": str(clusters[number])}),
        }
        for number, (label, prediction) in enumerate(zip(labels, predictions, strict=True))
    }


METRICS = pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("accuracy", lambda labels, guesses: np.mean(labels == guesses)),
        ("f1", lambda labels, guesses: f1_score(labels, guesses)),
        ("macro_f1", lambda labels, guesses: f1_score(labels, guesses, average="macro")),
        ("matthews", matthews_corrcoef),
        ("pearson", lambda labels, guesses: pearsonr(labels, guesses).statistic),
        ("spearman", lambda labels, guesses: spearmanr(labels, guesses).statistic),
    ],
)


def labels_and_cells(metric: str) -> tuple[Any, list[Any]]:
    """Labels and the guesses of two cells."""
    if metric in ("pearson", "spearman"):
        values = RANDOM.integers(0, 6, NUM).astype(float)
        return values, [values + RANDOM.normal(size=NUM).round(1) for _ in range(2)]
    labels = RANDOM.integers(0, 2, NUM)
    return labels, [np.where(RANDOM.random(NUM) < 0.7, labels, 1 - labels) for _ in range(2)]


@METRICS
def test_weights_mean_repetition(metric: str, reference: Any) -> None:
    labels, cells = labels_and_cells(metric)
    table = tabulate_examples(metric, [records(labels.tolist(), cell.tolist()) for cell in cells])
    found = table.evaluate(np.stack([REPEATS, np.ones(NUM)]).astype(np.float32))
    repeated = np.repeat(np.arange(NUM), REPEATS)
    expected = [[reference(labels[rows], cell[rows]) for cell in cells] for rows in (repeated, np.arange(NUM))]
    np.testing.assert_allclose(found, expected, atol=2e-6)


@METRICS
def test_the_score_without_contaminated_examples_is_that_of_the_others(metric: str, reference: Any) -> None:
    labels, cells = labels_and_cells(metric)
    clusters, found = np.arange(NUM) // 4, RANDOM.random(NUM) < 0.4
    contaminated = {f"example-{number:03d}" for number in np.flatnonzero(found)}
    made = [records(labels.tolist(), cell.tolist(), clusters) for cell in cells]
    clean = tabulate_examples(metric, made, contaminated).clean_scores
    np.testing.assert_allclose(clean, [reference(labels[~found], cell[~found]) for cell in cells], atol=2e-6)
    assert tabulate_examples(metric, made).clean_scores is None
    assert tabulate_examples(metric, made, set(made[0])).clean_scores is None


def test_f1_stays_that_of_the_positive_class_where_all_positives_are_contaminated() -> None:
    table = tabulate_examples("f1", [records([1, 0, 0], [1, 0, 0])], {"example-000"})
    np.testing.assert_allclose(table.clean_scores, [0.0])


def test_macro_f1_and_matthews_of_three_classes() -> None:
    labels = RANDOM.integers(0, 3, NUM)
    guesses = np.where(RANDOM.random(NUM) < 0.5, labels, RANDOM.integers(0, 3, NUM))
    weights = np.ones((1, NUM), dtype=np.float32)
    for metric, expected in (
        ("macro_f1", f1_score(labels, guesses, average="macro")),
        ("matthews", matthews_corrcoef(labels, guesses)),
    ):
        table = tabulate_examples(metric, [records(labels.tolist(), guesses.tolist())])
        assert table.evaluate(weights)[0, 0] == pytest.approx(expected, abs=1e-6)


def test_questions_of_one_paragraph_are_weighted_together() -> None:
    labels, guesses = RANDOM.integers(0, 2, NUM), RANDOM.integers(0, 2, NUM)
    clusters = np.arange(NUM) // 7
    table = tabulate_examples("accuracy", [records(labels.tolist(), guesses.tolist(), clusters)])
    assert table.num_clusters == clusters.max() + 1
    weights = RANDOM.random((3, table.num_clusters)).astype(np.float32)
    # np.unique sorts cluster names as text, and so does the table
    order = {name: number for number, name in enumerate(sorted({str(one) for one in clusters}))}
    spread = weights[:, [order[str(one)] for one in clusters]]
    expected = (spread * (labels == guesses)).sum(axis=1) / spread.sum(axis=1)
    np.testing.assert_allclose(table.evaluate(weights)[:, 0], expected, rtol=1e-5)
    assert table.units is not None
    np.testing.assert_allclose(table.units.mean(), (labels == guesses).mean(), rtol=1e-5)


def test_the_order_of_the_files_does_not_matter() -> None:
    cell = records([0, 1, 1], [0, 1, 0])
    table = tabulate_examples("accuracy", [cell, dict(reversed(cell.items()))])
    scores = table.evaluate(np.array([[1, 2, 5]], dtype=np.float32))
    assert scores[0, 0] == scores[0, 1]


def test_cells_of_different_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="different examples"):
        tabulate_examples("accuracy", [records([0, 1], [0, 1]), records([0, 1, 1], [0, 1, 1])])
    with pytest.raises(ValueError, match="labels"):
        tabulate_examples("f1", [records([0, 1], [0, 1]), records([1, 1], [0, 1])])
