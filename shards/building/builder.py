"""The shard build: read, clean, tokenize, drop duplicates, split, pack.

One process reads and writes, the others clean and tokenize chunks of documents; results are taken in input order, so
the shards do not depend on the number of processes. After every shard the position, the duplicate index and the tokens
not yet written are committed together; a restart continues from there and writes the same bytes.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

from runtime.files.schemas import shown
from runtime.plurals import counted
from runtime.processes.fault_points import fault_point
from shards.building.chunks import BuildProgress, Chunk, encode_chunks, read_chunks
from shards.building.duplicate_index import DuplicateIndex
from shards.building.languages import language_filter
from shards.building.minhash import is_held_out
from shards.building.options import BuildOptions
from shards.building.packing import SplitPacker
from shards.building.state import STATE_FOLDER, BuildState, is_damage
from shards.building.tokenizer_folder import TOKENIZER_FOLDER, prepare_tokenizer
from shards.building.worker import EncodedChunk, EncoderOptions, tokenizer_file
from shards.storage.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest, read_manifest, write_manifest
from shards.text.content import Identity, edited_sources, identified, identified_again, source_list
from shards.text.sources import Source, find_sources
from shards.tokenization.unknown_text import unknown_text, unknown_warning
from shards.tokenization.vocabulary import (
    MOST_UINT16_TOKENS,
    fingerprint,
    load_tokenizer,
    special_ids,
    vocabulary_length,
)

SPLITS = ("train", "validation")
STATE_VERSION = 7  # of what an unfinished build leaves on disk

logger = logging.getLogger(__name__)


@dataclass
class Summary:
    """A build in figures: the manifest that is written, and what was read for it.

    - `seconds`: of this call, the vocabulary included; 0 where the shards were there already.
    - `text_bytes`: UTF-8 bytes of all documents that were read; `text_bytes_now` of those that this call has read.
    - `already_built`: the directory held the finished shards, and nothing was done.
    """

    manifest: Manifest
    seconds: float
    text_bytes: int
    already_built: bool = False
    text_bytes_now: int = 0  # of them read by this call, within `seconds`


def build_shards(options: BuildOptions, report: Callable[[dict[str, int]], None] | None = None) -> Summary:
    """Build DIR/*.tar, DIR/tokenizer/ and DIR/manifest.json; continue an interrupted build, keep a finished one.

    `report` is called after every chunk with {"bytes_read", "bytes_total", "text_bytes", "tokens", "documents"}. Raises
    ValueError for unusable input, when no text is left, and for a directory that holds another build; OSError for a
    disk that fails.
    """
    started = time.monotonic()
    directory = Path(options.output_dir)
    sources = find_sources(options.input, leave_out=directory)
    language_filter(options.language, options.language_confidence)  # an unknown language is refused before all else
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / MANIFEST_NAME).is_file():
        return finished_build(directory, options, sources)
    refuse_foreign_files(directory)
    state = BuildState(directory)
    try:
        identities = check_same_build(state, directory, options, sources)
        tokenizer = prepare_tokenizer(directory / TOKENIZER_FOLDER, options, sources)
        build = Build(options, sources, identities, state, tokenizer, report)
        text_bytes_before = build.progress.text_bytes
        data = build.run()
        fault_point("build.before_manifest")
        manifest = write_manifest(directory, data)
        fault_point("build.after_manifest")
    except BaseException as error:
        state.close()
        if isinstance(error, sqlite3.Error):
            if is_damage(error):
                raise state.damaged(error) from error
            raise OSError(
                f"{error}: --output_dir {directory} must be a directory that can be written to, with room on its disk; "
                "then the same command starts or continues the build"
            ) from error
        raise
    state.remove()
    text_bytes = build.progress.text_bytes
    return Summary(manifest, time.monotonic() - started, text_bytes, text_bytes_now=text_bytes - text_bytes_before)


class Build:
    """A build in progress."""

    def __init__(
        self,
        options: BuildOptions,
        sources: list[Source],
        identities: list[Identity],
        state: BuildState,
        tokenizer: Any,
        report: Callable[[dict[str, int]], None] | None,
    ) -> None:
        self.options, self.sources, self.state, self.tokenizer, self.report = options, sources, state, tokenizer, report
        self.directory, self.identities = Path(options.output_dir), identities
        self.token_dtype = "uint16" if vocabulary_length(tokenizer) <= MOST_UINT16_TOKENS else "uint32"
        saved = state.get("progress")
        with state.reading():
            self.progress = BuildProgress.restored(saved, state.documents_read())
        self.warned_of_unknown = False
        self.unsaved_sources: set[int] = set()
        self.bytes_before = list(accumulate((source.bytes for source in sources), initial=0))
        with state.reading():
            self.index = DuplicateIndex(
                state.database,
                options.drop_duplicates,
                options.near_duplicates,
                options.near_duplicate_threshold,
                options.index_memory_mb,
            )
        self.packers = {split: self.packer(split) for split in SPLITS}

    def packer(self, split: str) -> SplitPacker:
        """The packer of a split, where the last commit left it."""
        packer = SplitPacker(
            split,
            self.directory,
            block_tokens=self.options.block_tokens,
            blocks_per_shard=self.options.blocks_per_shard,
            token_dtype=self.token_dtype,
            words=self.options.words == "jieba",
        )
        counts, arrays = self.state.get(f"{split}_counts"), self.state.blob(f"{split}_arrays")
        if counts is not None and arrays is not None:
            with self.state.reading():
                packer.restore(counts, arrays)
        return packer

    def run(self) -> dict[str, Any]:
        """Build all shards and return the manifest's data; its shards are in the state's open transaction."""
        chunks = read_chunks(self.sources, self.options, self.progress.source, self.progress.documents_of_source)
        self.state.begin()
        for chunk, encoded in encode_chunks(chunks, self.encoder_options(), self.options.processes):
            fault_point("build.chunk")
            written = self.num_shards()
            self.pack(encoded)
            self.progress.advance(chunk, encoded)
            self.warn_of_unknown()
            self.unsaved_sources.update(chunk.documents_read)
            if self.num_shards() > written:
                fault_point("build.shard")
                self.save()
                fault_point("build.commit")
            self.tell(chunk)
        splits = {split: packer.finish() for split, packer in self.packers.items()}
        self.store_shards()
        fault_point("build.finish")
        if not any(part["documents"] for part in splits.values()):
            raise ValueError(
                f"no document is left of {sum(self.progress.documents_read.values())} read "
                f"(dropped: {dict(self.progress.dropped)}): check --input, --text_column, --language and "
                "--min_characters"
            )
        for split, part in splits.items():
            if not part["documents"] and (split == "train" or self.options.validation_fraction):
                logger.warning(
                    "the %s split is empty: a share of %g is held out, and there is no more than %s; build again in "
                    "another --output_dir with --document paragraph, which cuts long files, or with another "
                    "--validation_fraction",
                    split,
                    self.options.validation_fraction,
                    counted(sum(part["documents"] for part in splits.values()), "document"),
                )
        return self.manifest({split: part | {"shards": self.state.shards(split)} for split, part in splits.items()})

    def pack(self, encoded: EncodedChunk) -> None:
        """Drop duplicates and add the other documents to their splits."""
        start = 0
        bands = encoded.bands.tolist() if encoded.bands is not None else None
        for number, (length, digest) in enumerate(zip(encoded.lengths, encoded.digests, strict=True)):
            end = start + int(length)
            held_out = is_held_out(digest, self.options.validation_fraction)
            signature = encoded.signatures[number] if encoded.signatures is not None else None
            try:
                reason = self.index.admit(digest, held_out, signature, bands[number] if bands else ())
            except (TypeError, ValueError, OverflowError):  # of what is stored of other documents
                with self.state.reading():
                    raise
            if reason:
                self.progress.dropped[reason] += 1
            else:
                self.progress.kept_with_full_key += self.index.met_full_key
                starts = encoded.word_starts[start:end] if encoded.word_starts is not None else None
                packer = self.packers["validation" if held_out else "train"]
                packer.add(encoded.tokens[start:end], starts, int(encoded.document_bytes[number]))
            start = end

    def save(self) -> None:
        """Commit progress, duplicate index and unwritten tokens together, and open the next transaction."""
        saved = {split: packer.saved() for split, packer in self.packers.items()}
        values: dict[str, Any] = {f"{split}_counts": counts for split, (counts, _) in saved.items()}
        values |= {f"{split}_arrays": arrays for split, (_, arrays) in saved.items()}
        self.state.put(progress=self.progress.saved(), **values)
        self.state.put_documents_read({number: self.progress.documents_read[number] for number in self.unsaved_sources})
        self.unsaved_sources.clear()
        self.store_shards()
        self.state.commit()
        self.state.begin()

    def store_shards(self) -> None:
        """Move the entries of new shards into the state: their list grows with the corpus, and memory must not."""
        for split, packer in self.packers.items():
            self.state.add_shards(split, packer.num_shards, packer.take_written())

    def warn_of_unknown(self) -> None:
        """Warn once, early, if much of the text is unknown to the tokenizer."""
        warning = unknown_warning(unknown_text(self.progress.characters, self.progress.unknown_characters))
        if warning and not self.warned_of_unknown:
            logger.warning("in the first %d characters, %s", self.progress.characters, warning)
            self.warned_of_unknown = True

    def tell(self, chunk: Chunk) -> None:
        """Report progress."""
        if self.report is not None:
            before, total = self.bytes_before[chunk.source], self.bytes_before[-1]
            after = self.bytes_before[min(chunk.source + 1, len(self.sources))]
            self.report(
                {
                    "bytes_read": min(before + chunk.bytes_read, after),
                    "bytes_total": total,
                    "text_bytes": self.progress.text_bytes,
                    "tokens": sum(packer.tokens for packer in self.packers.values()),
                    "documents": sum(packer.documents for packer in self.packers.values()),
                }
            )

    def num_shards(self) -> int:
        """Shards written so far."""
        return sum(packer.num_shards for packer in self.packers.values())

    def encoder_options(self) -> EncoderOptions:
        """The options of the workers."""
        options, ids = self.options, special_ids(self.tokenizer)
        if options.words == "jieba" and find_spec("jieba") is None:
            raise ValueError("--words jieba needs the package jieba: pip install jieba")
        return EncoderOptions(
            tokenizer_file=str(tokenizer_file(self.directory / TOKENIZER_FOLDER)),
            separator_id=ids["sep"],
            unknown_id=ids["unk"],
            special_ids=tuple(sorted({*ids.values(), *self.tokenizer.all_special_ids})),
            token_dtype=self.token_dtype,
            cleaning=options.cleaning(),
            signatures=options.near_duplicates != "ignore",
            jieba_words=options.words == "jieba",
            language=options.language,
            language_confidence=options.language_confidence,
        )

    def manifest(self, splits: dict[str, Any]) -> dict[str, Any]:
        """The manifest of the finished build."""
        counts = self.progress.documents_read
        return {
            "schema_version": SCHEMA_VERSION,
            "tokenizer": {
                "path": TOKENIZER_FOLDER,
                "fingerprint": fingerprint(self.tokenizer),
                "vocab_size": vocabulary_length(self.tokenizer),
                "special_ids": special_ids(self.tokenizer),
            },
            "token_dtype": self.token_dtype,
            "block_tokens": self.options.block_tokens,
            "splits": splits,
            "sources": source_list(self.sources, counts, self.identities),
            "text_bytes": self.progress.text_bytes,
            "unknown_text": unknown_text(self.progress.characters, self.progress.unknown_characters),
            "dropped": {name: count for name, count in sorted(self.progress.dropped.items()) if count},
            "changed": {name: count for name, count in sorted(self.progress.changed.items()) if count},
            "duplicate_search": {"kept_with_full_key": self.progress.kept_with_full_key},
            "options": self.options.deciding(),
        }


def finished_build(directory: Path, options: BuildOptions, sources: list[Source]) -> Summary:
    """The summary of the finished build in the directory.

    Raises ValueError when it was built from other options or sources.
    """
    manifest = read_manifest(directory)
    data = manifest.data
    built = [(source["name"], source["bytes"]) for source in data["sources"]]
    given, asked = data["options"], options.deciding()
    others = [
        f"{name}: {shown(given.get(name))} there, {shown(asked.get(name))} here"
        for name in dict.fromkeys((*asked, *given))
        if given.get(name) != asked.get(name)
    ]
    if built != [(source.name, source.bytes) for source in sources]:
        others.insert(0, "the input files differ in name or size")
    if given != asked or others:
        raise ValueError(
            f"{directory} holds shards built from other input or options ({'; '.join(others)}): choose another "
            "--output_dir"
        )
    if edited := edited_sources(sources, data["sources"], (directory / MANIFEST_NAME).stat().st_mtime_ns):
        raise ValueError(
            f"{directory} holds shards of an earlier version of {', '.join(edited[:5])} (edited since, at the same "
            "size): choose another --output_dir, or delete this one to build it again"
        )
    if options.tokenizer and fingerprint(load_tokenizer(options.tokenizer)) != data["tokenizer"]["fingerprint"]:
        raise ValueError(f"{directory} holds shards made with another tokenizer: choose another --output_dir")
    if (directory / STATE_FOLDER).is_dir():
        BuildState(directory).remove()
    return Summary(manifest, 0.0, data.get("text_bytes", 0), already_built=True)


def refuse_foreign_files(directory: Path) -> None:
    """Raise ValueError for a directory that holds something other than an interrupted build."""
    names = sorted(path.name for path in directory.iterdir())
    if names and STATE_FOLDER not in names:
        raise ValueError(f"--output_dir {directory} holds {', '.join(names[:5])}: give a new or empty directory")


def check_same_build(
    state: BuildState, directory: Path, options: BuildOptions, sources: list[Source]
) -> list[Identity]:
    """Record what this build is and return what its sources hold.

    Raises ValueError if the directory holds another unfinished build. The same files elsewhere, or with other times,
    are the same sources, and a tokenizer of the same content is the same tokenizer.
    """
    for path in directory.glob(".*.tmp"):  # a killed process was writing them
        path.unlink()
    listed = [[source.name, source.bytes, source.dataset] for source in sources]
    identity = [STATE_VERSION, options.deciding(), options.tokenizer is None, listed]
    reason = "from other input or options: repeat the command that began it"
    if state.get("identity") == identity:
        identities, edited = identified_again(sources, state.get("sources"), options.processes)
        if edited:
            reason = f"of an earlier version of {', '.join(edited[:5])} (edited since, at the same size)"
        elif is_same_tokenizer(directory / TOKENIZER_FOLDER, options):
            state.put(sources=identities)
            return identities
        else:
            reason = f"with another tokenizer than {options.tokenizer}: give the one that it began with"
    if state.get("progress") is not None:
        raise ValueError(
            f"{directory} holds an unfinished build {reason}, or delete the directory, or choose another --output_dir"
        )
    # Nothing was committed: the remains of a failed first attempt are useless.
    shutil.rmtree(directory / TOKENIZER_FOLDER, ignore_errors=True)
    for path in directory.glob("*.tar"):
        path.unlink()
    identities = identified(sources, options.processes)
    state.put(identity=identity, sources=identities)
    return identities


def is_same_tokenizer(directory: Path, options: BuildOptions) -> bool:
    """Whether the tokenizer that an interrupted build saved, if any, is still the one that is asked for."""
    if options.tokenizer is None or not directory.is_dir():
        return True
    return fingerprint(load_tokenizer(options.tokenizer)) == fingerprint(load_tokenizer(str(directory)))
