"""The sums that a model returns, by name, and the means that follow from them."""

from __future__ import annotations

from collections.abc import Mapping

STATISTICS = ("loss_sum", "mask_count", "correct")
NEXT_SENTENCE_STATISTICS = ("next_sentence_loss_sum", "next_sentence_count", "next_sentence_correct")


def statistics_of(*, next_sentence: bool) -> tuple[str, ...]:
    """Names of the sums, in the order in which they are stacked."""
    return STATISTICS + (NEXT_SENTENCE_STATISTICS if next_sentence else ())


def losses(sums: Mapping[str, float]) -> dict[str, float]:
    """Means over masked tokens (nats) and shares right, from sums over the global batch."""
    masked = max(sums["mask_count"], 1.0)
    result = {"loss": sums["loss_sum"] / masked, "accuracy": sums["correct"] / masked}
    if "next_sentence_loss_sum" in sums:
        pairs = max(sums["next_sentence_count"], 1.0)
        result["next_sentence_loss"] = sums["next_sentence_loss_sum"] / pairs
        result["next_sentence_accuracy"] = sums["next_sentence_correct"] / pairs
    return result
