"""The shards' own tokenizer folder: filled by training on a sample of the corpus, or with a given tokenizer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shards.building.languages import language_filter
from shards.building.options import BuildOptions
from shards.text.dumps.markup import plain_text
from shards.text.readers import DocumentReader
from shards.text.sources import Source
from shards.tokenization.vocabulary import (
    load_tokenizer,
    save_tokenizer,
    special_ids,
    train_vocabulary,
    vocabulary_length,
)

TOKENIZER_FOLDER = "tokenizer"
MOST_SAMPLED_SOURCES = 256

logger = logging.getLogger(__name__)


def prepare_tokenizer(directory: Path, options: BuildOptions, sources: list[Source]) -> Any:
    """The tokenizer of the options, saved in `directory`; one from an interrupted build is reused."""
    if not directory.is_dir():
        if options.tokenizer:
            tokenizer = load_tokenizer(options.tokenizer)
        else:
            logger.info(
                "training a vocabulary of %d on up to %d MB", options.trained_vocab_size, options.vocabulary_sample_mb
            )
            tokenizer = train_vocabulary(
                sample_texts(sources, options),
                kind=options.vocabulary,
                vocab_size=options.trained_vocab_size,
                lowercase=options.lowercase,
            )
            if vocabulary_length(tokenizer) < options.trained_vocab_size:
                logger.info(
                    "--vocab_size %d: the text gave only %d, which is no fault: a small text has few words, and in "
                    "WordPiece a Chinese character is always a piece of its own",
                    options.trained_vocab_size,
                    vocabulary_length(tokenizer),
                )
            if vocabulary_length(tokenizer) > options.trained_vocab_size:
                logger.warning(
                    "--vocab_size %d gave a vocabulary of %d: characters (or bytes) and special tokens need that many",
                    options.trained_vocab_size,
                    vocabulary_length(tokenizer),
                )
        special_ids(tokenizer)
        save_tokenizer(tokenizer, directory)
    return load_tokenizer(str(directory))


def sample_texts(sources: list[Source], options: BuildOptions) -> Iterator[str]:
    """Cleaned text of a bounded size: the heads of up to 256 evenly spaced sources, in input order."""
    chosen = [
        sources[i] for i in sorted({*np.linspace(0, len(sources) - 1, MOST_SAMPLED_SOURCES).astype(int).tolist()})
    ]
    left = options.vocabulary_sample_mb * 1_000_000
    cleaning, ignored = options.cleaning(), Counter[str]()
    languages = language_filter(options.language, options.language_confidence)
    for number, source in enumerate(chosen):
        quota = left // (len(chosen) - number)
        for text in DocumentReader(options.text_rules()).read(source):
            plain = plain_text(text, ignored)
            cleaned = None if plain is None else cleaning.clean(plain, ignored, ignored)
            if cleaned is None or (languages is not None and not languages.admits(cleaned, ignored)):
                continue
            data = cleaned[:quota].encode("utf-8")[:quota]
            yield data.decode("utf-8", errors="ignore")  # without a character that the quota cuts
            quota, left = quota - len(data), left - len(data)
            if quota <= 0:
                break
