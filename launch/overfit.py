"""Check whether a model can overfit one batch at some learning rates: `overfit.py --learning_rate 1e-2 1e-3 1e-5`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretraining.overfit.rates import ModelChoice, Trial, try_rates
from runtime.options.command_line import parse_options
from runtime.options.declaration import ALL_SEEDS, DATA, MODEL, TRAINING, Options, by_data, option
from runtime.options.exit_status import run_command
from runtime.processes.ranks import read_ranks
from shards.streaming.options import OBJECTIVES, StreamOptions

UNNAMED = "if none is named"  # when --model has a default


@dataclass(frozen=True)
class OverfitOptions(Options):
    """A model, data and one or more learning rates to try."""

    shards: str | None = option(None, "shard directory or https address; default: the embedded small world", group=DATA)
    max_seq_length: int = option(64, "tokens per sequence", group=DATA, at_least=4, at_most=1 << 16)
    mask_rate: float = option(0.15, "share of the tokens to predict", group=DATA, above=0, below=1)
    show_sequences: int = option(2, "sequences printed with targets and predictions", group=DATA, at_least=0)

    model: str | None = option(None, "named size such as bert-mini", group=MODEL, by_data={UNNAMED: "bert-tiny"})
    from_config: str | None = option(None, "any transformers configuration, instead of a named size", group=MODEL)
    model_name_or_path: str | None = option(None, "trained weights to start from, instead of a named size", group=MODEL)
    config_overrides: str | None = option(
        None, "changes to the configuration: num_hidden_layers=3,...", group=MODEL, commas=True
    )
    objective: str = option(
        "mlm", "masked tokens only or, for BERT, next-sentence prediction too", group=MODEL, choices=OBJECTIVES
    )

    learning_rate: list[float] = option(
        [1e-3], "one rate, or several to compare", group=TRAINING, above=0, below=math.inf, nargs="+"
    )
    max_steps: int = option(
        100, "updates on the batch before giving up", group=TRAINING, at_least=1, formerly=("max_updates",)
    )
    global_batch_rows: int = option(8, "sequences in the batch", group=TRAINING, at_least=1, formerly=("batch_rows",))
    max_grad_norm: float = option(
        1.0, "gradients are clipped to this norm; 0: no clipping", group=TRAINING, at_least=0, what="1.0 is usual"
    )
    seed: int = option(0, "seed of the weights, rows and masks", group=TRAINING, at_least=0, below=ALL_SEEDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and try each rate; the exit status is 0 when one of them solves the batch, 1 when none does."""
    options = parse_options(OverfitOptions, argv, description=__doc__)
    remedy = "lower --global_batch_rows or --max_seq_length, or take a smaller --model"
    return run_command(lambda: run(options), memory_remedy=remedy)


def run(options: OverfitOptions) -> int:
    """Try the learning rates; returns the exit status."""
    if not read_ranks().is_main:  # under a launcher one rank is enough
        return 0
    named = options.model or options.from_config or options.model_name_or_path
    model = ModelChoice(
        options.model if named else by_data(options, UNNAMED)["model"],
        options.from_config,
        options.model_name_or_path,
        options.config_overrides,
    )
    stream = StreamOptions(
        seed=options.seed,
        global_batch_rows=options.global_batch_rows,  # all rows of one update at once
        micro_batch_rows=options.global_batch_rows,
        lengths=((0, options.max_seq_length),),
        objective=options.objective,
        mask_rate=options.mask_rate,
    )
    trial = Trial(options.max_steps, options.max_grad_norm, options.show_sequences)
    results = try_rates(options.shards, model, stream, options.learning_rate, trial)
    return 0 if any(result.verdict == "solved" for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
