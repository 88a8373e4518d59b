"""The options that GLUE and classification share."""

from __future__ import annotations

from dataclasses import dataclass

from finetuning.examples.recipe import KEPT, SMALL_WORLD, FinetuningOptions
from finetuning.model.names import POOLINGS, TRUNCATIONS
from finetuning.recipes.options.pushing import PushingOptions
from runtime.options.declaration import DATA, MODEL, TRAINING, option, option_as_in


@dataclass
class TextOptions(PushingOptions, FinetuningOptions):
    """Options of the two text recipes, in addition to those that all recipes share."""

    max_seq_length: int = option_as_in(
        128, FinetuningOptions, "max_seq_length", by_data={SMALL_WORLD: 64}, marks=(KEPT,)
    )
    pooling: str | None = option(
        None,
        "the first token, or the mean or maximum of all; default: the saved head's, else the model family's",
        group=MODEL,
        choices=POOLINGS,
    )
    head_dropout: float | None = option(
        None,
        "dropout before the linear head; default: the model's own",
        group=MODEL,
        at_least=0,
        below=1,
        what="a rate such as 0.1",
    )
    truncation: str = option("head", "part of a long text to keep", group=DATA, choices=TRUNCATIONS, marks=(KEPT,))
    label_smoothing: float = option(
        0.0,
        "share of the target that is spread evenly over the classes",
        group=TRAINING,
        at_least=0,
        below=1,
        what="a share of the target",
    )
    balance_classes: bool = option(False, "give every class the same total weight in the loss", group=TRAINING)
