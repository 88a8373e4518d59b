"""Small shard directories of random tokens for tests."""

from pathlib import Path

import numpy as np

from shards.storage.manifest import write_manifest
from shards.storage.shard_file import write_shard
from shards.streaming.masking import Vocabulary

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
VOCAB_SIZE = 200


def vocabulary(*, with_words: bool = False) -> Vocabulary:
    table = (np.arange(VOCAB_SIZE) % 3 == 0) & (np.arange(VOCAB_SIZE) > 4) if with_words else None
    return Vocabulary(VOCAB_SIZE, (0, 1, 2, 3, 4), pad=0, cls=2, sep=3, mask=4, continues_word=table)


def random_blocks(sizes, *, split="train", seed=0, document_tokens=40, with_words=False, first=0):
    """Blocks as `write_shard` takes them: documents of about `document_tokens`, each ending with [SEP]."""
    rng = np.random.default_rng([seed, first, len(split)])
    for number, size in enumerate(sizes, start=first):
        tokens = rng.integers(5, VOCAB_SIZE, size).astype(np.uint16)
        gaps = rng.integers(max(1, document_tokens // 2), 2 * document_tokens, size // max(1, document_tokens // 2) + 2)
        ends = np.cumsum(gaps)
        ends = ends[ends < size]
        tokens[ends - 1] = SPECIAL_IDS["sep"]
        fields = {"tokens": tokens, "documents": np.concatenate([[0], ends]).astype(np.uint32)}
        if with_words:
            fields["words"] = np.packbits(rng.integers(0, 2, size).astype(bool))
        yield f"{split}-{number:08d}", fields


def write_directory(directory: Path, train=((1000, 700), (1000, 130)), validation=((500,),), **options) -> dict:
    """Write a shard per tuple of block sizes, and the manifest; returns the manifest's data."""
    directory.mkdir(parents=True, exist_ok=True)
    splits = {}
    for split, shards in (("train", train), ("validation", validation)):
        entries, first = [], 0
        for number, sizes in enumerate(shards):
            blocks = random_blocks(sizes, split=split, first=first, **options)
            entries.append(write_shard(directory / f"{split}-{number:06d}.tar", blocks))
            first += len(sizes)
        blocks = [block for entry in entries for block in entry["blocks"]]
        totals = {name: sum(block[name] for block in blocks) for name in ("documents", "tokens")}
        splits[split] = {**totals, "shards": entries}
    data = {
        "schema_version": 1,
        "tokenizer": {
            "path": "tokenizer",
            "fingerprint": "f" * 64,
            "vocab_size": VOCAB_SIZE,
            "special_ids": SPECIAL_IDS,
        },
        "token_dtype": "uint16",
        "block_tokens": max(size for shards in (train, validation) for sizes in shards for size in sizes),
        "splits": splits,
        "sources": [],
        "dropped": {},
        "options": {},
    }
    write_manifest(directory, data)
    return data
