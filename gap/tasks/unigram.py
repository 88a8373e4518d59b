"""The unigram floor of minimal pairs: the sentence whose tokens are more frequent in the pretraining corpus.

It knows nothing of the order of words. Random weights score lower than it, so a gap that began there would count what
frequencies alone give as learnt.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetuning.examples.pair_template import token_ids
from pretraining.publishing.word_frequencies import token_counts
from runtime.files.schemas import Count, Items, Name, Schema, read_object
from runtime.files.whole_files import write_json
from shards.storage.location import ShardLocation, open_location
from shards.tokenization.vocabulary import fingerprint, vocabulary_length

SCHEMA_VERSION = 1
COUNTS_NAME = "token_counts.json"
REMEDY = "remove it and run launch/gap.py again, which writes it"


class _CountsFile(Schema):
    """token_counts.json: how often each token id occurs in the training split of the shards."""

    corpus: Name
    tokenizer: Name
    counts: Items[Count]
    code: Name | None = None  # of the sources that counted; None: an earlier version's


def corpus_digest(shards: str | Path | ShardLocation) -> str:
    """What decides the frequencies: sha256 over the shards of the training split. ValueError for unreadable shards."""
    own = [shard.sha256 for shard in open_location(shards).manifest.split("train").shards]
    return hashlib.sha256(" ".join(own).encode()).hexdigest()


def write_token_counts(directory: Path, shards: str | Path | ShardLocation, code: str) -> None:
    """Count the tokens of the training split, in one pass, unless DIRECTORY/token_counts.json is of these shards.

    `code` is the digest of the sources (`gap.cells.code_identity`): what others counted is counted anew.
    """
    location, path = open_location(shards), directory / COUNTS_NAME
    corpus = corpus_digest(location)
    if path.exists():
        record = read_object(path, _CountsFile, REMEDY)
        if (record["corpus"], record.get("code")) == (corpus, code):
            return
    counts = token_counts(location, "train")
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = location.manifest.tokenizer.fingerprint
    record = {"corpus": corpus, "tokenizer": tokenizer, "code": code, "counts": counts.tolist()}
    write_json(path, {"schema_version": SCHEMA_VERSION, **record})


def unigram_log_likelihoods(
    directory: Path, corpus: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[float]:
    """The sum of the log-frequencies of each text's tokens, by the counts in DIRECTORY; the order of tokens is nothing.

    ValueError for counts of another corpus or tokenizer.
    """
    path = directory / COUNTS_NAME
    if not path.is_file():
        raise ValueError(f"{path} is missing: run launch/gap.py again, which writes it")
    record = read_object(path, _CountsFile, REMEDY)
    if record["corpus"] != corpus:
        raise ValueError(f"{path} counts other shards than those of the plan: {REMEDY}")
    if record["tokenizer"] != fingerprint(tokenizer):
        raise ValueError(
            f"{path}: the shards were made with another tokenizer than the series has: name those that it was "
            "pretrained on with --shards"
        )
    if len(record["counts"]) < vocabulary_length(tokenizer):
        raise ValueError(f"{path} has {len(record['counts'])} counts, fewer than the tokenizer has tokens: {REMEDY}")
    frequencies = log_frequencies(np.array(record["counts"], dtype=np.float64))
    return [math.fsum(frequencies[ids]) for ids in token_ids(tokenizer, texts)]  # exact: the same in any order


def log_frequencies(counts: NDArray[Any]) -> NDArray[Any]:
    """The logarithm of every token's share, each token counted once more than it occurs (add-one smoothing)."""
    return np.log(counts + 1.0) - math.log(counts.sum() + len(counts))
