"""Linear models with an L2 penalty on given features, fitted to their optimum; the strength chosen on held-out items.

The objective is scikit-learn's (`LogisticRegression`, `Ridge`): strength x the sum of the losses + half the squared
weights, of features standardised on the training items; intercepts are free. All losses are convex in the logits, so
the optimum does not depend on a seed or a learning rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch.nn import functional

STRENGTHS = tuple(10.0**power for power in range(-5, 4))  # scikit-learn's C: the penalty's weight is 1 / C
PATIENCE = 2  # strengths in a row without a lower held-out loss, after which weaker penalties are not tried
GRADIENT_TOLERANCE = 1e-8  # of the mean loss, at the optimum: weights are off by at most this over the penalty
CONVERGED = 1e-5  # a larger slope at the end is reported
MOST_ITERATIONS = 2000
CHUNK_ITEMS = 8192  # converted to double precision at once
ROUNDING = 10 * float(np.finfo(np.float32).eps)  # a feature that varies less, as a share of its mean, is constant
UNSEEN = 0.5  # examples of a class that has none in training (Krichevsky and Trofimov 1981)


@dataclass(frozen=True)
class Items:
    """Features with what a linear model is to predict of them.

    features: float32 [N, D] in one or more parts. targets: classes [N] (int64); values [N] (floating point); or, with
    `groups` [N] (the question, the window of each item, from 0 on), the numbers of the right items [G, K] for each of K
    outputs, chosen by a softmax over the items of a group.
    """

    features: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    groups: torch.Tensor | None = None

    def __len__(self) -> int:
        return sum(len(part) for part in self.features)

    @property
    def width(self) -> int:
        return self.features[0].shape[1]

    @property
    def are_finite(self) -> bool:
        """Whether no feature is NaN or infinite."""
        return all(bool(torch.isfinite(part).all()) for part in self.features)

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The features in double precision, [n, D] at a time, and where they are."""
        start = 0
        for part in self.features:
            for chunk in part.split(CHUNK_ITEMS):
                yield slice(start, start + len(chunk)), chunk.double()
                start += len(chunk)

    def blank(self) -> Items:
        """The same items with zeros for features."""
        return Items(tuple(map(torch.zeros_like, self.features)), self.targets, self.groups)

    def joined(self, other: Items) -> Items:
        """These items and those of `other`; no feature is copied."""
        features = (*self.features, *other.features)
        if self.groups is None or other.groups is None:
            return Items(features, torch.cat([self.targets, other.targets]))
        groups = torch.cat([self.groups, other.groups + len(self.targets)])
        return Items(features, torch.cat([self.targets, other.targets + len(self)]), groups)


@dataclass(frozen=True)
class Standards:
    """Mean and 1 / standard deviation of each feature [D] (0 for a constant one, which then has no weight).

    Also the eigenvectors [D, D], in columns, and eigenvalues [D] of the standardised features' covariance.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    directions: torch.Tensor
    variances: torch.Tensor

    @staticmethod
    def of(items: Items) -> Standards:
        nothing = torch.zeros((), dtype=torch.float64, device=items.features[0].device)
        mean = sum((chunk.sum(dim=0) for _, chunk in items.chunks()), nothing) / len(items)
        products = sum(((chunk - mean).T @ (chunk - mean) for _, chunk in items.chunks()), nothing) / len(items)
        deviation = products.diagonal().clamp(min=0).sqrt()
        constant = deviation <= ROUNDING * mean.abs()
        scale = torch.where(constant, 0.0, 1 / deviation.masked_fill(constant, 1.0))
        variances, directions = torch.linalg.eigh(products * scale * scale.unsqueeze(1))
        return Standards(mean, scale, directions, variances.clamp(min=0))

    def conditioner(self, curvature: float, penalty: float) -> torch.Tensor:
        """(curvature x covariance + penalty)^-1/2 [D, D]: weights times it have about the same slope everywhere."""
        return (self.directions * (curvature * self.variances + penalty).rsqrt()) @ self.directions.T


@dataclass(frozen=True)
class LinearModel:
    """Logits = features x weights [K, D] + bias [K], of features as they are (not standardised), double precision."""

    weights: torch.Tensor
    bias: torch.Tensor
    strength: float
    converged: bool

    def logits(self, items: Items) -> torch.Tensor:
        """[N, K]."""
        return torch.cat([chunk @ self.weights.T + self.bias for _, chunk in items.chunks()])

    def loss(self, items: Items) -> float:
        """The mean loss of items, without the penalty."""
        return float(loss_sum(self.logits(items), items)) / len(items.targets)


def loss_sum(logits: torch.Tensor, items: Items) -> torch.Tensor:
    """The sum of the losses of logits [N, K]: cross entropy (the mean of a group's outputs), or half squared errors."""
    targets = items.targets
    if items.groups is not None:
        index = items.groups.unsqueeze(1).expand_as(logits)
        shape = (len(targets), logits.shape[1])
        highest = logits.new_full(shape, -torch.inf).scatter_reduce(0, index, logits.detach(), "amax")
        total = logits.new_zeros(shape).scatter_add(0, index, (logits - highest.gather(0, index)).exp())
        return (highest + total.log() - logits.gather(0, targets)).sum() / logits.shape[1]
    if targets.is_floating_point():
        return (logits.squeeze(1) - targets).square().sum() / 2
    return functional.cross_entropy(logits, targets, reduction="sum")


def fit(
    items: Items,
    outputs: int,
    strength: float,
    start: LinearModel | None = None,
    standards: Standards | None = None,
) -> LinearModel:
    """The model with the least penalised loss, found by L-BFGS from `start` (None: zeros) on.

    outputs: K, the number of classes, 1 for values, that of `Items.targets` for groups. A class without an item has no
    finite optimum: it gets no weights, and the probability of half an example. `standards` are those of the items,
    where they are known.
    """
    standards = standards or Standards.of(items)
    if items.groups is not None or items.targets.is_floating_point():
        return _fit(items, outputs, strength, start, standards)
    present, own = items.targets.unique(return_inverse=True)
    before = start and LinearModel(start.weights[present], start.bias[present], start.strength, start.converged)
    model = _fit(Items(items.features, own), len(present), strength, before, standards)
    weights = model.weights.new_zeros(outputs, items.width)
    bias = model.bias.new_zeros(outputs) + model.logits(items).logsumexp(dim=1).mean() + np.log(UNSEEN / len(items))
    weights[present], bias[present] = model.weights, model.bias
    return LinearModel(weights, bias, strength, model.converged)


def _fit(items: Items, outputs: int, strength: float, start: LinearModel | None, standards: Standards) -> LinearModel:
    mean, scale = standards.mean, standards.scale
    share = 1 / len(items.targets)  # of the mean loss, so that tolerances mean the same at every size
    penalty = share / strength
    # With hidden states, whose directions differ in variance by many orders, plain L-BFGS takes up to 40 times as many
    # steps (docs/lab-notes.md). 1 / K is about the loss's curvature per unit of variance.
    conditioner = standards.conditioner(1 / outputs, penalty)

    def parts(flat: NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.from_numpy(flat).to(mean).view(outputs, -1)
        return values[:, :-1] @ conditioner, values[:, -1]

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = parts(flat)
        scaled = weights * scale
        shift = bias - scaled @ mean
        logits = torch.cat([chunk @ scaled.T + shift for _, chunk in items.chunks()]).requires_grad_()
        with torch.enable_grad():
            loss = share * loss_sum(logits, items)
            (slope,) = torch.autograd.grad(loss, logits)
        by_shift = slope.sum(dim=0)
        by_scaled = sum((slope[place].T @ chunk for place, chunk in items.chunks()), torch.zeros_like(weights))
        by_weights = (by_scaled - by_shift.unsqueeze(1) * mean) * scale + penalty * weights
        gradient = torch.cat([by_weights @ conditioner, by_shift.unsqueeze(1)], dim=1)
        value = float(loss.detach()) + penalty / 2 * float(weights.square().sum())
        return value, gradient.flatten().cpu().numpy()

    first = np.zeros(outputs * (items.width + 1))
    if start is not None:
        weights = torch.where(scale > 0, start.weights / scale.masked_fill(scale == 0, 1.0), 0.0)
        own = torch.linalg.solve(conditioner, weights.T).T
        first = torch.cat([own, (start.bias + start.weights @ mean).unsqueeze(1)], dim=1).flatten().cpu().numpy()
    options = {"maxiter": MOST_ITERATIONS, "gtol": GRADIENT_TOLERANCE, "ftol": 1e-15}
    found = minimize(objective, first, jac=True, method="L-BFGS-B", options=options)
    weights, bias = parts(found.x)
    converged = bool(np.abs(found.jac).max() <= CONVERGED)  # scipy also stops where rounding leaves no lower value
    return LinearModel(weights * scale, bias - (weights * scale) @ mean, strength, converged)


def choose_strength(
    training: Items, held_out: Items, outputs: int, strengths: Sequence[float] = STRENGTHS
) -> LinearModel:
    """The model of the training items whose strength has the least mean loss on the held-out ones.

    From the strongest penalty on, each fit starts from the one before; of equal losses the stronger penalty is taken.
    """
    standards = Standards.of(training)
    best = model = fit(training, outputs, strengths[0], standards=standards)
    least, since = best.loss(held_out), 0
    for strength in strengths[1:]:
        model = fit(training, outputs, strength, model, standards)
        loss = model.loss(held_out)
        best, least, since = (model, loss, 0) if loss < least else (best, least, since + 1)
        if since == PATIENCE:
            break
    return best
