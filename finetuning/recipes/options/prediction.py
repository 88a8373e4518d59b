"""The options of predictions with a saved model of any recipe."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from finetuning.examples.recipe import COLUMN, FinetuningOptions
from finetuning.recipes.options.classification import ClassificationOptions
from finetuning.recipes.options.qa import QAOptions
from finetuning.recipes.options.token_classification import TokenOptions
from runtime.options.declaration import BadText, Options, option_as_in

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
