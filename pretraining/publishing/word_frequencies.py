"""The loss that word frequencies alone give: the plateau of a model that does not use the context yet."""

from __future__ import annotations

import numpy as np

from shards.storage.location import ShardLocation, open_location
from shards.storage.reader import ShardReader

COUNTED_BLOCKS = 16  # about a million tokens
NOTHING_LEARNT = 0.05  # nats: a loss within this of the frequencies' loss counts as no better


def unigram_entropy(shards: str | ShardLocation) -> float:
    """Entropy in nats of the token frequencies of the held-out text's first blocks.

    Raises ValueError for a shard that was changed after the build.
    """
    location = open_location(shards)
    manifest = location.manifest
    reader = ShardReader(location.directory, manifest, "validation", capacity=1, fetch=location.fetch)
    counts = np.zeros(manifest.tokenizer.vocab_size)
    for number in range(min(COUNTED_BLOCKS, len(manifest.split("validation").block_tokens()))):
        counts += np.bincount(reader.block(number).tokens, minlength=len(counts))
    shares = counts[counts > 0] / counts.sum()
    # Miller and Madow 1955: the entropy of a sample is too small by about (kinds - 1) / (2 sample size).
    return float(-(shares * np.log(shares)).sum() + (len(shares) - 1) / (2 * counts.sum()))


def plateau_warning(loss: float, unigram_loss: float) -> str | None:
    """The warning about a trained model that predicts no better than frequencies do; None when it does better."""
    if loss < unigram_loss - NOTHING_LEARNT:
        return None
    return (
        f"validation loss {loss:.2f}: word frequencies alone give {unigram_loss:.2f}, so the context is not used yet. "
        "BERT with learned positions may stay here for millions of tokens: try ModernBERT, fewer rows per update "
        "(--global_batch_rows), another --learning_rate (launch/overfit.py), or train longer"
    )
