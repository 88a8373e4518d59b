"""Compare the tokenizer next to trained weights with the one of the shards: every id must mean the same token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from runtime.model_places import model_place
from shards.tokenization.tokenizer_source import has_tokenizer, open_tokenizer
from shards.tokenization.vocabulary import load_tokenizer, vocabulary_length


def check_source_tokenizer(source: str, shards_tokenizer: Path) -> str | None:
    """Compare the vocabulary of `source` (directory or hub name) with that of the shards' tokenizer, a directory.

    Gives a warning where `source` has no tokenizer. Raises ValueError where a token of the shards has another id there
    or none, and where the tokenizer there is broken; tokens that only the source has do not matter.
    """
    theirs = _vocabulary(source)
    if theirs is None:
        return (
            f"{source} has no tokenizer to compare with that of the shards: make sure that they were built with that "
            "model's (launch/build_shards.py --tokenizer)"
        )
    ours = load_tokenizer(str(shards_tokenizer)).get_vocab()
    differing = sorted((number, token) for token, number in ours.items() if theirs.get(token) != number)
    if differing:
        number, token = differing[0]
        raise ValueError(
            f"{source} has a different tokenizer from the shards: {len(differing)} of their {len(ours)} tokens have "
            f"another id there or none, first {token!r} ({number} in the shards, {theirs.get(token, 'none')} there); "
            f"build the shards again with --tokenizer {source}"
        )
    return None


def _vocabulary(source: str) -> dict[str, int] | None:
    """Token -> id; None without a tokenizer."""
    path = Path(model_place(source)).expanduser()
    if path.is_dir():
        return dict(open_tokenizer(source, option="--model_name_or_path").get_vocab()) if has_tokenizer(path) else None
    try:
        return dict(open_tokenizer(source, option="--model_name_or_path").get_vocab())
    except (OSError, ValueError):
        return None


def own_vocabulary_length(source: str) -> int | None:
    """One more than the largest id of the tokenizer next to trained weights; None where there is none."""
    try:
        vocabulary = _vocabulary(source)
    except ValueError:
        return None
    return 1 + max(vocabulary.values()) if vocabulary else None


def require_embeddings(tokenizer: Any, config: PreTrainedConfig, source: str) -> None:
    """ValueError where the tokenizer, added tokens included, has an id beyond the embeddings."""
    rows, tokens = getattr(config, "vocab_size", None), vocabulary_length(tokenizer)
    if rows is not None and tokens > rows:
        raise ValueError(too_few_rows(source, tokens, rows))


def too_few_rows(source: str, tokens: int, rows: int) -> str:
    """The message about a tokenizer that grew without its model."""
    return (
        f"{source}: the tokenizer has {tokens} tokens, the model {rows}: load both with transformers, call "
        f"model.resize_token_embeddings({tokens}) and save them to one folder, or use the tokenizer that the model was "
        "trained with"
    )
