"""Every cell's score under weights of the examples equals the metric of the examples repeated that often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from gap.measures.weighted_metrics import tabulate_examples

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


def counted(cell: Any, clusters: Any) -> dict[str, dict[str, Any]]:
    """Records of sentences with counts [N, 5]: correct, words, true positives, predicted, there."""
    names = ("correct", "words", "true_positives", "predicted_entities", "gold_entities")
    return {
        f"example-{number:03d}": {
            "id": f"example-{number:03d}",
            "score": 0.5,
            "cluster": str(clusters[number]),
            **dict(zip(names, row.tolist(), strict=True)),
        }
        for number, row in enumerate(cell)
    }


def counts_of_cells() -> list[Any]:
    """The counts of two cells on the same sentences, some of which are empty or have no entity."""
    words, there = RANDOM.integers(0, 9, NUM), RANDOM.integers(0, 3, NUM)
    found = []
    for _ in range(2):
        right, hits = RANDOM.integers(0, words + 1), RANDOM.integers(0, there + 1)
        found.append(np.stack([right, words, hits, hits + RANDOM.integers(0, 2, NUM), there], axis=1))
    return found


@pytest.mark.parametrize(
    ("metric", "ratio"),
    [
        ("accuracy", lambda sums: sums[0] / sums[1]),
        ("f1", lambda sums: 2 * sums[2] / (sums[3] + sums[4])),
    ],
)
def test_ratios_of_sums_are_recomputed_from_the_counts_of_whole_clusters(metric: str, ratio: Any) -> None:
    cells, clusters = counts_of_cells(), np.arange(NUM) // 5
    table = tabulate_examples(metric, [counted(cell, clusters) for cell in cells])
    names = np.unique(clusters.astype(str))
    weights = RANDOM.integers(0, 4, len(names))
    repeats = weights[np.searchsorted(names, clusters.astype(str))]
    found = table.evaluate(np.stack([weights, np.ones(len(names))]).astype(np.float32))
    expected = [[ratio(by @ cell) for cell in cells] for by in (repeats, np.ones(NUM))]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert table.units is not None
    np.testing.assert_allclose(table.units.mean(axis=1), expected[1], atol=2e-6)
    nudged = np.ones((1, len(names)))  # a contribution is the slope of the score in the weight of its cluster
    nudged[0, 3] += 1e-3
    slopes = (table.evaluate(nudged)[0] - table.evaluate(np.ones((1, len(names))))[0]) / 1e-3
    np.testing.assert_allclose((table.units[:, 3] - expected[1]) / len(names), slopes, rtol=2e-2, atol=1e-5)
    assert (table.evaluate(np.zeros((1, len(names)), dtype=np.float32)) == 0).all()
    kept = np.arange(NUM) % 3 > 0
    without = {f"example-{number:03d}" for number in np.flatnonzero(~kept)}
    clean = tabulate_examples(metric, [counted(cell, clusters) for cell in cells], without).clean_scores
    np.testing.assert_allclose(clean, [ratio(cell[kept].sum(axis=0)) for cell in cells], atol=2e-6)


def test_cells_that_counted_other_entities_are_refused() -> None:
    first, second = (counted(counts_of_cells()[0], np.arange(NUM)) for _ in range(2))
    with pytest.raises(ValueError, match="cells of one task disagree about gold_entities"):
        tabulate_examples("f1", [first, second])


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
