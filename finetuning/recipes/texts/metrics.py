"""Metrics of classification and regression, as on GLUE's server, and the calibration of probabilities."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationBin:
    """Predictions whose confidence falls into (lower, upper]: their mean confidence and accuracy."""

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Share of predictions that equal the label; both [N]."""
    return float(accuracy_score(_integers(labels), _integers(predictions)))


def binary_f1(labels: ArrayLike, predictions: ArrayLike) -> float:
    """F1 of class 1, as GLUE scores MRPC and QQP; 0 when class 1 is neither predicted nor present."""
    return float(f1_score(_integers(labels), _integers(predictions), pos_label=1, average="binary", zero_division=0))


def macro_f1(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Mean F1 of the classes that occur among labels or predictions: a rare class counts as much as any other."""
    return float(f1_score(_integers(labels), _integers(predictions), average="macro", zero_division=0))


def matthews(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Matthews correlation, -1 to 1; 0 when the predictions (or the labels) are all the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A single label was found")
        return float(matthews_corrcoef(_integers(labels), _integers(predictions)))


def pearson(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Linear correlation; 0 when either side is constant."""
    first, second = _same_length(labels, predictions)
    return 0.0 if _constant(first) or _constant(second) else float(pearsonr(first, second).statistic)


def spearman(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Rank correlation (ties share their mean rank); 0 when either side is constant."""
    first, second = _same_length(labels, predictions)
    return 0.0 if _constant(first) or _constant(second) else float(spearmanr(first, second).statistic)


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean -log p(label) in nats; logits [N, C], labels [N]. The loss without label smoothing."""
    log_probabilities = log_softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    targets = _integers(labels)
    return float(-log_probabilities[np.arange(len(targets)), targets].mean())


def probabilities(logits: ArrayLike) -> Floats:
    """Softmax over the last axis in double precision; [N, C] -> [N, C]."""
    return np.exp(log_softmax(np.asarray(logits, dtype=np.float64), axis=-1))


def reliability(logits: ArrayLike, labels: ArrayLike, *, num_bins: int = 15) -> list[CalibrationBin]:
    """The bins of a reliability diagram, equally wide, empty ones left out (Guo et al. 2017, section 2)."""
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}: a reliability diagram needs at least 1 bin; use 15")
    chances = probabilities(logits)
    confidence = chances.max(axis=-1)
    correct = chances.argmax(axis=-1) == _integers(labels)
    index = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        CalibrationBin(
            lower=number / num_bins,
            upper=(number + 1) / num_bins,
            count=int((index == number).sum()),
            confidence=float(confidence[index == number].mean()),
            accuracy=float(correct[index == number].mean()),
        )
        for number in sorted(set(index.tolist()))
    ]


def expected_calibration_error(logits: ArrayLike, labels: ArrayLike, *, num_bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by count (Guo et al. 2017, equation 3)."""
    bins = reliability(logits, labels, num_bins=num_bins)
    total = sum(interval.count for interval in bins)
    return sum(interval.count * abs(interval.confidence - interval.accuracy) for interval in bins) / total


def classification_metrics(logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Every figure for class predictions: logits [N, C], labels [N] in 0..C-1. `f1` is of class 1 when C is 2."""
    scores = np.asarray(logits, dtype=np.float64)
    targets = _integers(labels)
    if scores.ndim != 2 or len(scores) != len(targets) or not len(targets):
        raise ValueError(
            f"logits {scores.shape} and labels {targets.shape}: one row of logits per label and at least one "
            "label are needed; check that every example was predicted"
        )
    predictions = scores.argmax(axis=-1)
    metrics = {
        "accuracy": accuracy(targets, predictions),
        "macro_f1": macro_f1(targets, predictions),
        "matthews": matthews(targets, predictions),
        "loss": negative_log_likelihood(scores, targets),
        "expected_calibration_error": expected_calibration_error(scores, targets),
    }
    metrics["f1"] = binary_f1(targets, predictions) if scores.shape[1] == 2 else metrics["macro_f1"]
    return metrics


def regression_metrics(predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Every figure for real-valued predictions: both [N]. `loss` is the mean squared error."""
    targets, guesses = _same_length(labels, predictions)
    return {
        "pearson": pearson(targets, guesses),
        "spearman": spearman(targets, guesses),
        "loss": float(((targets - guesses) ** 2).mean()),
    }


def _integers(values: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(values).astype(np.int64).reshape(-1)


def _same_length(labels: ArrayLike, predictions: ArrayLike) -> tuple[Floats, Floats]:
    first = np.asarray(labels, dtype=np.float64).reshape(-1)
    second = np.asarray(predictions, dtype=np.float64).reshape(-1)
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"{len(first)} labels and {len(second)} predictions: a correlation needs two or more pairs; "
            "check that every example was predicted"
        )
    return first, second


def _constant(values: Floats) -> bool:
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))
