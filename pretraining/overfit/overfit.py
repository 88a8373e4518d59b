"""Overfitting of one batch by a model at a learning rate, with a verdict and a remedy if it fails."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pretraining.engines.engine import EngineOptions
from pretraining.engines.torch_engine import TorchEngine
from pretraining.engines.updating.optimizers import OptimizerOptions
from pretraining.model.masked_lm import PretrainingModel
from runtime.processes.ranks import Ranks

SOLVED_ACCURACY = 0.95
SOLVED_LOSS = 0.5  # at most this multiple of the unigram entropy
# A loss that falls by less than this share of the unigram entropy from one quarter of the updates to the next is flat.
FLAT_SHARE = 0.05
ONE_TOKEN_SHARE = 0.9  # of the predictions: from here on "one token is predicted everywhere"
AT_ENTROPY = (0.9, 1.25)  # multiples of the unigram entropy between which the loss sits at it

REMEDIES = {
    "solved": "go ahead",
    "stuck": "lower the learning rate (a tenth of it first), or take a shallower model or ModernBERT, whose norms "
    "come before its layers",
    "too slow": "allow more updates, or raise the learning rate (three times, then ten; lower it if the loss jumps)",
    "not finite": "lower the learning rate, keep gradients clipped (--max_grad_norm 1), and try --bf16 false",
}


@dataclass(frozen=True)
class OverfitResult:
    """The outcome of a try: `verdict` is a key of REMEDIES; entropy and losses are in nats per masked token."""

    verdict: str
    learning_rate: float
    losses: tuple[float, ...]  # of each update, dropout on
    final_loss: float  # without dropout
    accuracy: float
    unigram_entropy: float  # the best loss with the same prediction everywhere
    distinct_labels: int
    distinct_predictions: int
    most_common_share: float  # the share of the most common prediction
    predictions: Tensor  # [S, K]

    @property
    def remedy(self) -> str:
        return REMEDIES[self.verdict]

    def summary(self) -> str:
        """The verdict with its figures, in one line."""
        return (
            f"{self.verdict}: learning rate {self.learning_rate:g}, {len(self.losses)} updates, loss "
            f"{self.losses[0]:.2f} -> {self.final_loss:.2f} (unigram entropy {self.unigram_entropy:.2f}), "
            f"{self.accuracy:.0%} correct, {self.distinct_predictions} distinct predictions for {self.distinct_labels} "
            f"distinct targets, the most common {self.most_common_share:.0%} of all; {self.remedy}"
        )

    def require_solved(self) -> None:
        """ValueError with verdict and remedy unless the batch was overfitted: the gate before a long run."""
        if self.verdict != "solved":
            raise ValueError(f"one batch cannot be overfitted ({self.summary()}); or leave out --overfit_gate")


def overfit_one_batch(
    model: PretrainingModel,
    batch: Mapping[str, Tensor],
    learning_rate: float,
    *,
    max_updates: int = 100,
    max_grad_norm: float = 1.0,
    optimizer_options: OptimizerOptions | None = None,
    bf16: bool = False,
    seed: int = 0,
) -> OverfitResult:
    """Train a copy of `model` on `batch` (the model's inputs, [S, T] and [S, K]) at a constant rate; judge the outcome.

    The steps and the precision are those of a run on one rank. Stops early once solved. The model itself is left
    unchanged; `seed` is for dropout.
    """
    torch.manual_seed(seed)
    device = batch["input_ids"].device
    options = EngineOptions(bf16=bf16, max_grad_norm=max_grad_norm, optimizer=optimizer_options or OptimizerOptions())
    engine = TorchEngine(copy.deepcopy(model), options, ranks=Ranks(), device=device)
    engine.train()
    entropy = target_entropy(batch["mask_labels"], batch["mask_weights"])
    losses: list[float] = []
    while len(losses) < max_updates:
        output = engine(**batch)
        loss = output["loss_sum"] / output["mask_count"]
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        looks_solved = output["correct"] >= SOLVED_ACCURACY * output["mask_count"]
        if looks_solved and _evaluate(engine, batch).solves(entropy):
            break
        if "next_sentence_loss_sum" in output:
            loss = loss + output["next_sentence_loss_sum"] / output["next_sentence_count"].clamp(min=1)
        engine.backward(loss, last=True)
        engine.step(learning_rate)
    return _result(_evaluate(engine, batch), batch, learning_rate, losses, entropy)


@dataclass(frozen=True)
class _Evaluation:
    loss: float
    accuracy: float
    predictions: Tensor  # [S, K]

    def solves(self, entropy: float) -> bool:
        return self.accuracy >= SOLVED_ACCURACY and self.loss <= SOLVED_LOSS * entropy


@torch.no_grad()
def _evaluate(engine: TorchEngine, batch: Mapping[str, Tensor]) -> _Evaluation:
    engine.eval()
    output = engine(**batch, with_logits=True)
    engine.train()
    count = output["mask_count"].item()
    predictions = output["logits"].argmax(-1).cpu()
    return _Evaluation(output["loss_sum"].item() / count, output["correct"].item() / count, predictions)


def _result(
    outcome: _Evaluation, batch: Mapping[str, Tensor], learning_rate: float, losses: Sequence[float], entropy: float
) -> OverfitResult:
    used = batch["mask_weights"].cpu() > 0
    predicted = Counter(outcome.predictions[used].tolist())
    most_common_share = predicted.most_common(1)[0][1] / predicted.total()
    finite = all(map(math.isfinite, losses)) and math.isfinite(outcome.loss)
    return OverfitResult(
        verdict=_verdict(outcome, losses, most_common_share, entropy) if finite else "not finite",
        learning_rate=learning_rate,
        losses=tuple(losses),
        final_loss=outcome.loss,
        accuracy=outcome.accuracy,
        unigram_entropy=entropy,
        distinct_labels=len(set(batch["mask_labels"].cpu()[used].tolist())),
        distinct_predictions=len(predicted),
        most_common_share=most_common_share,
        predictions=outcome.predictions,
    )


def _verdict(outcome: _Evaluation, losses: Sequence[float], most_common_share: float, entropy: float) -> str:
    return "solved" if outcome.solves(entropy) else unsolved_verdict(losses, most_common_share, entropy)


def unsolved_verdict(losses: Sequence[float], most_common_share: float, entropy: float) -> str:
    """Stuck when the loss is flat at the level of one answer to everything, or above its start.

    All else is too slow: a loss that still falls, or that has hardly begun to.
    """
    quarter = max(1, len(losses) // 4)
    before, last = median(losses[-2 * quarter : -quarter] or losses), median(losses[-quarter:])
    is_flat = before - last < FLAT_SHARE * entropy
    low, high = AT_ENTROPY
    has_collapsed = most_common_share >= ONE_TOKEN_SHARE and low * entropy <= last <= high * entropy
    return "stuck" if is_flat and (has_collapsed or last - losses[0] > FLAT_SHARE * entropy) else "too slow"


def target_entropy(labels: Tensor, weights: Tensor) -> float:
    """Entropy in nats of the targets' frequencies: the loss of the best prediction that ignores the input."""
    counts = Counter(labels[weights > 0].tolist())
    return -sum(count / counts.total() * math.log(count / counts.total()) for count in counts.values())


def side_by_side(
    batch: Mapping[str, Tensor],
    predictions: Tensor,
    to_tokens: Callable[[list[int]], list[str]],
    *,
    num_sequences: int = 2,
    width: int = 100,
) -> str:
    """Input, target and predicted tokens of the first sequences, one under the other; a wrong one is !marked!."""
    blocks: list[str] = []
    masks: Any = batch.get("attention_mask")
    for row in range(min(num_sequences, batch["input_ids"].shape[0])):
        length = int(masks[row].sum()) if masks is not None else batch["input_ids"].shape[1]
        shown = to_tokens(batch["input_ids"][row, :length].tolist())
        target, predicted = list(shown), list(shown)
        slots = (batch["mask_weights"][row] > 0).nonzero().flatten().tolist()
        labels = to_tokens([int(batch["mask_labels"][row, slot]) for slot in slots])
        answers = to_tokens([int(predictions[row, slot]) for slot in slots])
        for slot, label, answer in zip(slots, labels, answers, strict=True):
            position = int(batch["mask_positions"][row, slot])
            target[position] = label
            predicted[position] = answer if answer == label else f"!{answer}!"
        blocks += _columns({"Input Tokens:": shown, "Target Tokens:": target, "Predicted Tokens:": predicted}, width)
    return "\n\n".join(blocks)


def _columns(lines: Mapping[str, list[str]], width: int) -> list[str]:
    """Token lists under each other, one column per token, wrapped to `width` characters."""
    names = [name.ljust(max(map(len, lines))) for name in lines]
    folded, current = [], list(names)
    for cells in zip(*lines.values(), strict=True):
        column = max(map(len, cells))
        if len(current[0]) + column + 1 > width and current != names:
            folded.append(current)
            current = list(names)
        separator = " " if current == names else "|"
        current = [line + separator + cell.ljust(column) for line, cell in zip(current, cells, strict=True)]
    return ["\n".join(line.rstrip() for line in block) for block in [*folded, current]]
