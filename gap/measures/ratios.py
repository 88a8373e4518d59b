"""Means and ratios of sums over examples, recomputed under any weights of the examples' clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gap.intervals.bootstrap import Evaluate, Weights
from gap.intervals.variance import Floats

Places = NDArray[np.intp]


def mean_of(scores: NDArray[np.float32], clusters: Places) -> tuple[Evaluate, NDArray[np.float32]]:
    """Weighted means of scores [M, N] in clusters [N], and each cluster's contribution [M, G] on the scale of a mean.

    The contributions are the linear influence of the clusters.
    """
    sums, sizes = by_cluster(scores, clusters), np.bincount(clusters).astype(np.float32)
    means = scores.mean(axis=1, keepdims=True, dtype=np.float64)
    units = (sums - means * sizes) * (len(sizes) / sizes.sum()) + means

    def evaluate(weights: Weights) -> Floats:
        return ((weights @ sums.T) / (weights @ sizes)[:, None]).astype(np.float64)

    return evaluate, units.astype(np.float32)


def ratio_of(
    numerators: NDArray[np.float32], denominators: NDArray[np.float32], clusters: Places
) -> tuple[Evaluate, NDArray[np.float32]]:
    """Weighted sums [M, N] divided by each other, 0 where there is nothing to divide by; contributions as of means."""
    tops, bottoms = by_cluster(numerators, clusters), by_cluster(denominators, clusters)
    whole = bottoms.sum(axis=1, keepdims=True, dtype=np.float64)
    ratios = divided(tops.sum(axis=1, keepdims=True, dtype=np.float64), whole)
    units = (tops - ratios * bottoms) * divided(np.full_like(whole, tops.shape[1]), whole) + ratios

    def evaluate(weights: Weights) -> Floats:
        return divided((weights @ tops.T).astype(np.float64), (weights @ bottoms.T).astype(np.float64))

    return evaluate, units.astype(np.float32)


def divided(top: Floats, bottom: Floats) -> Floats:
    """Quotients of equal shapes, 0 where there is nothing to divide by."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def by_cluster(values: NDArray[Any], clusters: Places) -> NDArray[np.float32]:
    """Sums [..., G] of values [..., N]."""
    order = np.argsort(clusters, kind="stable")
    starts = np.searchsorted(clusters[order], np.arange(clusters.max() + 1))
    return np.add.reduceat(values[..., order].astype(np.float64), starts, axis=-1).astype(np.float32)
