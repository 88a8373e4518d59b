"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest

from finetuning.recipes.texts import metrics

LABELS = [1, 1, 1, 0, 0, 0, 0, 1]
PREDICTIONS = [1, 1, 0, 0, 0, 1, 0, 0]  # 2 hits, 1 false alarm, 2 misses, 3 right rejections


def test_counts_give_the_textbook_values():
    assert metrics.accuracy(LABELS, PREDICTIONS) == 5 / 8
    assert metrics.binary_f1(LABELS, PREDICTIONS) == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert metrics.macro_f1(LABELS, PREDICTIONS) == pytest.approx((4 / 7 + 6 / 9) / 2)
    expected = (2 * 3 - 1 * 2) / math.sqrt((2 + 1) * (2 + 2) * (3 + 1) * (3 + 2))
    assert metrics.matthews(LABELS, PREDICTIONS) == pytest.approx(expected)


def test_a_rare_class_pulls_macro_f1_down_but_hardly_accuracy():
    labels = [0] * 95 + [1] * 5
    found = metrics.classification_metrics(np.tile([1.0, 0.0], (100, 1)), labels)
    assert found["accuracy"] == 0.95
    assert found["macro_f1"] == pytest.approx((2 * 95 / (2 * 95 + 5)) / 2)
    assert found["matthews"] == 0.0
    assert found["f1"] == 0.0


def test_correlations():
    assert metrics.pearson([1, 2, 3], [1, 2, 4]) == pytest.approx(3 / math.sqrt(2 * 14 / 3))
    assert metrics.spearman([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert metrics.spearman([1, 2, 3], [1, 10, 100]) == pytest.approx(1.0)


def test_constant_predictions_correlate_with_nothing():
    assert metrics.pearson([1, 2, 3], [2.5, 2.5, 2.5]) == 0.0
    assert metrics.spearman([1, 2, 3], [2.5, 2.5, 2.5]) == 0.0
    assert metrics.matthews([0, 1, 1], [1, 1, 1]) == 0.0


def test_likelihood_of_known_chances():
    logits = np.log([[0.5, 0.5], [0.2, 0.8]])
    assert metrics.negative_log_likelihood(logits, [0, 1]) == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)
    assert metrics.negative_log_likelihood([[1000.0, 0.0]], [1]) == pytest.approx(1000.0)


def test_calibration_error_by_hand():
    # Four predictions of confidence 0.9, three right; two of 0.6, none right.
    logits = np.log([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    labels = [0, 0, 0, 1, 1, 1]
    expected = (4 * abs(0.9 - 0.75) + 2 * abs(0.6 - 0.0)) / 6
    assert metrics.expected_calibration_error(logits, labels, num_bins=10) == pytest.approx(expected)
    bins = metrics.reliability(logits, labels, num_bins=10)
    assert [(one.count, one.accuracy) for one in bins] == [(2, 0.0), (4, 0.75)]
    assert all(one.lower < one.confidence <= one.upper + 1e-12 for one in bins)


def test_a_sure_and_right_model_is_calibrated():
    logits = np.array([[50.0, 0.0], [0.0, 50.0]])
    assert metrics.expected_calibration_error(logits, [0, 1]) == pytest.approx(0.0)
    assert metrics.expected_calibration_error(logits, [1, 0]) == pytest.approx(1.0)


def test_three_classes_give_f1_as_macro_f1():
    logits = np.eye(3)[[0, 1, 2, 2]]
    found = metrics.classification_metrics(logits, [0, 1, 1, 2])
    assert found["f1"] == found["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_order_does_not_matter():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 3)), random.integers(0, 3, 50)
    order = random.permutation(50)
    first = metrics.classification_metrics(logits, labels)
    assert metrics.classification_metrics(logits[order], labels[order]) == pytest.approx(first)


def test_missing_predictions_are_refused():
    with pytest.raises(ValueError, match="one row of logits per label"):
        metrics.classification_metrics(np.zeros((3, 2)), [0, 1])
    with pytest.raises(ValueError, match="two or more"):
        metrics.pearson([1.0], [1.0])
