"""SQuAD 2.0's scores: answerable and unanswerable questions separately, and the best threshold for no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetuning.recipes.questions.metrics import Scorer, best_of, exact_match, f1_version_2, normalise


def version_2_scores(
    predictions: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    *,
    exact: Scorer = exact_match,
    overlap: Scorer = f1_version_2,
) -> dict[str, float]:
    """The official names and figures (Rajpurkar et al. 2018), with `exact_match` next to `exact`.

    `predictions` are texts, "" for none.
    """
    gold = {name: [text for text in texts if normalise(text)] or [""] for name, texts in answers.items()}
    exact_scores = {name: best_of(exact, predictions.get(name, ""), texts) for name, texts in gold.items()}
    f1_scores = {name: best_of(overlap, predictions.get(name, ""), texts) for name, texts in gold.items()}
    answerable = [name for name, texts in answers.items() if texts]
    unanswerable = [name for name, texts in answers.items() if not texts]
    metrics = {"exact": _mean(exact_scores, list(answers)), "f1": _mean(f1_scores, list(answers))}
    metrics["exact_match"] = metrics["exact"]
    metrics["total"] = float(len(answers))
    for prefix, names in (("HasAns", answerable), ("NoAns", unanswerable)):
        if names:
            metrics[f"{prefix}_exact"] = _mean(exact_scores, names)
            metrics[f"{prefix}_f1"] = _mean(f1_scores, names)
            metrics[f"{prefix}_total"] = float(len(names))
    return metrics


def thresholds(
    best_texts: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    null_scores: Mapping[str, float],
    *,
    exact: Scorer = exact_match,
    overlap: Scorer = f1_version_2,
) -> dict[str, float]:
    """Best exact match and F1 over all thresholds on the null score, and the thresholds that give them.

    `best_texts` are the best non-empty answers; one is given where the null score (higher when no answer is likelier)
    is at or below the threshold.
    """
    gold = {name: [text for text in texts if normalise(text)] or [""] for name, texts in answers.items()}
    metrics: dict[str, float] = {}
    for label, scorer in (("exact", exact), ("f1", overlap)):
        scores = {name: best_of(scorer, best_texts[name], texts) for name, texts in gold.items()}
        metrics |= _best_threshold(label, scores, best_texts, answers, null_scores)
    return metrics


def _best_threshold(
    label: str,
    scores: Mapping[str, float],
    best_texts: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    null_scores: Mapping[str, float],
) -> dict[str, float]:
    current = best = float(sum(not texts for texts in answers.values()))
    threshold = 0.0
    for name in sorted(answers, key=lambda name: null_scores[name]):
        if answers[name]:
            current += scores[name]
        elif best_texts[name]:
            current -= 1
        if current > best:
            best, threshold = current, null_scores[name]
    return {f"best_{label}": 100.0 * best / len(answers), f"best_{label}_thresh": threshold}


def _mean(scores: Mapping[str, float], names: Sequence[str]) -> float:
    return 100.0 * sum(scores[name] for name in names) / len(names)
