"""The manifest of a shard directory: writing, and validated reading."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runtime.files.schemas import listed, shown
from runtime.files.unique_keys import without_duplicates
from runtime.files.whole_files import (
    parse_bounded,
    read_at_most,
    require_plain_file,
    write_text,
)
from shards.storage.shard_file import TAR_BLOCK_BYTES

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 30
MAX_BLOCK_TOKENS = 1 << 24
MAX_VOCAB_SIZE = 1 << 24
SPECIAL_NAMES = ("pad", "unk", "cls", "sep", "mask")
REBUILD = "build or fetch the shards again"

_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,80}\.tar")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """One tar file and its blocks: keys (ASCII) bytes [num_blocks], the others int64; offsets and sizes in bytes."""

    name: str
    num_bytes: int
    sha256: str
    keys: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    tokens: np.ndarray
    documents: np.ndarray


@dataclass(frozen=True)
class BlockTable:
    """Blocks of a shard: keys bytes [num_blocks]; offsets, sizes, tokens and documents int64 [4, num_blocks]."""

    keys: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class Split:
    """The training or the validation part of a shard directory."""

    documents: int
    tokens: int
    shards: tuple[Shard, ...]
    text_bytes: int | None = None  # of the cleaned documents in UTF-8; None: built before this was counted

    def block_tokens(self) -> np.ndarray:
        """Stored tokens of each block in manifest order, int64 [num_blocks]."""
        return np.concatenate([np.zeros(0, np.int64), *(shard.tokens for shard in self.shards)])

    def blocks_per_shard(self) -> np.ndarray:
        """Blocks of each shard in manifest order, int64 [num_shards]."""
        return np.array([len(shard.keys) for shard in self.shards], dtype=np.int64)


@dataclass(frozen=True)
class TokenizerRecord:
    """The tokenizer that made the tokens: its folder (relative), fingerprint, vocabulary size and special ids."""

    path: str
    fingerprint: str
    vocab_size: int
    special_ids: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`; `data` is its JSON without the splits, which can be large."""

    tokenizer: TokenizerRecord
    token_dtype: str
    block_tokens: int
    splits: dict[str, Split]
    data: dict[str, Any] = field(repr=False)
    source: str = "the manifest"

    def split(self, name: str) -> Split:
        """The named split; ValueError if there is none."""
        if name not in self.splits:
            raise ValueError(f"{self.source} has no split {name!r}: it has {listed(sorted(self.splits))}: {REBUILD}")
        return self.splits[name]


def write_manifest(directory: Path, data: Mapping[str, Any]) -> Manifest:
    """Check `data` and write it as manifest.json, atomically; call it last, when every shard has its final name.

    The "shards" of a split may be any iterable that can be iterated twice: only one entry is held at a time.
    """
    manifest = parse_manifest(data, str(directory / MANIFEST_NAME))
    write_text(directory / MANIFEST_NAME, _manifest_text(data))
    return manifest


def _manifest_text(data: Mapping[str, Any]) -> Iterator[str]:
    """The JSON in pieces, with a line for each shard: a corpus of 500 GB has 30,000 shards of 64 blocks."""
    head = {name: value for name, value in data.items() if name != "splits"}
    yield json.dumps(head, ensure_ascii=False, indent=1, allow_nan=False).removesuffix("\n}")
    before_split = ',\n "splits": {'
    for name, split in data["splits"].items():
        counts = {key: value for key, value in split.items() if key != "shards"}
        yield f'{before_split}\n  {json.dumps(name)}: {json.dumps(counts).removesuffix("}")}, "shards": ['
        before_split, before_shard = ",", "\n   "
        for shard in split["shards"]:
            yield before_shard + json.dumps(shard, allow_nan=False)
            before_shard = ",\n   "
        yield "]}"
    yield "\n }\n}\n"


def read_manifest(directory: Path) -> Manifest:
    """Read and check DIR/manifest.json; ValueError names the error and its place."""
    path = Path(directory) / MANIFEST_NAME
    if not path.is_file():
        raise ValueError(f"{path} is missing: give a directory that build_shards has finished, or run it again")
    return parse_manifest(read_bounded_json(path, MAX_MANIFEST_BYTES), str(path))


def read_bounded_json(path: Path, max_bytes: int) -> Any:
    """Parse a JSON file of bounded size; ValueError names one that is too large, too deep or not JSON.

    The "blocks" of a shard become a `BlockTable` at once: as dictionaries, those of 500 GB would take a gigabyte.
    """
    require_plain_file(path)
    with open(path, "rb") as stream:
        payload = read_at_most(stream, max_bytes + 1)
    if len(payload) > max_bytes:
        raise ValueError(f"{path}: more than {max_bytes} bytes of JSON, the most that is read: {REBUILD}")

    try:
        return parse_bounded(payload, finite=True, as_object=_compacted)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}): {REBUILD}") from error


def _compacted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = without_duplicates(pairs)
    if isinstance(data.get("blocks"), list):
        with suppress(ValueError):  # left unchanged: parse_manifest reports the place
            data["blocks"] = _block_table(data["blocks"], "")
    return data


def parse_manifest(data: Any, source: str) -> Manifest:
    """Turn manifest JSON into a `Manifest`, refusing wrong types, unsafe names and sums that do not add up."""
    version = _get(data, "schema_version", int, source)
    if version != SCHEMA_VERSION:
        raise ValueError(f"{source}: schema_version {version}, but this program reads {SCHEMA_VERSION}: {REBUILD}")
    token_dtype = _get(data, "token_dtype", str, source)
    if token_dtype not in ("uint16", "uint32"):
        raise ValueError(f"{source}: token_dtype {shown(token_dtype)}, it must be uint16 or uint32: {REBUILD}")
    block_tokens = _count(data, "block_tokens", source, MAX_BLOCK_TOKENS, least=1)
    tokenizer = _parse_tokenizer(_get(data, "tokenizer", dict, source), f"{source}: tokenizer")
    if tokenizer.vocab_size - 1 > np.iinfo(token_dtype).max:
        raise ValueError(f"{source}: {tokenizer.vocab_size} ids do not fit {token_dtype}: {REBUILD}")
    largest_block = block_tokens * 16 + (1 << 16)
    splits = {
        name: _parse_split(
            split, f"{source}: splits.{name if name.isprintable() else ascii(name)}", block_tokens, largest_block
        )
        for name, split in _get(data, "splits", dict, source).items()
    }
    uses = Counter(shard.name for split in splits.values() for shard in split.shards)
    if repeated := sorted(name for name, count in uses.items() if count > 1):
        raise ValueError(f"{source}: shards listed twice: {', '.join(repeated)}: {REBUILD}")
    rest = {name: value for name, value in data.items() if name != "splits"}
    return Manifest(tokenizer, token_dtype, block_tokens, splits, rest, source)


def check_tokenizer(
    manifest: Manifest,
    fingerprint: str,
    vocab_size: int | None = None,
    special_ids: Mapping[str, int] | None = None,
) -> None:
    """Refuse a tokenizer or a model that does not fit the shards.

    That is one with another fingerprint, with too few rows for the ids, or with special ids other than the manifest's.
    """
    record = manifest.tokenizer
    if fingerprint != record.fingerprint:
        raise ValueError(
            f"tokenizer fingerprint {fingerprint[:12]}..., but the shards were made with {record.fingerprint[:12]}...: "
            f"use the tokenizer in the shards' own folder {record.path!r}, or build the shards again with this one"
        )
    if special_ids is not None and special_ids != record.special_ids:
        listed = ", ".join(
            f"{name} {record.special_ids[name]}, not {special_ids[name]}"
            for name in SPECIAL_NAMES
            if record.special_ids[name] != special_ids[name]
        )
        raise ValueError(
            f"{MANIFEST_NAME} gives special tokens other ids than the tokenizer in {record.path!r} does ({listed}): "
            f"it was changed; restore it, or {REBUILD}"
        )
    if vocab_size is not None and vocab_size < record.vocab_size:
        raise ValueError(
            f"a vocabulary of {vocab_size} for token ids up to {record.vocab_size - 1}: "
            f"give the model a vocab_size of at least {record.vocab_size}"
        )


def _parse_tokenizer(data: dict[str, Any], source: str) -> TokenizerRecord:
    path = _get(data, "path", str, source)
    parts = Path(path).parts
    if not parts or Path(path).is_absolute() or ".." in parts or "\\" in path:
        raise ValueError(f"{source}: path {shown(path)} leaves the shard directory: {REBUILD}")
    if wrong := [part for part in parts if not _FOLDER.fullmatch(part) or part.endswith((".tar", ".json"))]:
        raise ValueError(f"{source}: {shown(wrong[0])} in its path is not a valid folder name: {REBUILD}")
    vocab_size = _count(data, "vocab_size", source, MAX_VOCAB_SIZE, least=1)
    special_ids = _get(data, "special_ids", dict, source)
    ids = {name: _count(special_ids, name, f"{source}: special_ids", vocab_size - 1) for name in SPECIAL_NAMES}
    return TokenizerRecord(path, _get(data, "fingerprint", str, source), vocab_size, ids)


def _parse_split(data: Any, source: str, block_tokens: int, largest_block: int) -> Split:
    listed = _get(data, "shards", Iterable, source)
    shards = tuple(
        _parse_shard(shard, f"{source}.shards[{index}]", block_tokens, largest_block)
        for index, shard in enumerate(listed)
    )
    text_bytes = _count(data, "text_bytes", source) if "text_bytes" in data else None
    split = Split(_count(data, "documents", source), _count(data, "tokens", source), shards, text_bytes)
    total = int(split.block_tokens().sum())
    if total != split.tokens:
        raise ValueError(f"{source}: {split.tokens} tokens, but its blocks hold {total}: {REBUILD}")
    return split


def _parse_shard(data: Any, source: str, block_tokens: int, largest_block: int) -> Shard:
    name = _get(data, "name", str, source)
    if not _SHARD_NAME.fullmatch(name):
        raise ValueError(f"{source}: name {shown(name)}, it must be a plain NAME.tar: {REBUILD}")
    sha256 = _get(data, "sha256", str, source)
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{source}: sha256 {shown(sha256)} is not a hexadecimal sha256: {REBUILD}")
    num_bytes = _count(data, "bytes", source)
    blocks = _get(data, "blocks", BlockTable | list, source)
    table = _block_table(blocks, source) if isinstance(blocks, list) else blocks
    offsets, sizes, tokens, documents = table.columns
    ends = offsets + sizes
    if (offsets % TAR_BLOCK_BYTES).any() or (sizes % TAR_BLOCK_BYTES).any() or (offsets[1:] < ends[:-1]).any():
        raise ValueError(f"{source}: block offsets are not those of a tar in order: {REBUILD}")
    if (ends > num_bytes).any() or (sizes > largest_block).any() or (tokens > block_tokens).any() or (tokens < 1).any():
        raise ValueError(
            f"{source}: a block is empty, larger than {block_tokens} tokens or past the shard's end: {REBUILD}"
        )
    return Shard(name, num_bytes, sha256, table.keys, offsets, sizes, tokens, documents)


def _block_table(blocks: list[Any], source: str) -> BlockTable:
    keys = [_get(block, "key", str, source) for block in blocks]
    if wrong := [key for key in keys if not _KEY.fullmatch(key)]:
        raise ValueError(f"{source}: key {shown(wrong[0])}, it must be letters, digits, '_' and '-': {REBUILD}")
    names = ("offset", "bytes", "tokens", "documents")
    rows = [[block.get(name) for block in blocks] for name in names]
    if blocks and any(set(map(type, row)) != {int} or min(row) < 0 or max(row) > 1 << 62 for row in rows):
        rows = [[_count(block, name, source) for block in blocks] for name in names]  # says which
    return BlockTable(np.array(keys, dtype=np.bytes_), np.array(rows, dtype=np.int64).reshape(len(names), -1))


def _get(data: Any, name: str, kind: Any, source: str) -> Any:
    if not isinstance(data, Mapping) or name not in data:
        raise ValueError(f"{source}: {name!r} is missing: {REBUILD}")
    value = data[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = getattr(kind, "__name__", "list")
        raise ValueError(f"{source}: {name!r} is {type(value).__name__}, it must be {wanted}: {REBUILD}")
    return value


def _count(data: Any, name: str, source: str, most: int = 1 << 62, least: int = 0) -> int:
    value = _get(data, name, int, source)
    if not least <= value <= most:
        raise ValueError(f"{source}: {name!r} is {value}, it must be {least} to {most}: {REBUILD}")
    return value
