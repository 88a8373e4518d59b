"""A made-up study with known answers: scores.jsonl, predictions and series rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gap.cells.store import Cell, append_score, fingerprint, write_predictions
from gap.intervals.bootstrap import Draws, Resampling, resample
from gap.intervals.variance import SeedGrid

BUDGETS = (125_000, 250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)


def expected_score(tokens: float, *, scratch: float = 0.15, top: float = 0.95, middle: float = 700_000.0) -> float:
    """The made-up truth: a sigmoid in log-tokens."""
    share = (tokens / middle) ** 1.5
    return scratch + (top - scratch) * share / (1 + share)


class SimulatedStudy:
    """Writes cells of simulated answers into a folder; every answer is right with the chance it was asked for."""

    def __init__(self, folder: Path, *, seed: int = 0, num_examples: int = 400, num_clusters: int = 100) -> None:
        self.folder, self.scores = folder, folder / "scores.jsonl"
        self.random = np.random.default_rng(seed)
        self.difficulty = np.random.default_rng(seed + 1).normal(0.0, 0.12, num_examples)
        self.clusters = [f"paragraph-{number % num_clusters}" for number in range(num_examples)]

    def add(
        self,
        task: str,
        kind: str,
        budget: int | None,
        chance: float,
        *,
        pretraining_seeds: int = 1,
        finetuning_seeds: int = 3,
        only_pretraining_seed: int | None = None,
        **more: Any,
    ) -> None:
        """Cells of one checkpoint for all seeds; `confidence` is that of every answer, whose records then have it."""
        details, confidence = more.pop("details", {}), more.pop("confidence", None)
        runs = range(pretraining_seeds) if only_pretraining_seed is None else [only_pretraining_seed]
        for pretraining_seed in runs:
            for finetuning_seed in range(finetuning_seeds):
                shift = self.random.normal(0.0, 0.01)
                right = self.random.random(len(self.difficulty)) < np.clip(chance + shift + self.difficulty, 0.0, 1.0)
                parts = {"t": task, "k": kind, "b": budget, "p": pretraining_seed, "f": finetuning_seed, **more}
                name = fingerprint({key: value for key, value in parts.items() if key != "metrics"})
                examples = [
                    {
                        "id": f"question-{number}",
                        "score": float(good),
                        "cluster": cluster,
                        **_sure(confidence, good),
                    }
                    for number, (good, cluster) in enumerate(zip(right, self.clusters, strict=True))
                ]
                write_predictions(self.folder / "predictions" / f"{name}.json", examples)
                cell = Cell(
                    name,
                    task,
                    kind,
                    budget,
                    pretraining_seed,
                    finetuning_seed,
                    "exact_match",
                    float(right.mean()),
                    metrics={"loss": float(1.5 - right.mean()), "expected_calibration_error": 0.04},
                    seconds=18.0,
                    predictions=f"predictions/{name}.json",
                    details={"learning_rate": 1e-4, "training_examples": 1600, **details},
                    **more,
                )
                append_score(self.scores, cell)


def _sure(confidence: float | None, good: bool) -> dict[str, float]:
    """The fields of a record whose answer is one of two and has this probability."""
    if confidence is None:
        return {}
    return {"confidence": confidence, "gold_log_probability": float(np.log(confidence if good else 1 - confidence))}


def series_rows(*, kinds: tuple[str, ...] = ("annealed",), seeds: int = 1) -> list[dict[str, Any]]:
    """Rows as in series.json for the made-up budgets."""
    rows = []
    for seed in range(seeds):
        for kind in kinds:
            for budget in BUDGETS:
                rows.append(_row(kind, budget, seed))
        rows.append(_row("raw", 0, seed))
    return rows


def write_study(
    folder: Path, *, pretraining_seeds: int = 1, raw: bool = True, seed: int = 0, middle: float = 7e5
) -> Path:
    """Extractive QA on the whole curve with controls, and a classification task at both ends; returns scores.jsonl."""
    study = SimulatedStudy(folder, seed=seed)
    size = {"pretraining_seeds": pretraining_seeds}
    study.add("qa", "raw", 0, 0.15, **size)
    for budget in BUDGETS:
        study.add("qa", "annealed", budget, expected_score(budget, middle=middle), **size)
        if raw:
            study.add("qa", "raw", budget, expected_score(budget, middle=1.4 * middle), **size)
    for factor, chance in ((2.0, 0.16), (4.0, 0.17), (8.0, 0.17)):
        study.add("qa", "raw", 0, chance, control="scratch_longer", epochs_factor=factor, **size)
    for fraction in (0.125, 0.25, 0.5):
        study.add("qa", "raw", 0, 0.15 * fraction**0.3, control="fewer_labels", label_fraction=fraction, **size)
        chance = 0.93 * fraction**0.9
        study.add("qa", "annealed", BUDGETS[-1], chance, control="fewer_labels", label_fraction=fraction, **size)
    study.add("qa", "annealed", BUDGETS[-1], 0.02, control="shuffled_labels", **size)
    study.add("classification", "raw", 0, 0.5, status="collapsed", **size)
    study.add("classification", "annealed", BUDGETS[-1], 0.9, **size)
    return study.scores


def _row(kind: str, budget: int, seed: int) -> dict[str, Any]:
    return {
        "path": f"{kind}-{budget}",
        "kind": kind,
        "budget_tokens": budget,
        "tokens_seen": budget,
        "unique_tokens": min(budget, 2_000_000),
        "flops": 6.0e7 * budget,
        "seconds": budget / 20_000,
        "validation_loss": 8.0 - 0.4 * float(np.log10(budget + 1)),
        "validation_accuracy": 0.1,
        "pretraining_seed": seed,
    }


def grids(checkpoints: int, rows: int, columns: int) -> list[SeedGrid]:
    size = rows * columns
    return [
        SeedGrid(tuple(range(rows)), tuple(range(columns)), tuple(range(number * size, (number + 1) * size)))
        for number in range(checkpoints)
    ]


def seed_draws(scores: np.ndarray, *, draws: int = 40_000, correction: str = "inflated") -> Draws:
    """Draws of scores [C, P, F] with the examples held fixed."""
    return resample(
        grids(*scores.shape),
        scores.reshape(-1),
        None,
        num_clusters=0,
        resampling=Resampling(draws=draws, correction=correction),
    )
