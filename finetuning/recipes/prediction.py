"""Prediction with a fine-tuned model on new data, with the recipe and row settings stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from finetuning.examples.recipe import COLUMN, FinetuningOptions
from finetuning.loop.stopping import Asked
from finetuning.recipes.questions.qa_run import QAOptions
from finetuning.recipes.texts.classification_run import ClassificationOptions
from finetuning.recipes.tokens.token_run import TokenOptions
from finetuning.run.option_checks import options_class, prediction_of
from finetuning.run.saved_model import RECIPE_NAME
from finetuning.run.starting_point import open_start
from runtime.options.declaration import (
    BadText,
    Options,
    declarations,
    names_marked,
    option_as_in,
)

GIVEN = "a recipe's option that prediction sets, whatever was kept with the model"


@dataclass(kw_only=True)
class PredictionOptions(Options):
    """A model that a recipe trained, and new data for it."""

    test_file: str = option_as_in(
        MISSING, FinetuningOptions, "test_file", "new examples, with or without answers", marks=(GIVEN,)
    )
    context_file: str | None = option_as_in(
        None, QAOptions, "context_file", "two-stage data: the JSON list of paragraphs that the rows number"
    )
    text_column: str | None = option_as_in(
        None,
        ClassificationOptions,
        "text_column",
        "column of the text; default: that used in training, or the usual names",
        marks=(COLUMN,),
    )
    text_pair_column: str | None = option_as_in(None, ClassificationOptions, "text_pair_column", marks=(COLUMN,))
    label_column: str | None = option_as_in(
        None, ClassificationOptions, "label_column", "column of the label, if there is one", marks=(COLUMN,)
    )
    tag_column: str | None = option_as_in(
        None, TokenOptions, "tag_column", "column of the words' tags; default: that used in training", marks=(COLUMN,)
    )
    id_column: str | None = option_as_in(
        None,
        ClassificationOptions,
        "id_column",
        "column of the example's id; default: the usual names, else the row's number",
        marks=(COLUMN,),
    )
    max_seq_length: int | None = option_as_in(
        None, FinetuningOptions, "max_seq_length", "longest row in tokens; default: that used in training"
    )
    max_eval_samples: int | None = option_as_in(
        None,
        FinetuningOptions,
        "max_eval_samples",
        "predict only N examples, chosen by a hash of their ids",
        marks=(GIVEN,),
    )
    on_bad_text: BadText = option_as_in("stop", FinetuningOptions, "on_bad_text", marks=(GIVEN,))
    model_name_or_path: str = option_as_in(
        MISSING,
        FinetuningOptions,
        "model_name_or_path",
        "the `best` folder of a fine-tuning run, or any model with a head",
        marks=(GIVEN,),
    )
    per_device_eval_batch_size: int = option_as_in(
        64, FinetuningOptions, "per_device_eval_batch_size", "rows of one batch of one rank", marks=(GIVEN,)
    )
    bf16: str = option_as_in(
        "auto", FinetuningOptions, "bf16", "bfloat16; auto: where the hardware has it", marks=(GIVEN,)
    )
    output_dir: str = option_as_in(
        "runs/predictions", FinetuningOptions, "output_dir", "folder of the predictions", marks=(GIVEN,)
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
