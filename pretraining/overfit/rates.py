"""The overfit check at several learning rates: output per rate, and a table of all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pretraining.model.configuration import build_configuration
from pretraining.model.masked_lm import build_model
from pretraining.overfit.first_batch import first_batch, write_sample_shards
from pretraining.overfit.overfit import OverfitResult, overfit_one_batch, side_by_side
from runtime.processes.ranks import Ranks, choose_device
from shards.storage.location import open_location
from shards.streaming.options import StreamOptions
from shards.tokenization.vocabulary import load_tokenizer


@dataclass(frozen=True)
class ModelChoice:
    """The model to try: one of the first three fields, and changes to its configuration."""

    model: str | None = None  # a named size
    from_config: str | None = None
    model_name_or_path: str | None = None
    config_overrides: str | None = None


@dataclass(frozen=True)
class Trial:
    """Settings of a try: its length, gradient clipping, and how much of the batch is shown."""

    max_updates: int = 100
    max_grad_norm: float = 1.0  # gradients are clipped to it; 0: no clipping
    show_sequences: int = 2


def try_rates(
    shards: str | None, model: ModelChoice, stream: StreamOptions, rates: Sequence[float], trial: Trial
) -> list[OverfitResult]:
    """Try every rate on the first batch of `shards` (directory or https address); print predictions and verdicts.

    None: a small sample of the embedded small world. Raises ValueError or OSError for shards or a model that cannot be
    read.
    """
    if shards is not None:
        return _try_on(shards, model, stream, rates, trial)
    with tempfile.TemporaryDirectory() as directory:
        return _try_on(str(write_sample_shards(directory, seed=stream.seed)), model, stream, rates, trial)


def _try_on(
    shards: str, choice: ModelChoice, stream: StreamOptions, rates: Sequence[float], trial: Trial
) -> list[OverfitResult]:
    location, device = open_location(shards), choose_device(Ranks())
    record = location.manifest.tokenizer
    tokenizer = load_tokenizer(str(location.directory / record.path))
    batch = first_batch(location, stream, device)
    config = build_configuration(
        **asdict(choice),
        objective=stream.objective,
        vocab_size=record.vocab_size,
        special_ids=record.special_ids,
        max_seq_length=stream.lengths[0][1],
    )
    weights = choice.model_name_or_path
    model = build_model(config, objective=stream.objective, weights=weights, seed=stream.seed).to(device)
    results = []
    for rate in rates:
        result = overfit_one_batch(
            model, batch, rate, max_updates=trial.max_updates, max_grad_norm=trial.max_grad_norm, seed=stream.seed
        )
        results.append(result)
        shown = side_by_side(
            batch, result.predictions, tokenizer.convert_ids_to_tokens, num_sequences=trial.show_sequences
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
