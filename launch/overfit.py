"""Can this model, at this rate, overfit one batch of this data? `launch/overfit.py --learning_rate 1e-2 1e-3 1e-5`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretraining.overfit.rates import ModelChoice, Trial, try_rates
from runtime.options.command_line import COMMAS, parse_options
from runtime.options.exit_status import run_command
from runtime.processes.ranks import read_ranks
from shards.streaming.options import StreamOptions


@dataclass(frozen=True)
class OverfitOptions:
    """A model, data and one or more learning rates to try."""

    shards: str | None = field(
        default=None, metadata={"help": "Shard directory or https address; default: the embedded small world"}
    )
    model: str | None = field(default=None, metadata={"help": "Named size (default bert-tiny), as bert-mini"})
    from_config: str | None = field(default=None, metadata={"help": "Any transformers configuration instead"})
    model_name_or_path: str | None = field(default=None, metadata={"help": "Trained weights to start from instead"})
    config_overrides: Annotated[str | None, COMMAS] = field(
        default=None, metadata={"help": "Settings on top: num_hidden_layers=3,..."}
    )
    objective: str = field(default="mlm", metadata={"help": "mlm, or mlm+nsp for BERT"})
    learning_rate: list[float] = field(
        default_factory=lambda: [1e-3], metadata={"help": "One rate, or several to compare", "nargs": "+"}
    )
    max_updates: int = field(default=100, metadata={"help": "Updates on the batch before giving up"})
    batch_rows: int = field(default=8, metadata={"help": "Sequences of the batch"})
    max_seq_length: int = field(default=64, metadata={"help": "Tokens of a sequence"})
    mask_rate: float = field(default=0.15, metadata={"help": "Share of the tokens to predict"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradients are clipped to this norm; 0: not"})
    show_sequences: int = field(default=2, metadata={"help": "Sequences printed with targets and predictions"})
    seed: int = field(default=0, metadata={"help": "Of weights, rows and masks"})

    def __post_init__(self) -> None:
        if min(self.max_updates, self.batch_rows) < 1:
            raise ValueError("--max_updates and --batch_rows must be at least 1")
        if not all(0 < rate < math.inf for rate in self.learning_rate):
            raise ValueError(f"--learning_rate {self.learning_rate}: every rate must be above 0 and finite")
        for name in ("max_grad_norm", "show_sequences", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} {getattr(self, name)}: use at least 0")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and try each rate; the exit status is 0 when one of them solves the batch, 1 when none does."""
    options = parse_options(OverfitOptions, argv, description=__doc__)
    remedy = "lower --batch_rows or --max_seq_length, or take a smaller --model"
    return run_command(lambda: run(options), memory_remedy=remedy)


def run(options: OverfitOptions) -> int:
    """The command for parsed options."""
    if not read_ranks().is_main:  # under a launcher one rank is enough
        return 0
    named = options.from_config or options.model_name_or_path
    model = ModelChoice(
        options.model or (None if named else "bert-tiny"),
        options.from_config,
        options.model_name_or_path,
        options.config_overrides,
    )
    stream = StreamOptions(
        seed=options.seed,
        global_batch_rows=options.batch_rows,  # all rows of one update at once
        micro_batch_rows=options.batch_rows,
        lengths=((0, options.max_seq_length),),
        objective=options.objective,
        mask_rate=options.mask_rate,
    )
    trial = Trial(options.max_updates, options.max_grad_norm, options.show_sequences)
    results = try_rates(options.shards, model, stream, options.learning_rate, trial)
    return 0 if any(result.verdict == "solved" for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
