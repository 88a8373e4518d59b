"""Linear models: scikit-learn's own optimum, and clear outcomes where there is little to learn from."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from gap.probe.convex import PATIENCE, STRENGTHS, Items, choose_strength, fit


def made(number=60, width=5, classes=3, seed=0):
    """Features far from standardised, one of them constant, and classes that depend on them."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(number, width)) * [1, 10, 0.1, 3, 1] + [0, 50, 0, -3, 2]
    features[:, 4] = 7.3
    labels = (features[:, 0] + features[:, 1] - 50 + random.normal(size=number)).argsort().argsort() * classes // number
    return features.astype(np.float32), labels


def items(features, targets, groups=None):
    """In two parts, as the training and the held-out one are."""
    parts = (torch.from_numpy(features[:17]), torch.from_numpy(features[17:]))
    return Items(parts, torch.from_numpy(np.asarray(targets)), None if groups is None else torch.from_numpy(groups))


@pytest.mark.parametrize("strength", [1e-3, 1.0, 100.0])
def test_classes_have_scikit_learns_probabilities(strength):
    features, labels = made()
    scaler = StandardScaler().fit(features.astype(np.float64))
    exact = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000)
    exact.fit(scaler.transform(features.astype(np.float64)), labels)
    wanted = exact.predict_log_proba(scaler.transform(features.astype(np.float64)))
    model = fit(items(features, labels), 3, strength)
    assert model.converged
    assert log_softmax(model.logits(items(features, labels)).numpy(), axis=1) == pytest.approx(
        wanted, abs=2e-4, rel=1e-4
    )
    assert model.weights[:, 4].tolist() == [0.0, 0.0, 0.0]


def test_two_classes_have_those_of_twice_the_strength_since_each_has_weights_of_its_own():
    features, labels = made(classes=2)
    scaler = StandardScaler().fit(features.astype(np.float64))
    exact = LogisticRegression(C=2 * 0.05, tol=1e-10).fit(scaler.transform(features.astype(np.float64)), labels)
    wanted = exact.predict_log_proba(scaler.transform(features.astype(np.float64)))
    logits = fit(items(features, labels), 2, 0.05).logits(items(features, labels)).numpy()
    assert log_softmax(logits, axis=1) == pytest.approx(wanted, abs=2e-4, rel=1e-4)


def test_values_are_those_of_ridge_regression():
    features, _ = made()
    values = features[:, 0] - 0.2 * features[:, 1] + np.random.default_rng(1).normal(size=len(features))
    scaler = StandardScaler().fit(features.astype(np.float64))
    exact = Ridge(alpha=1 / 0.3).fit(scaler.transform(features.astype(np.float64)), values)
    wanted = exact.predict(scaler.transform(features.astype(np.float64)))
    own = items(features, values.astype(np.float64))
    assert fit(own, 1, 0.3).logits(own)[:, 0].numpy() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("outputs", [1, 2])
def test_groups_choose_by_a_softmax_over_their_items(outputs):
    features, _ = made(number=40)
    groups = np.repeat(np.arange(10), 4)
    random = np.random.default_rng(2)
    targets = 4 * np.arange(10)[:, None] + random.integers(4, size=(10, outputs))
    standard = StandardScaler().fit_transform(features.astype(np.float64))

    def penalised(flat):
        weights = flat.reshape(outputs, -1)
        logits = (standard @ weights.T).reshape(10, 4, outputs)
        right = targets - 4 * np.arange(10)[:, None]
        losses = [-log_softmax(logits[g, :, k])[right[g, k]] for g in range(10) for k in range(outputs)]
        return 0.5 * (flat**2).sum() + 0.5 * sum(losses) / outputs

    best = minimize(penalised, np.zeros(outputs * 5), tol=1e-10).x.reshape(outputs, -1)
    own = items(features, targets, groups)
    logits = fit(own, outputs, 0.5).logits(own).numpy()
    wanted = standard @ best.T
    assert logits - logits[0] == pytest.approx(wanted - wanted[0], abs=1e-3)


def test_joined_items_are_those_of_one_list():
    features, _ = made(number=40)
    groups = np.repeat(np.arange(10), 4)
    targets = 4 * np.arange(10)[:, None] + 1
    whole = items(features, targets, groups)
    first = Items((torch.from_numpy(features[:24]),), torch.from_numpy(targets[:6]), torch.from_numpy(groups[:24]))
    second = Items(
        (torch.from_numpy(features[24:]),), torch.from_numpy(targets[6:] - 24), torch.from_numpy(groups[24:] - 6)
    )
    both = first.joined(second)
    assert torch.equal(both.targets, whole.targets)
    assert torch.equal(both.groups, whole.groups)
    assert torch.allclose(fit(both, 1, 0.1).weights, fit(whole, 1, 0.1).weights, atol=1e-6)


def test_a_class_without_an_example_gets_the_probability_of_half_of_one():
    features, labels = made()
    without = np.where(labels == 1, 0, labels)
    chances = fit(items(features, without), 3, 0.1).logits(items(features, without)).softmax(dim=1)
    assert 0.2 / 60 < float(chances[:, 1].mean()) < 0.8 / 60
    only = fit(items(features, np.full(60, 2)), 3, 0.1)
    assert not only.weights.any()
    assert only.logits(items(features, labels))[0].softmax(dim=0).tolist() == pytest.approx(
        [0.5 / 61, 0.5 / 61, 60 / 61], abs=1e-6
    )


def test_the_strength_with_the_least_held_out_loss_is_chosen_and_the_stronger_penalty_of_equal_ones():
    features, labels = made(number=80)
    training, held_out = items(features[:60], labels[:60]), items(features[60:], labels[60:])
    losses = {strength: fit(training, 3, strength).loss(held_out) for strength in STRENGTHS}
    assert choose_strength(training, held_out, 3).strength == min(losses, key=lambda one: losses[one])
    blank = np.zeros_like(features)
    nothing = items(blank[:60], labels[:60]), items(blank[60:], labels[60:])
    assert choose_strength(*nothing, 3).strength == STRENGTHS[0]


def test_weaker_penalties_are_not_tried_once_the_held_out_loss_rises(monkeypatch):
    features, labels = made()
    noise = np.random.default_rng(3).integers(3, size=60)
    tried = []

    def spy(training, outputs, strength, start=None, standards=None):
        tried.append(strength)
        return fit(training, outputs, strength, start, standards)

    monkeypatch.setattr("gap.probe.convex.fit", spy)
    best = choose_strength(items(features, labels), items(features, noise), 3)
    assert tried == list(STRENGTHS[: STRENGTHS.index(best.strength) + 1 + PATIENCE])
    assert len(tried) < len(STRENGTHS)
