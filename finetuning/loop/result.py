"""The outcome of a fine-tuning run and the files it leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetuning.examples.batches import BatchShape
from finetuning.examples.collapse import collapse_reason, likely_cause
from finetuning.examples.predictions import write_finite_json
from finetuning.examples.recipe import FinetuningOptions, Recipe
from finetuning.loop.evaluation import Evaluation
from finetuning.loop.optimism import selection_optimism, split_in_halves
from finetuning.loop.run_state import FinetuningProgress
from finetuning.loop.schedule import Schedule
from finetuning.loop.updates import means

SCHEMA_VERSION = 1


@dataclass
class Result:
    """A run's outcome. `scores` are named eval_..., test_...; `predictions` are by set name, then by example id."""

    status: str  # "done", "collapsed" or "not_finite"
    scores: dict[str, float]
    predictions: dict[str, dict[str, Any]]
    seconds: float
    train_seconds: float
    epochs: float
    updates: int
    train_rows_per_second: float | None = None
    evaluation_seconds: float | None = None  # of one pass over every evaluation set
    evaluation_examples_per_second: float | None = None
    best_epoch: float | None = None
    selection_gain: float | None = None  # best minus last validation score
    selection_optimism: float | None = None  # bias of the best validation score from picking it: cross-fitted
    reason: str | None = None  # of a status other than "done"
    stopped_early: bool = False
    not_finite_updates: int = 0
    training: dict[str, float] = field(default_factory=dict)  # measures, means over the last epoch's updates
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per validation

    def as_json(self) -> dict[str, Any]:
        """The flat content of all_results.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "reason": self.reason,
            **self.scores,
            **{f"train_{name}": value for name, value in self.training.items()},
            "epoch": self.epochs,
            "best_epoch": self.best_epoch,
            "selection_gain": self.selection_gain,
            "selection_optimism": self.selection_optimism,
            "stopped_early": self.stopped_early,
            "updates": self.updates,
            "not_finite_updates": self.not_finite_updates,
            "seconds": self.seconds,
            "train_seconds": self.train_seconds,
            "train_samples_per_second": self.train_rows_per_second,
            "evaluation_seconds": self.evaluation_seconds,
            "evaluation_samples_per_second": self.evaluation_examples_per_second,
        }


def score_prefix(set_name: str) -> str:
    """validation -> eval_, validation_x -> eval_x_, any other name -> name_."""
    return set_name.replace("validation", "eval", 1) + "_"


def make_result(
    recipe: Recipe,
    options: FinetuningOptions,
    schedule: Schedule,
    shape: BatchShape,
    progress: FinetuningProgress,
    evaluations: Mapping[str, Evaluation],
    seconds: float,
    hidden_size: int,
) -> Result:
    """Put a finished run's figures together and judge whether it failed."""
    scores = {
        score_prefix(name) + key: value
        for name, evaluation in evaluations.items()
        for key, value in evaluation.scores.items()
    }
    status, reason = _judge(recipe, evaluations, progress)
    if status == "collapsed":
        cause = likely_cause(
            options.learning_rate, shape.global_rows, hidden_size=hidden_size, updates=progress.updates
        )
        reason = f"{reason}; {cause}"
    evaluation_seconds = sum(evaluation.seconds for evaluation in evaluations.values())
    num_evaluated = sum(len(evaluation.predictions) for evaluation in evaluations.values())
    last = progress.history[-1][recipe.metric] if progress.history else None
    return Result(
        status=status,
        reason=reason,
        scores=scores,
        predictions={name: evaluation.predictions for name, evaluation in evaluations.items()},
        seconds=seconds,
        train_seconds=progress.train_seconds,
        epochs=progress.updates / schedule.updates_per_epoch,
        updates=progress.updates,
        train_rows_per_second=progress.rows / progress.train_seconds if progress.train_seconds else None,
        evaluation_seconds=evaluation_seconds or None,
        evaluation_examples_per_second=num_evaluated / evaluation_seconds if evaluation_seconds else None,
        best_epoch=progress.best_epoch,
        selection_gain=None if last is None or progress.best_score is None else progress.best_score - last,
        selection_optimism=_optimism(recipe, progress),
        stopped_early=progress.stopped == "early",
        not_finite_updates=progress.not_finite,
        training=means(progress.epoch_sums),
        history=progress.history,
    )


def write_predictions(recipe: Recipe, result: Result, directory: Path) -> None:
    """history.json and the prediction files; the main rank's work.

    The files of "test" (of "validation" without a test) are in `directory` itself, those of others in a folder each.
    """
    directory.mkdir(parents=True, exist_ok=True)
    main = "test" if "test" in result.predictions else "validation"
    for name, predictions in result.predictions.items():
        recipe.write(predictions, recipe.evaluation_sets[name], directory if name == main else directory / name)
    write_finite_json(directory / "history.json", {"schema_version": SCHEMA_VERSION, "validations": result.history})


def _optimism(recipe: Recipe, progress: FinetuningProgress) -> float | None:
    validation = recipe.evaluation_sets.get("validation")
    if validation is None or progress.best_score is None:
        return None
    first, second = split_in_halves(validation)
    return selection_optimism(progress.best_score, progress.half_scores, (len(first), len(second)))


def _judge(
    recipe: Recipe, evaluations: Mapping[str, Evaluation], progress: FinetuningProgress
) -> tuple[str, str | None]:
    if progress.stopped == "not_finite":
        return "not_finite", f"loss or gradient was not finite in {progress.not_finite} updates, which were skipped"
    for name in ("validation", *evaluations):
        evaluation = evaluations.get(name)
        if evaluation is None or not evaluation.scores or not progress.updates:
            continue
        if not math.isfinite(evaluation.scores[recipe.metric]):
            return "not_finite", f"{recipe.metric} of {name} is not finite"
        reason = collapse_reason(
            recipe.predicted_labels(evaluation.predictions),
            evaluation.scores[recipe.metric],
            recipe.majority_score(recipe.evaluation_sets[name].examples),
            score_range=recipe.metric_maximum,
        )
        return ("done", None) if reason is None else ("collapsed", f"{name}: {reason}")
    return "done", None
