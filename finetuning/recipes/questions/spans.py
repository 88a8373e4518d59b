"""Span extraction: exact n-best spans of each row, then the best answer over an example's windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from finetuning.examples.recipe import Feature
from finetuning.recipes.questions.windows import NO_ANSWER


@dataclass(frozen=True)
class SpanLimits:
    """Limits of the search for answers."""

    n_best_size: int = 20
    max_answer_length: int = 30  # tokens


def best_spans(
    start_logits: torch.Tensor, end_logits: torch.Tensor, allowed: torch.Tensor, limits: SpanLimits
) -> dict[str, torch.Tensor]:
    """The n best spans of each row, all pairs considered; logits and `allowed` [R, T].

    Returns span_scores, span_starts, span_ends [R, n], best first, -inf where a row has fewer spans, and null_scores
    [R]: the score of the first token, which stands for no answer.
    """
    length = start_logits.shape[1]
    width = min(limits.max_answer_length, length)
    starts = start_logits.float().masked_fill(~allowed, -torch.inf)
    ends = end_logits.float().masked_fill(~allowed, -torch.inf)
    ends = torch.nn.functional.pad(ends, (0, width - 1), value=-torch.inf)
    scores = starts.unsqueeze(-1) + ends.unfold(1, width, 1)  # [R, T, W]: start t, end t + w
    n = min(limits.n_best_size, length * width)
    top_scores, places = scores.flatten(1).topk(n, dim=1)
    first = torch.div(places, width, rounding_mode="floor")
    last = first + places % width
    if n < limits.n_best_size:  # every batch of a set must give the same shape
        missing = (0, limits.n_best_size - n)
        top_scores = torch.nn.functional.pad(top_scores, missing, value=-torch.inf)
        first, last = (torch.nn.functional.pad(each, missing) for each in (first, last))
    null_scores = start_logits[:, 0].float() + end_logits[:, 0].float()
    return {"span_scores": top_scores, "span_starts": first, "span_ends": last, "null_scores": null_scores}


def gold_log_probabilities(start_logits: torch.Tensor, end_logits: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """Log-probability of the likeliest gold answer of each row, [R], -inf where the row holds none.

    A span's is the log-softmax of its start plus that of its end, over all tokens of the row, as in training. Logits
    are [R, T], `spans` [R, A, 2] are first and last positions, -1 where a row has fewer answers.
    """
    starts, ends = (logits.double().log_softmax(-1) for logits in (start_logits, end_logits))
    first, last = spans.clamp(min=0).unbind(-1)
    found = starts.gather(1, first) + ends.gather(1, last)
    return found.masked_fill(spans[..., 0] < 0, -torch.inf).amax(-1)


class Candidate(NamedTuple):
    """One possible answer: characters [start, end) of the context."""

    text: str
    score: float
    start: int
    end: int


def answers_by_example(
    features: Sequence[Feature],
    rows: Mapping[str, np.ndarray],
    contexts: Mapping[str, str],
    limits: SpanLimits,
) -> dict[str, dict[str, Any]]:
    """Prediction of each example: the best span over its windows, its n-best list and its null score.

    Ties are broken by window, start and end, never by the order of the rows. An example without any
    candidate gets the empty answer. `rows` are those of `best_spans`, in the order of `features`.
    """
    by_example: dict[str, list[int]] = {}
    for i, feature in enumerate(features):
        by_example.setdefault(str(feature["example_id"]), []).append(i)
    predictions: dict[str, dict[str, Any]] = {}
    for name, indices in by_example.items():
        indices.sort(key=lambda i: int(features[i]["window"]))
        candidates = _merge([_candidates(features[i], i, rows, contexts[name]) for i in indices], limits)
        null_score = min(float(rows["null_scores"][i]) for i in indices)
        best = candidates[0] if candidates else Candidate("", -float("inf"), 0, 0)
        predictions[name] = {
            "text": best.text,
            "best_text": best.text,
            "start": best.start,
            "score": best.score,
            "null_score": null_score,
            "nbest": candidates,
        }
    return predictions


def gold_by_example(features: Sequence[Feature], log_probabilities: np.ndarray) -> dict[str, float | None]:
    """The gold answer's log-probability of each example, from its windows' [R], in the order of `features`.

    It is that of the window in which it is likeliest, among those that hold an answer; None where none does. "No
    answer" is right only if every window says so: as for its score, the window that is least sure of it decides.
    """
    by_example: dict[str, list[tuple[bool, float]]] = {}
    for feature, value in zip(features, log_probabilities, strict=True):
        is_none = feature["gold_spans"].tolist() == [[*NO_ANSWER]]
        by_example.setdefault(str(feature["example_id"]), []).append((is_none, float(value)))
    best = {
        name: min(value for _, value in own) if own[0][0] else max(value for _, value in own)
        for name, own in by_example.items()
    }
    return {name: value if np.isfinite(value) else None for name, value in best.items()}


def probabilities(scores: Sequence[float]) -> list[float]:
    """Softmax over the scores of an n-best list."""
    values = np.asarray(scores, dtype=np.float64)
    weights = np.exp(values - values.max())
    return [float(weight) for weight in weights / weights.sum()]


def _candidates(feature: Feature, i: int, rows: Mapping[str, np.ndarray], context: str) -> list[Candidate]:
    scores = rows["span_scores"][i]
    keep = np.flatnonzero(np.isfinite(scores))
    first = int(feature["context_start"])
    starts = feature["offsets"][rows["span_starts"][i][keep].astype(np.int64) - first, 0]
    ends = feature["offsets"][rows["span_ends"][i][keep].astype(np.int64) - first, 1]
    return [
        Candidate(context[start:end], float(score), int(start), int(end))
        for score, start, end in zip(scores[keep], starts, ends, strict=True)
    ]


def _merge(windows: Sequence[Sequence[Candidate]], limits: SpanLimits) -> list[Candidate]:
    """The best candidates of all windows, each span of the context once."""
    ordered = sorted(
        ((candidate, number) for number, window in enumerate(windows) for candidate in window),
        key=lambda pair: (-pair[0].score, pair[1], pair[0].start, pair[0].end),
    )
    unique = {(candidate.start, candidate.end): candidate for candidate, _ in reversed(ordered)}
    best = sorted(unique.values(), key=lambda candidate: (-candidate.score, candidate.start, candidate.end))
    return best[: limits.n_best_size]
