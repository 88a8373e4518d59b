"""What a cell leaves of every scored example, and its metrics as shares of 1."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from finetuning.questions.metrics import best_of, chinese_exact_match, chinese_f1, exact_match, f1_version_2, is_chinese
from finetuning.questions.spans import probabilities as span_probabilities
from finetuning.texts.metrics import probabilities as class_probabilities
from gap.tasks.specification import TaskData

CALIBRATION_BINS = 15
RECIPE_NAMES = {"matthews": "matthews_correlation", "spearman": "spearmanr"}  # ours -> the recipe's
NO_LOGIT = -1e9


def example_records(
    data: TaskData, predictions: Mapping[str, Mapping[str, Any]], contaminated: Collection[str] = ()
) -> list[dict[str, Any]]:
    """One record an example, as `gap/cells/store.py` has them; ids, scores in 0..1, clusters, labels, predictions."""
    kind = data.spec.kind
    score = _question_records if kind == "qa" else _choice_records if kind == "multiple_choice" else _text_records
    records = score(data, predictions)
    return [
        {
            **one,
            "cluster": data.scored_clusters[one["id"]],
            **({"contaminated": True} if one["id"] in contaminated else {}),
        }
        for one in records
    ]


def cell_metrics(
    data: TaskData, scores: Mapping[str, float], prefix: str, records: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Every finite figure of the scored set under its plain name; exact match and F1 of questions as shares of 1."""
    own = {name.removeprefix(prefix): value for name, value in scores.items() if name.startswith(prefix)}
    if data.spec.kind == "qa":
        kept = {"loss": own["loss"]} if "loss" in own else {}
        own = kept | {name: _mean(records, key) for name, key in (("exact_match", "score"), ("f1", "f1"))}
    elif data.metric in RECIPE_NAMES:
        own[data.metric] = own[RECIPE_NAMES[data.metric]]
    if records and "confidence" in records[0]:
        own["expected_calibration_error"] = calibration_error(
            [one["confidence"] for one in records], [one["score"] for one in records]
        )
    return {name: float(value) for name, value in own.items() if math.isfinite(value)}


def calibration_error(confidence: Sequence[float], right: Sequence[float]) -> float:
    """Mean distance between confidence and accuracy over 15 bins, weighted by count (Guo et al. 2017, equation 3)."""
    sure, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    bins = np.clip(np.ceil(sure * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    distances = [abs(sure[bins == one].mean() - hits[bins == one].mean()) * (bins == one).sum() for one in set(bins)]
    return float(sum(distances) / len(sure))


def _question_records(data: TaskData, predictions: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    chinese = is_chinese([answer.text for question in data.scored.values() for answer in question.answers])
    exact = chinese_exact_match if chinese else exact_match
    records = []
    for name, question in data.scored.items():
        text, candidates = predictions[name]["text"], predictions[name]["nbest"]
        gold = [answer.text for answer in question.answers] or [""]
        shares = span_probabilities([one.score for one in candidates]) if candidates else [1.0]
        records.append(
            {
                "id": name,
                "score": best_of(exact, text, gold),
                "f1": best_of(_chinese_overlap if chinese else f1_version_2, text, gold),
                "confidence": round(float(shares[0]), 6),
                "prediction": text,
            }
        )
    return records


def _chinese_overlap(prediction: str, answer: str) -> float:
    return chinese_f1(prediction, answer) if prediction and answer else float(prediction == answer)


def _choice_records(data: TaskData, predictions: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    records = []
    for name, question in data.scored.items():
        found = predictions[name]
        chances = class_probabilities([found["logits"]])[0]
        records.append(
            {
                "id": name,
                "score": float(found["choice"] == question.label),
                "confidence": round(float(chances.max()), 6),
                "label": question.names[question.label],
                "prediction": found["name"],
            }
        )
    return records


def _text_records(data: TaskData, predictions: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for name, example in data.scored.items():
        found = predictions[name]
        if data.labels:
            one = {
                "score": float(found["label"] == example.label),
                "label": example.label,
                "prediction": found["label"],
            }
        else:
            low, high = data.score_range or (0.0, 1.0)
            label, guess = float(example.label), float(found["value"])
            guess = guess if math.isfinite(guess) else low
            score = max(0.0, 1.0 - abs(label - guess) / (high - low))
            one = {"score": score, "label": label, "prediction": guess}
        records.append({"id": name, **one})
    return records


def _mean(records: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.mean([one[key] for one in records]))
