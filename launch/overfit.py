"""Can this model, at this rate, overfit one batch of this data? `launch/overfit.py --learning_rate 1e-2 1e-3 1e-5`."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretraining.model.masked_lm import build_model
from pretraining.overfit.first_batch import first_batch, write_sample_shards
from pretraining.overfit.overfit import OverfitResult, overfit_one_batch, side_by_side
from runtime.options.command_line import parse_options
from runtime.options.declaration import DATA, MODEL, TRAINING, Options, option
from runtime.processes.ranks import Ranks, choose_device, read_ranks
from shards.storage.location import open_location
from shards.streaming.options import OBJECTIVES, StreamOptions
from shards.tokenization.vocabulary import load_tokenizer


@dataclass(frozen=True)
class OverfitOptions(Options):
    """A model, data and one or more learning rates to try."""

    shards: str | None = option(None, "Shard directory or https address; default: the embedded small world", group=DATA)
    max_seq_length: int = option(64, "Tokens of a sequence", group=DATA, at_least=4, at_most=1 << 16)
    mask_rate: float = option(0.15, "Share of the tokens to predict", group=DATA, above=0, below=1)
    show_sequences: int = option(2, "Sequences printed with targets and predictions", group=DATA, at_least=0)

    model: str | None = option(None, "Named size (default bert-tiny), as bert-mini", group=MODEL)
    from_config: str | None = option(None, "Any transformers configuration instead", group=MODEL)
    model_name_or_path: str | None = option(None, "Trained weights to start from instead", group=MODEL)
    config_overrides: str | None = option(None, "Settings on top: num_hidden_layers=3,...", group=MODEL, commas=True)
    objective: str = option(
        "mlm", "Masked tokens, and for BERT next sentences with them", group=MODEL, choices=OBJECTIVES
    )

    learning_rate: list[float] = option(
        [1e-3], "One rate, or several to compare", group=TRAINING, above=0, below=math.inf, nargs="+"
    )
    max_steps: int = option(
        100, "Updates on the batch before giving up", group=TRAINING, at_least=1, formerly=("max_updates",)
    )
    global_batch_rows: int = option(8, "Sequences of the batch", group=TRAINING, at_least=1, formerly=("batch_rows",))
    max_grad_norm: float = option(
        1.0, "Gradients are clipped to this norm; 0: not", group=TRAINING, at_least=0, what="1.0 is usual"
    )
    seed: int = option(0, "Of weights, rows and masks", group=TRAINING, at_least=0)


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
    model = build_model(
        options.model or (None if named else "bert-tiny"),
        from_config=options.from_config,
        model_name_or_path=options.model_name_or_path,
        config_overrides=options.config_overrides,
        objective=options.objective,
        vocab_size=record.vocab_size,
        special_ids=record.special_ids,
        max_seq_length=options.max_seq_length,
        seed=options.seed,
    ).to(device)
    results = []
    for rate in options.learning_rate:
        settings: dict[str, Any] = {"max_updates": options.max_steps, "max_grad_norm": options.max_grad_norm}
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
        global_batch_rows=options.global_batch_rows,
        micro_batch_rows=options.global_batch_rows,
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
