"""Prediction with a fine-tuned model on new data, with the recipe and row settings stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from finetuning.examples.recipe import COLUMN
from finetuning.loop.stopping import Asked
from finetuning.run.option_checks import options_class, prediction_of
from finetuning.run.saved_model import RECIPE_NAME
from finetuning.run.starting_point import open_start
from runtime.options.declaration import (
    BAD_TEXT,
    DATA,
    MACHINE,
    MODEL,
    OUTPUT,
    PRECISIONS,
    BadText,
    Options,
    declarations,
    names_marked,
    option,
)

GIVEN = "a recipe's option that prediction sets, whatever was kept with the model"


@dataclass(kw_only=True)
class PredictionOptions(Options):
    """A model that a recipe trained, and new data for it."""

    test_file: str = option(MISSING, "new examples, with or without answers", group=DATA, marks=(GIVEN,))
    context_file: str | None = option(
        None, "two-stage data: the JSON list of paragraphs that the rows number", group=DATA
    )
    text_column: str | None = option(
        None, "column of the text; default: that used in training, or the usual names", group=DATA, marks=(COLUMN,)
    )
    text_pair_column: str | None = option(None, "column of the second text", group=DATA, marks=(COLUMN,))
    label_column: str | None = option(None, "column of the label, if there is one", group=DATA, marks=(COLUMN,))
    tag_column: str | None = option(
        None, "column of the words' tags; default: that used in training", group=DATA, marks=(COLUMN,)
    )
    id_column: str | None = option(
        None,
        "column of the example's id; default: the usual names, else the row's number",
        group=DATA,
        marks=(COLUMN,),
    )
    max_seq_length: int | None = option(
        None, "longest row in tokens; default: that used in training", group=DATA, at_least=8
    )
    max_eval_samples: int | None = option(
        None, "predict only N examples, chosen by a hash of their ids", group=DATA, at_least=1, marks=(GIVEN,)
    )
    on_bad_text: BadText = option(
        "stop",
        "text that is not UTF-8: stop, or replace and count",
        group=DATA,
        choices=BAD_TEXT,
        formerly=("invalid_utf8",),
        marks=(GIVEN,),
    )
    model_name_or_path: str = option(
        MISSING, "the `best` folder of a fine-tuning run, or any model with a head", group=MODEL, marks=(GIVEN,)
    )
    per_device_eval_batch_size: int = option(
        64, "rows of one batch of one rank", group=MACHINE, at_least=1, marks=(GIVEN,)
    )
    bf16: str = option(
        "auto",
        "bfloat16; auto: where the hardware has it",
        group=MACHINE,
        choices=PRECISIONS,
        nargs="?",
        const="true",
        marks=(GIVEN,),
    )
    output_dir: str = option("runs/predictions", "folder of the predictions", group=OUTPUT, marks=(GIVEN,))


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
