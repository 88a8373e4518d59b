"""Dynamic loss scaling for fp16: the loss is multiplied so that small gradients do not round to zero.

The rule is `torch.amp.GradScaler`'s: a gradient that is not finite skips the update and halves the scale, 2,000 updates
without one double it; here it does not fall below 1. Every scale is a power of two, so scaling rounds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch

from pretraining.engines.updating.muon import own_part

INITIAL_POWER = 16
GROWTH_INTERVAL = 2000
SMALLEST_SCALE = 1.0


class LossScaling(Protocol):
    """The scale of an engine, the same on all ranks."""

    @property
    def scale(self) -> torch.Tensor:
        """The factor of the loss in the coming backward passes, 0-d fp32."""
        ...

    @property
    def smallest(self) -> float:
        """The scale that is not halved any more."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: `scale`, `good_updates` since it changed, `hysteresis`; waits for the device."""
        ...

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Continue from a checkpoint's state, whichever engine wrote it; None: begin anew."""
        ...


class DynamicLossScale:
    """For the PyTorch engine; scale and counter stay on the device, so that no update waits for the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._scale = torch.full((), 2.0**INITIAL_POWER, device=device)
        self._good_updates = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def scale(self) -> torch.Tensor:
        return self._scale

    @property
    def smallest(self) -> float:
        return SMALLEST_SCALE

    def unscale(self, parameters: Iterable[torch.Tensor]) -> None:
        """Divide the gradients, shards included, by the scale."""
        gradients = [own_part(each.grad) for each in parameters if each.grad is not None]
        for gradient in gradients:
            gradient.mul_(self._scale.reciprocal().to(gradient.device))

    def update(self, found_inf: torch.Tensor) -> None:
        """Set the next scale after an update; `found_inf`, 0-d bool: whether it was skipped."""
        good = self._good_updates + 1
        grown = torch.where(torch.isfinite(2 * self._scale), 2 * self._scale, self._scale)
        kept = torch.where(good >= GROWTH_INTERVAL, grown, self._scale)
        self._scale = torch.where(found_inf, (self._scale / 2).clamp(min=SMALLEST_SCALE), kept)
        self._good_updates = torch.where(found_inf | (good >= GROWTH_INTERVAL), 0, good)

    def state(self) -> dict[str, Any]:
        return {"scale": float(self._scale), "good_updates": int(self._good_updates), "hysteresis": 1}

    def load(self, state: Mapping[str, Any] | None) -> None:
        scale, good_updates = (2.0**INITIAL_POWER, 0) if state is None else (state["scale"], state["good_updates"])
        self._scale = torch.full((), scale, dtype=torch.float32, device=self.device)
        self._good_updates = torch.full((), good_updates, dtype=torch.int64, device=self.device)


class DeepSpeedLossScale:
    """DeepSpeed's own dynamic scaler, as its JSON section `fp16` sets it, updated after the step and not within it.

    DeepSpeed 0.19.8 sets the next scale before it divides the gradients by it, so that the update in which the scale
    doubles uses half of its gradients; and it raises a bare Exception at the smallest scale.
    """

    def __init__(self, scaler: Any) -> None:
        self._scaler, self._initial = scaler, float(scaler.cur_scale)
        scaler.raise_error_at_min_scale = False
        self._update = scaler.update_scale
        scaler.update_scale = lambda overflow: None

    @property
    def scale(self) -> torch.Tensor:
        return torch.tensor(float(self._scaler.cur_scale))

    @property
    def smallest(self) -> float:
        return float(self._scaler.min_scale)

    def update(self, *, found_inf: bool) -> None:
        """Set the next scale after an update; `found_inf`: whether it was skipped."""
        self._update(found_inf)

    def state(self) -> dict[str, Any]:
        since = self._scaler.cur_iter - self._scaler.last_overflow_iter - 1
        return {
            "scale": float(self._scaler.cur_scale),
            # From 1 to the window, in whose last update the scale doubles.
            "good_updates": (since - 1) % self._scaler.scale_window + 1 if since else 0,
            "hysteresis": self._scaler.cur_hysteresis,
        }

    def load(self, state: Mapping[str, Any] | None) -> None:
        given = state or {"scale": self._initial, "good_updates": 0, "hysteresis": self._scaler.delayed_shift}
        self._scaler.cur_scale, self._scaler.cur_hysteresis = given["scale"], given["hysteresis"]
        self._scaler.last_overflow_iter, self._scaler.cur_iter = -1, given["good_updates"]
