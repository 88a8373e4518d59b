"""The options of `launch/sweep.py`."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from finetuning.examples.recipe import FinetuningOptions
from runtime.options.declaration import DATA, MACHINE, OUTPUT, TRAINING, Options, option, option_as_in

REFERENCES = ("baseline", "best")


@dataclass
class SweepOptions(Options):
    """A sweep file and how to run it."""

    sweep_file: str = option(MISSING, "YAML file: recipe, base, grid or list, seeds; see docs/sweep.md", group=DATA)
    output_dir: str = option_as_in(
        MISSING, FinetuningOptions, "output_dir", "folder of cells, tables and curves; the same command again continues"
    )
    max_parallel: int | None = option(
        None, "cells run at once; default: one per GPU, or one on the CPU", group=MACHINE, at_least=1
    )
    smoke: bool = option(False, "first run every cell for one epoch; stop if any fails", group=TRAINING)
    smoke_samples: int = option(256, "training examples of a smoke run; 0: all", group=TRAINING, at_least=0)
    compare_with: str = option("baseline", "reference of the paired intervals", group=OUTPUT, choices=REFERENCES)
