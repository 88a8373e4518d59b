"""Prediction with a fine-tuned model on new data, with the recipe and row settings stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetuning.loop.stopping import Asked
from finetuning.recipes.options.prediction import GIVEN, PredictionOptions
from finetuning.run.option_checks import options_class, prediction_of
from finetuning.run.saved_model import RECIPE_NAME
from finetuning.run.starting_point import open_start
from runtime.options.declaration import (
    declarations,
    names_marked,
)


def predict(options: PredictionOptions, asked: Asked) -> int:
    """Predict with the recipe that made the model, as its task says; returns the exit status.

    Raises ValueError where the model has no head of a recipe, or an option is given that its recipe does not use.
    """
    start = open_start(required(options.model_name_or_path, "--model_name_or_path", "the `best` folder of a run"))
    facts = start.head
    required(options.test_file, "--test_file", "the examples to predict")
    if facts is None:
        raise ValueError(
            f"--model_name_or_path {options.model_name_or_path} has no {RECIPE_NAME} and no head of a task: name the "
            "`best` folder of a fine-tuning run"
        )
    refuse_idle(options, str(facts["task"]))
    recipe = str(facts["task"])
    return prediction_of(recipe)(options_class(recipe)(**settings_of(options, facts)), asked, start)


def settings_of(options: PredictionOptions, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's options: those kept with the model, then those given here."""
    given = {name: getattr(options, name) for name in names_marked(options, GIVEN)}
    known = declarations(options_class(facts["task"]))
    own = {name: getattr(options, name) for name in declarations(options) if name in known and name not in given}
    own = {name: value for name, value in own.items() if value is not None}
    return {**facts["options"], **own, **given, "num_train_epochs": 0.0, "save_model": False, "report_to": "none"}


def refuse_idle(options: PredictionOptions, task: str) -> None:
    """ValueError for an option that the model's task does not use."""
    known = declarations(options_class(task))
    for name in declarations(options):
        if name not in known and getattr(options, name) is not None:
            raise ValueError(
                f"--{name} {getattr(options, name)} does nothing: {options.model_name_or_path} is a model of {task}; "
                "drop it"
            )


def required(value: str | None, name: str, what: str) -> str:
    """The value; ValueError where the option was not given."""
    if not value:
        raise ValueError(f"{name} is missing: name {what}")
    return value
