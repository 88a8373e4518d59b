"""Loss spikes: an update whose loss is far above those before it."""

from __future__ import annotations

SMOOTHING = 0.95
THRESHOLD = 8.0
WARMUP_UPDATES = 20


class SpikeDetector:
    """Compares each loss with a smoothed mean and mean absolute deviation of the ones before it."""

    def __init__(self) -> None:
        self._count, self._mean, self._deviation = 0, 0.0, 0.0

    def is_spike(self, loss: float) -> bool:
        """True when `loss` exceeds the mean by more than eight deviations; such a loss does not move the mean."""
        self._count += 1
        if self._count == 1:
            self._mean = loss
            return False
        distance = loss - self._mean
        if self._count > WARMUP_UPDATES and distance > THRESHOLD * max(self._deviation, 1e-3 * self._mean):
            return True
        self._mean += (1 - SMOOTHING) * distance
        self._deviation += (1 - SMOOTHING) * (abs(distance) - self._deviation)
        return False
