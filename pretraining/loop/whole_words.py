"""Warning about whole-word masking of Chinese text in shards that do not store word boundaries."""

from __future__ import annotations

import re

from shards.storage.location import ShardLocation
from shards.storage.reader import ShardReader
from shards.tokenization.vocabulary import load_tokenizer

IDEOGRAPH = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
SMALLEST_SHARE = 0.1  # of the characters: below it Chinese occurs only as an occasional quotation


def whole_word_warning(shards: ShardLocation) -> str | None:
    """The warning about shards with much Chinese text that do not store where words start; reads one block.

    Raises ValueError for a shard that was changed after the build, OSError for one that cannot be fetched.
    """
    manifest = shards.manifest
    filled = [name for name, split in manifest.splits.items() if split.tokens]
    if not filled:
        return None
    name = "validation" if "validation" in filled else filled[0]
    block = ShardReader(shards.directory, manifest, name, capacity=1, fetch=shards.fetch).block(0)
    if block.word_starts is not None:
        return None
    tokenizer = load_tokenizer(str(shards.directory / manifest.tokenizer.path))
    share = ideograph_share(tokenizer.decode(block.tokens.tolist(), skip_special_tokens=True))
    if share < SMALLEST_SHARE:
        return None
    return (
        f"{share:.0%} of the text is Chinese and the shards store no word boundaries, so each token is a word: "
        "--whole_word_masking hides single characters there; build the shards with launch/build_shards.py --words jieba"
    )


def ideograph_share(text: str) -> float:
    """The share of Chinese characters among the non-blank characters of a text."""
    return len(IDEOGRAPH.findall(text)) / max(1, sum(not character.isspace() for character in text))
