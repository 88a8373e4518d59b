"""The probe of a checkpoint: hidden states of the frozen encoder, computed once, and a linear model on them.

Alain and Bengio 2017 (arXiv:1610.01644) measure what a layer holds by a linear classifier on it. The rows, losses and
predictions are those of the recipe that fine-tunes the task; the encoder has no dropout and gets no gradient.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from finetuning.examples.batches import evaluation_batches, row_length
from finetuning.examples.recipe import Batch, Feature, Recipe
from finetuning.loop.evaluation import evaluate, forward
from finetuning.model.heads import CHOICE, SPANS, TAGS, OwnHead
from finetuning.recipes.tokens.rows import IGNORED
from gap.probe.convex import Items, LinearModel, choose_strength, fit
from runtime.processes.ranks import Ranks


class LinearOutputs(nn.Module):
    """The linear model in the place of a head, in double precision; `seen` are the features of the last batch."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(outputs, width, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(outputs, dtype=torch.float64))
        self.seen = torch.zeros(0)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., K]."""
        self.seen = features
        return functional.linear(features.double(), self.get_buffer("weights"), self.get_buffer("bias"))


class FrozenEngine:
    """The part of an engine that an evaluation needs, around a model that is never trained, on one device."""

    def __init__(self, recipe: Recipe, transformer: nn.Module, *, pooling: str, device: torch.device, bf16: bool):
        """`transformer` has a head of the recipe, which is replaced; its encoder is kept (not copied)."""
        encoder: Any = transformer.encoder if isinstance(transformer, OwnHead) else transformer.base_model
        own = OwnHead(encoder.to(torch.bfloat16) if bf16 else encoder, replace(recipe.head, pooling=pooling, own=True))
        self.outputs = LinearOutputs(int(own.config.hidden_size), recipe.head.num_outputs)
        own.head, own.dropout = self.outputs, nn.Dropout(0.0)
        self.module = recipe.build_model(own).to(device).requires_grad_(False).eval()
        self.device, self.ranks = device, Ranks()

    def __call__(self, **inputs: torch.Tensor) -> Any:
        return self.module(**inputs)

    def eval(self) -> None:
        """It is in evaluation mode from the beginning."""

    def set(self, model: LinearModel) -> None:
        """Predict with this linear model from now on."""
        self.outputs.get_buffer("weights").copy_(model.weights)
        self.outputs.get_buffer("bias").copy_(model.bias)


@dataclass(frozen=True)
class ProbeResult:
    """A probe's outcome on each evaluation set; `status` as that of a fine-tuning run."""

    scores: Mapping[str, Mapping[str, float]]
    predictions: Mapping[str, Mapping[str, Any]]
    status: str
    reason: str | None
    strength: float | None
    converged: bool


def probe(recipe: Recipe, engine: FrozenEngine, held_out: Collection[str], *, batch_rows: int) -> ProbeResult:
    """Choose the strength on the training examples in `held_out`, fit all of them, predict the evaluation sets.

    Features that are not finite count as zeros: only the intercepts are learned, and the status is "not_finite".
    """
    rest = [row for row in recipe.train_features if row["example_id"] not in held_out]
    kept = [row for row in recipe.train_features if row["example_id"] in held_out]
    first, second = (collect(recipe, engine, rows, batch_rows=batch_rows) for rows in (rest, kept))
    outputs, status, reason = recipe.head.num_outputs, "done", None
    if not (first.are_finite and second.are_finite):
        status, reason = "not_finite", "a hidden state of the frozen encoder is NaN or infinite"
        first, second = first.blank(), second.blank()
    everything = first.joined(second)
    if status == "done" and _has_one_answer(everything):
        status, reason = "collapsed", "all training examples have the same label: there is nothing to separate"
    strength = choose_strength(first, second, outputs).strength
    model = fit(everything, outputs, strength)
    engine.set(model)
    found = {
        name: evaluate(recipe, engine, evaluation_set, batch_rows=batch_rows)
        for name, evaluation_set in recipe.evaluation_sets.items()
    }
    return ProbeResult(
        {name: evaluation.scores for name, evaluation in found.items()},
        {name: evaluation.predictions for name, evaluation in found.items()},
        status,
        reason,
        strength,
        model.converged,
    )


def _has_one_answer(items: Items) -> bool:
    return items.groups is None and bool((items.targets == items.targets[0]).all())


@torch.no_grad()
def collect(recipe: Recipe, engine: FrozenEngine, rows: Sequence[Feature], *, batch_rows: int) -> Items:
    """The features of training rows and their targets, on the engine's device; each row is run once."""
    lengths = np.array([row_length(row) for row in rows], dtype=np.int64)
    parts: list[Items] = []
    for numbers in evaluation_batches(lengths, batch_rows=batch_rows, rank=0, world_size=1):
        _, batch = forward(recipe, engine, [rows[number] for number in numbers if number >= 0])
        parts.append(_items(recipe.head.task, engine.outputs.seen.float(), batch))
    targets = [part.targets for part in parts]
    features = (torch.cat([part.features[0] for part in parts]),)
    if parts[0].groups is None:
        return Items(features, torch.cat(targets))
    items = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    own = np.cumsum([0, *map(len, targets)]).tolist()
    groups = [part.groups + first for part, first in zip(parts, own, strict=False) if part.groups is not None]
    numbered = [part + first for part, first in zip(targets, items, strict=False)]
    return Items(features, torch.cat(numbered), torch.cat(groups))


def _items(task: str, seen: torch.Tensor, batch: Batch) -> Items:
    """The items of a batch: texts, labelled words (their first tokens), choices, or the tokens of each window."""
    if task == TAGS:
        known = batch["labels"] != IGNORED
        return Items((seen[known],), batch["labels"][known])
    if task == CHOICE:
        places, choices = batch["choice_places"], batch["choice_mask"].shape[1]
        right = torch.arange(len(batch["labels"]), device=places.device) * choices + batch["labels"]
        return Items((seen,), torch.searchsorted(places, right).unsqueeze(1), places // choices)
    if task == SPANS:
        real = batch["attention_mask"].bool()
        numbers = (real.flatten().cumsum(0) - 1).view(real.shape)
        ends = torch.stack([batch["start_positions"], batch["end_positions"]], dim=1)
        return Items((seen[real],), numbers.gather(1, ends), real.nonzero()[:, 0])
    targets = batch["labels"]
    return Items((seen,), targets.double() if targets.is_floating_point() else targets)
