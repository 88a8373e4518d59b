"""Can this model, at this rate, overfit one batch of this data? `launch/overfit.py --learning_rate 1e-2 1e-3 1e-5`."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretraining.model.configuration import build_configuration
from pretraining.model.masked_lm import build_model
from pretraining.overfit.first_batch import first_batch, write_sample_shards
from pretraining.overfit.overfit import OverfitResult, overfit_one_batch, side_by_side
from runtime.options.command_line import COMMAS, parse_options
from runtime.processes.ranks import Ranks, choose_device, read_ranks
from shards.storage.location import open_location
from shards.streaming.options import StreamOptions
from shards.tokenization.vocabulary import load_tokenizer


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
    """Parse, try each rate, print; 0 when one of the rates solves the batch, 1 when none does, 2 for a refusal."""
    options = parse_options(OverfitOptions, argv, description=__doc__)
    try:
        if not read_ranks().is_main:  # under a launcher one rank is enough
            return 0
        if options.shards is not None:
            return run(options, options.shards)
        with tempfile.TemporaryDirectory() as directory:
            return run(options, str(write_sample_shards(directory, seed=options.seed)))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(options: OverfitOptions, shards: str) -> int:
    """Try every rate on the first batch of `shards` (directory or https address); print predictions and verdicts."""
    location, device = open_location(shards), choose_device(Ranks())
    record = location.manifest.tokenizer
    tokenizer = load_tokenizer(str(location.directory / record.path))
    batch = first_batch(location, stream_options(options), device)
    named = options.from_config or options.model_name_or_path
    config = build_configuration(
        options.model or (None if named else "bert-tiny"),
        from_config=options.from_config,
        model_name_or_path=options.model_name_or_path,
        config_overrides=options.config_overrides,
        objective=options.objective,
        vocab_size=record.vocab_size,
        special_ids=record.special_ids,
        max_seq_length=options.max_seq_length,
    )
    model = build_model(config, objective=options.objective, weights=options.model_name_or_path, seed=options.seed).to(
        device
    )
    results = []
    for rate in options.learning_rate:
        settings: dict[str, Any] = {"max_updates": options.max_updates, "max_grad_norm": options.max_grad_norm}
        result = overfit_one_batch(model, batch, rate, seed=options.seed, **settings)
        results.append(result)
        shown = side_by_side(
            batch, result.predictions, tokenizer.convert_ids_to_tokens, num_sequences=options.show_sequences
        )
        print(f"{shown}\n\n{result.summary()}\n", flush=True)
    if len(results) > 1:
        print(table(results))
    return 0 if any(result.verdict == "solved" for result in results) else 1


def stream_options(options: OverfitOptions) -> StreamOptions:
    """The batch as the stream is asked for it: all rows of one update at once."""
    return StreamOptions(
        seed=options.seed,
        global_batch_rows=options.batch_rows,
        micro_batch_rows=options.batch_rows,
        lengths=((0, options.max_seq_length),),
        objective=options.objective,
        mask_rate=options.mask_rate,
    )


def table(results: Sequence[OverfitResult]) -> str:
    """A line for each learning rate tried."""
    lines = ["learning rate  verdict     updates  first loss  last loss  entropy  right  predictions"]
    lines += [
        f"{result.learning_rate:<13g}  {result.verdict:<10}  {len(result.losses):>7}  {result.losses[0]:>10.3f}  "
        f"{result.final_loss:>9.3f}  {result.unigram_entropy:>7.3f}  {result.accuracy:>5.0%}  "
        f"{result.distinct_predictions:>11}"
        for result in results
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
