"""Checks of the recipes' options before any data are read, by each recipe and by a sweep for its rows."""

from __future__ import annotations

import importlib

from finetuning.examples.batches import batch_shape
from finetuning.examples.recipe import FinetuningOptions
from finetuning.loop.training import engine_options
from pretraining.engines.engine import check_ranks
from runtime.processes.ranks import Ranks
from runtime.trackers import parse_reporters

RECIPES = ("qa", "multiple_choice", "glue", "classification")


def options_class(recipe: str) -> type[FinetuningOptions]:
    """The dataclass of a recipe's options."""
    module = importlib.import_module(f"finetuning.{recipe}")
    return next(
        member for member in vars(module).values() if isinstance(member, type) and issubclass(member, FinetuningOptions)
    )


def check_options(options: FinetuningOptions, ranks: Ranks | None = None) -> None:
    """ValueError, naming the option, for contradictions between options, ranks and a DeepSpeed JSON.

    Without `ranks` a run is one process. It does not query the hardware, so a sweep may call it, and all ranks agree.
    """
    ranks = ranks or Ranks()
    parse_reporters(options.report_to)
    check_ranks(engine_options(options, batch_shape(options, ranks.world_size)), ranks)
