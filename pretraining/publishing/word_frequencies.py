"""What word frequencies alone give: the plateau of a model that does not use the context yet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.storage.location import ShardLocation, open_location
from shards.storage.reader import ShardReader

COUNTED_BLOCKS = 16  # about a million tokens
NOTHING_LEARNT = 0.05  # nats: a loss within this of the frequencies' loss counts as no better


def token_counts(shards: ShardLocation, split: str, *, most_blocks: int | None = None) -> NDArray[Any]:
    """How often each token id occurs in a split, or in its first blocks: int64 [vocabulary].

    Raises ValueError for a shard that was changed after the build.
    """
    manifest = shards.manifest
    reader = ShardReader(shards.directory, manifest, split, capacity=1, fetch=shards.fetch)
    counts = np.zeros(manifest.tokenizer.vocab_size, dtype=np.int64)
    for number in range(len(manifest.split(split).block_tokens()))[:most_blocks]:
        counts += np.bincount(reader.block(number).tokens, minlength=len(counts))
    return counts


def unigram_entropy(shards: str | ShardLocation) -> float:
    """Entropy in nats of the token frequencies of the held-out text's first blocks.

    Raises ValueError for a shard that was changed after the build.
    """
    counts = token_counts(open_location(shards), "validation", most_blocks=COUNTED_BLOCKS)
    shares = counts[counts > 0] / counts.sum()
    # Miller and Madow 1955: the entropy of a sample is too small by about (kinds - 1) / (2 sample size).
    return float(-(shares * np.log(shares)).sum() + (len(shares) - 1) / (2 * counts.sum()))


def plateau_warning(loss: float, unigram_loss: float, *, said_before: bool = False) -> str | None:
    """The warning about a trained model that predicts no better than frequencies do; None when it does better.

    `said_before` leaves out what a run has said already: what it means, and what to do.
    """
    if loss < unigram_loss - NOTHING_LEARNT:
        return None
    if said_before:
        return f"the context is not used yet (word frequencies alone give {unigram_loss:.2f})"
    return (
        f"validation loss {loss:.2f}: word frequencies alone give {unigram_loss:.2f}, so the context is not used yet. "
        "Small budgets end here, and with learned positions (BERT) a run may stay here for millions of tokens: train "
        "longer, or try fewer rows per update (--global_batch_rows) or another --learning_rate (launch/overfit.py)"
    )
