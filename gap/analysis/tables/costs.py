"""Cost and validation loss of a series' checkpoints, from series.json, averaged over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretraining.plan.budget import UNITS as BUDGET_UNITS

# Title by the field of `CheckpointCost`: those of budgets, text (comparable between tokenizers), and money.
UNITS = {**{name: unit.title for name, unit in BUDGET_UNITS.items()}, "text_bytes": "bytes of text", "money": "money"}


@dataclass(frozen=True)
class Prices:
    """The price of a device-hour; series.json has the wall time of `devices` devices (None: as recorded there)."""

    per_device_hour: float = 0.0
    currency: str = "$"
    devices: int | None = None

    def __post_init__(self) -> None:
        if self.per_device_hour < 0 or (self.devices is not None and self.devices < 1):
            price, devices = self.per_device_hour, self.devices
            raise ValueError(
                f"a device-hour at {price} on {devices} devices: a price is at least 0, devices at least 1"
            )


@dataclass(frozen=True)
class CheckpointCost:
    """One checkpoint of the series, averaged over pretraining seeds; None where series.json has no value."""

    kind: str
    budget_tokens: int
    tokens_seen: float | None = None
    unique_tokens: float | None = None
    text_bytes: float | None = None  # of text seen, in UTF-8
    flops: float | None = None
    hours: float | None = None  # device-hours
    devices_known: bool = True  # False: series.json does not record the number of devices; one is assumed
    money: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    untrained_positions: float | None = (
        None  # positions of the model that no training sequence was long enough to reach
    )
    tokenizer: str | None = None  # its fingerprint, if it is the same in all of them
    started_digest: str | None = None  # of the weights that all runs continue
    fresh_head: bool = False  # whether those lacked a masked-language head, so that budget 0 has a random one

    @property
    def epochs(self) -> float | None:
        """The number of passes over the distinct tokens."""
        return self.tokens_seen / self.unique_tokens if self.tokens_seen and self.unique_tokens else None


def pair_budgets(rows: Sequence[Mapping[str, Any]], like: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Rows of several pretraining seeds; equal budgets of FLOPs or hours get the tokens of `like` or the lowest seed.

    Each run reaches such a budget after a different number of tokens: without a common name no seeds would be paired.
    `tokens_seen` stays that of each run.
    """
    tokens: dict[tuple[Any, ...], float] = {}
    for row in [*sorted(like, key=_seed), *sorted(rows, key=_seed)]:
        tokens.setdefault(_budget(row), row["budget_tokens"])
    return [{**row, "budget_tokens": tokens[_budget(row)]} for row in rows]


def _seed(row: Mapping[str, Any]) -> int:
    return int(row["pretraining_seed"])


def _budget(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What identifies a checkpoint in every run: its kind, and its budget in the unit of the plan."""
    unit = row.get("budget_unit", "tokens")
    return row["kind"], unit, row["budget_tokens"] if unit == "tokens" else row["budget"]


def series_costs(rows: Sequence[Mapping[str, Any]], prices: Prices) -> list[CheckpointCost]:
    """Rows of series.json -> one cost per (kind, budget), ordered by kind and budget."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        budget = round(float(row["budget_tokens"]))
        first = "start" if row.get("started_from") else "scratch"
        groups.setdefault((str(row["kind"]) if budget else first, budget), []).append(row)
    costs = []
    for (kind, budget), members in sorted(groups.items()):
        spent = [
            {"hours": float(row["seconds"]) / 3600 * (prices.devices or row.get("devices") or 1)}
            for row in members
            if row.get("seconds") is not None
        ]
        hours = _mean(spent, "hours")
        costs.append(
            CheckpointCost(
                kind,
                budget,
                hours=hours,
                devices_known=prices.devices is not None or all("devices" in row for row in members),
                money=None if hours is None else hours * prices.per_device_hour,
                **{
                    name: _mean(members, name)
                    for name in (
                        *("tokens_seen", "unique_tokens", "text_bytes", "flops"),
                        *("validation_loss", "validation_accuracy"),
                    )
                },
                untrained_positions=_mean(members, "untrained_positions"),
                tokenizer=_common(members, "tokenizer"),
                started_digest=_common(members, "started_digest"),
                fresh_head=any(row.get("fresh_head") for row in members),
            )
        )
    return costs


def find_cost(costs: Sequence[CheckpointCost], kind: str, budget_tokens: int | None) -> CheckpointCost | None:
    """The cost of one checkpoint, None if the series does not contain it."""
    return next((cost for cost in costs if (cost.kind, cost.budget_tokens) == (kind, budget_tokens)), None)


def convert_tokens(costs: Sequence[CheckpointCost], kind: str, tokens: float | None, unit: str) -> float | None:
    """Tokens within a kind's budgets, in another unit: interpolated between its checkpoints on log scales."""
    if tokens is None or unit == "tokens":
        return tokens
    convert = converter(costs, kind, unit)
    return None if convert is None else float(convert(np.array([tokens], dtype=np.float64))[0])


def converter(
    costs: Sequence[CheckpointCost], kind: str, unit: str
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]] | None:
    """The function from tokens [N] to another unit [N], as `convert_tokens`; None if no checkpoint has that unit.

    0 and infinity (a share that is reached before the first budget, or at none) stay what they are.
    """
    points = [
        (cost.budget_tokens, getattr(cost, unit))
        for cost in costs
        if cost.kind == kind and cost.budget_tokens > 0 and getattr(cost, unit) is not None
    ]
    if not points:
        return None
    budgets, values = np.array(points, dtype=np.float64).T

    def convert(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        if (values <= 0).any():
            found = np.interp(tokens, budgets, values)
        else:
            with np.errstate(divide="ignore"):
                found = np.exp(np.interp(np.log(tokens), np.log(budgets), np.log(values)))
        return np.where((tokens == 0) | np.isinf(tokens), tokens, found)

    return convert


def _common(rows: Sequence[Mapping[str, Any]], name: str) -> str | None:
    values = {row.get(name) for row in rows}
    return values.pop() if len(values) == 1 else None


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [float(row[name]) for row in rows if row.get(name) is not None]
    return float(np.mean(values)) if values else None
