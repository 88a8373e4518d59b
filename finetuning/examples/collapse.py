"""Detection of collapsed runs: a score at the majority rate, or the same prediction for everything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from runtime.plurals import counted

LOW_ENTROPY = 0.05  # share of the largest possible entropy below which predictions count as constant
FEW_UPDATES = 50  # a run that made fewer has hardly left its random head
NEAR_MAJORITY = 0.005  # share of the metric's range within which a score counts as the majority's


def normalised_entropy(labels: Sequence[str]) -> float:
    """Entropy of the predicted labels as a share of the largest possible entropy, in [0, 1].

    1 for one example or none.
    """
    if len(labels) < 2:
        return 1.0
    counts = Counter(labels)
    entropy = -sum(count / len(labels) * math.log(count / len(labels)) for count in counts.values())
    return entropy / math.log(min(len(labels), max(len(counts), 2)))


def collapse_reason(
    labels: Sequence[str], score: float, majority_score: float | None, *, score_range: float = 1.0
) -> str | None:
    """Why this run counts as collapsed, or None.

    Constant predictions are a collapse at any score, unless every example truly has the same answer
    (score at the top of the range). A score at the majority rate is one only when most predictions are one label: a
    weak model may pass through the majority rate with varied predictions.
    """
    if len(labels) < 2 or score >= score_range * (1 - 1e-9):
        return None
    top, count = Counter(labels).most_common(1)[0]
    share = count / len(labels)
    shown = repr(top if len(top) <= 40 else top[:40] + "...")
    if normalised_entropy(labels) < LOW_ENTROPY or share > 0.99:
        return f"{share:.1%} of the predictions are {shown}"
    at_majority = majority_score is not None and abs(score - majority_score) <= NEAR_MAJORITY * score_range
    if at_majority and share > 0.9:
        return f"the score {score:.4g} is the majority rate, and {share:.1%} of the predictions are {shown}"
    return None


def likely_cause(learning_rate: float, batch_rows: int, *, hidden_size: int, updates: int) -> str:
    """The likely cause of a failed run, judged by the learning rate for the batch and the width of the model.

    A run of few updates has hardly moved, unless its rate is far too high.

    Rules of thumb: base-size encoders (768 wide) train at 1e-5 to 1e-4 for a batch of 16 to 32, narrower ones take
    proportionally more, and it scales with the square root of the batch.
    """
    usual = 5e-5 * (768 / max(hidden_size, 1)) * math.sqrt(batch_rows / 32)
    figures = f"{learning_rate:g} at {batch_rows} rows per update and width {hidden_size}, usual is near {usual:.1g}"
    if learning_rate > 4 * usual:
        return f"probably the learning rate is too high for the batch ({figures}): lower it or raise the warmup"
    if updates < FEW_UPDATES:
        remedy = (
            f"train longer, with a higher learning rate ({figures})" if learning_rate < usual / 5 else "train longer"
        )
        return f"it made only {counted(updates, 'update')}: {remedy}"
    if learning_rate < usual / 5:
        return f"probably the learning rate is too low for the batch ({figures}): raise it or train longer"
    return f"the learning rate fits the batch ({figures}): look at the labels, or train longer"
