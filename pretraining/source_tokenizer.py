"""The tokenizer beside trained weights against the one that made the shards: every id must mean the same token."""

from __future__ import annotations

from pathlib import Path

from shards.vocabulary import load_tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "spm.model")


def check_source_tokenizer(source: str, shards_tokenizer: Path) -> str | None:
    """Compare the vocabulary of `source` (directory or hub name) with that of the shards' tokenizer, a directory.

    Gives a warning where `source` has no tokenizer that can be read. Raises ValueError where a token of the shards has
    another id there or none; tokens that only the source has do not matter.
    """
    theirs = _vocabulary(source)
    if theirs is None:
        return (
            f"{source} has no tokenizer to compare with the shards' one: make sure that they were built with that "
            "model's (launch/build_shards.py --tokenizer)"
        )
    ours = load_tokenizer(str(shards_tokenizer)).get_vocab()
    differing = sorted((number, token) for token, number in ours.items() if theirs.get(token) != number)
    if differing:
        number, token = differing[0]
        raise ValueError(
            f"{source} has another tokenizer than the shards: {len(differing)} of their {len(ours)} tokens have "
            f"another id there or none, first {token!r} ({number} in the shards, {theirs.get(token, 'none')} there); "
            f"build the shards again with --tokenizer {source}"
        )
    return None


def _vocabulary(source: str) -> dict[str, int] | None:
    """Token -> id; None without a tokenizer. From a configuration alone some classes would make an empty one."""
    path = Path(source)
    if path.is_dir() and not any((path / name).is_file() for name in TOKENIZER_FILES):
        return None
    try:
        return dict(load_tokenizer(source).get_vocab())
    except ValueError:
        return None
