"""Loss spikes."""

import math

import numpy as np

from pretraining.loop.spikes import WARMUP_UPDATES, SpikeDetector


def falling(count, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.05, count)
    return [2.0 + 5 * math.exp(-step / 100) + noise[step] for step in range(count)]


def test_a_falling_noisy_loss_has_no_spike():
    for seed in range(5):
        detector = SpikeDetector()
        assert not any(detector.is_spike(loss) for loss in falling(1000, seed))


def test_a_jump_is_one_and_does_not_hide_the_next():
    detector = SpikeDetector()
    for loss in falling(300):
        detector.is_spike(loss)
    assert detector.is_spike(6.0)
    assert not detector.is_spike(2.2)
    assert detector.is_spike(6.0)


def test_the_first_updates_are_no_spikes():
    detector = SpikeDetector()
    assert not any(detector.is_spike(1.0 + 10 * (step % 2)) for step in range(WARMUP_UPDATES))


def test_a_loss_that_falls_at_once_is_none():
    detector = SpikeDetector()
    for _ in range(100):
        detector.is_spike(3.0)
    assert not detector.is_spike(0.5)
