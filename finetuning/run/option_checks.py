"""Checks of the recipes' options before any data are read, by each recipe and by a sweep for its rows."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from finetuning.examples.batches import batch_shape
from finetuning.examples.recipe import FinetuningOptions
from runtime.processes.ranks import Ranks
from runtime.trackers import parse_reporters

# Every recipe, and the module of its run: `run`, `score_names`, and `predict` where it is not `run`. Sweeps,
# predictions, messages and tests take the list from here. A recipe with a head of its own bears the name of the head's
# task; finetuning/NAME.py is its command, and finetuning/recipes/options/NAME.py has its options.
RECIPES: Mapping[str, str] = {
    "qa": "finetuning.recipes.questions.qa_run",
    "multiple_choice": "finetuning.recipes.choices.choice_run",
    "glue": "finetuning.recipes.texts.glue_run",
    "classification": "finetuning.recipes.texts.classification_run",
    "token_classification": "finetuning.recipes.tokens.token_run",
}


def options_class(recipe: str) -> type[FinetuningOptions]:
    """The dataclass of a recipe's options."""
    module = importlib.import_module(f"finetuning.recipes.options.{recipe}")
    return next(
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, FinetuningOptions) and member.__module__ == module.__name__
    )


def prediction_of(recipe: str) -> Callable[..., int]:
    """What predicts with a recipe's saved model, from options, a request to stop and the model."""
    module: Any = importlib.import_module(RECIPES[recipe])
    return module.predict if hasattr(module, "predict") else module.run


def score_names(recipe: str) -> list[str]:
    """The scores that a recipe can give, without a prefix; the data decide which it gives."""
    return list(importlib.import_module(RECIPES[recipe]).score_names())


def check_options(options: FinetuningOptions, ranks: Ranks | None = None) -> None:
    """ValueError, naming the option, for contradictions between options, ranks and a DeepSpeed JSON.

    Without `ranks` a run is one process. It does not query the hardware, so a sweep may call it, and all ranks agree.
    """
    from finetuning.loop.training import engine_options  # loads torch, which the lists above do not need
    from pretraining.engines.engine import check_ranks

    ranks = ranks or Ranks()
    parse_reporters(options.report_to)
    check_ranks(engine_options(options, batch_shape(options, ranks.world_size)), ranks)
