"""The overfit check at several learning rates: the output per rate, and a table of all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

from pretraining.model.configuration import build_configuration
from pretraining.model.masked_lm import build_model
from pretraining.overfit.first_batch import first_batch, write_sample_shards
from pretraining.overfit.options import OverfitOptions
from pretraining.overfit.overfit import OverfitResult, overfit_one_batch, side_by_side
from runtime.processes.ranks import Ranks, choose_device
from shards.storage.location import open_location
from shards.tokenization.vocabulary import load_tokenizer


def try_rates(options: OverfitOptions) -> list[OverfitResult]:
    """Try every rate on the first batch of the shards, or of a small sample of the embedded small world.

    Prints predictions and verdicts. Raises ValueError or OSError for shards or a model that cannot be read.
    """
    if options.shards is not None:
        return _try_on(options.shards, options)
    with tempfile.TemporaryDirectory() as directory:
        return _try_on(str(write_sample_shards(directory, seed=options.seed)), options)


def _try_on(shards: str, options: OverfitOptions) -> list[OverfitResult]:
    location, device = open_location(shards), choose_device(Ranks())
    record = location.manifest.tokenizer
    tokenizer = load_tokenizer(str(location.directory / record.path))
    batch = first_batch(location, options.stream(), device)
    config = build_configuration(
        **options.configuration(),
        objective=options.objective,
        vocab_size=record.vocab_size,
        special_ids=record.special_ids,
        max_seq_length=options.max_seq_length,
    )
    weights = options.model_name_or_path
    model = build_model(config, objective=options.objective, weights=weights, seed=options.seed).to(device)
    results = []
    for rate in options.learning_rate:
        result = overfit_one_batch(
            model,
            batch,
            rate,
            max_updates=options.max_steps,
            max_grad_norm=options.max_grad_norm,
            seed=options.seed,
        )
        results.append(result)
        shown = side_by_side(
            batch, result.predictions, tokenizer.convert_ids_to_tokens, num_sequences=options.show_sequences
        )
        print(f"{shown}\n\n{result.summary()}\n", flush=True)
    if len(results) > 1:
        print(table(results))
    return results


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
