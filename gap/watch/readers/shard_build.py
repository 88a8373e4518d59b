"""A build of shards: the shards on disk, and the manifest once it is done. The state of an unfinished build is a
database, which cannot be opened without writing next to it: it is left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gap.watch.owners import newest, read_owner, state_of_unfinished
from gap.watch.readers.kept_files import KeptFiles
from gap.watch.view import LiveState, LiveTable, RunView
from gap.watch.wording import amount, size
from runtime.files.schemas import Count, Items, Schema, read_file
from runtime.plurals import counted

MANIFEST_NAME, BUILDING_LOCK = "manifest.json", "building/lock"
LARGEST_MANIFEST = 16 << 20  # of a larger one only the shards on disk are shown
REMEDY = "build or fetch the shards again"


class _ShardFacts(Schema):
    pass


class _SplitFacts(Schema):
    documents: Count = 0
    tokens: Count = 0
    text_bytes: Count | None = None
    shards: Items[_ShardFacts] = Field(default_factory=list)


class _TokenizerFacts(Schema):
    vocab_size: Count = 0


class _ManifestFacts(Schema):
    """What is shown of a manifest."""

    splits: Annotated[dict[str, _SplitFacts], Field(max_length=64)]
    tokenizer: _TokenizerFacts


class BuildReader:
    """The reader of a folder of shards."""

    kind = "build of shards"

    def __init__(self, directory: Path, place: str) -> None:
        self.directory, self.place = directory, place
        self.files = KeptFiles()

    def view(self) -> RunView:
        """The build as it stands."""
        self.files.begin()
        path = self.directory / MANIFEST_NAME
        is_large = path.is_file() and path.stat().st_size > LARGEST_MANIFEST
        facts = None
        if not is_large:
            facts = self.files.read(path, lambda: read_file(path, _ManifestFacts, REMEDY))
        number, held = self.files.read(self.directory, lambda: _shards_in(self.directory)) or (0, 0)
        changed = newest((path, self.directory))
        state, reason = LiveState.FINISHED, ""
        if not path.is_file():
            owner = read_owner(self.directory, BUILDING_LOCK)
            found = self.files.try_now(lambda: state_of_unfinished(self.directory, owner, changed))
            state, reason = found or (LiveState.DAMAGED, "the files named below cannot be read")
            if state == LiveState.RUNNING and not reason:
                reason = "how far it is stands in its own progress bar; here are the shards that it has finished"
        elif self.files.problems:
            state, reason = LiveState.DAMAGED, "the files named below cannot be read"
        figures = [("shards", f"{number:,}"), ("size", size(held))]
        tables = []
        if facts is not None:
            tokens = sum(split.tokens for split in facts.splits.values())
            documents = sum(split.documents for split in facts.splits.values())
            figures = [("tokens", amount(tokens)), ("documents", f"{documents:,}"), *figures]
            figures.append(("vocabulary", f"{facts.tokenizer.vocab_size:,}"))
            rows = [
                (name[:60], f"{split.documents:,}", f"{split.tokens:,}", f"{len(split.shards):,}")
                for name, split in facts.splits.items()
            ]
            heads = ("split", "documents", "tokens", "shards")
            tables.append(LiveTable("Splits", heads, tuple(rows), numbers=(1, 2, 3)))
        return RunView(
            self.place,
            self.kind,
            state,
            changed,
            reason=reason,
            share=1.0 if state == LiveState.FINISHED else None,
            done=f"{counted(number, 'shard')}, {size(held)}",
            figures=tuple(figures),
            tables=tuple(tables),
            problems=tuple(self.files.problems),
        )


def _shards_in(directory: Path) -> tuple[int, int]:
    """The number of finished shards and their bytes."""
    number = held = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".tar") and not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                number, held = number + 1, held + entry.stat(follow_symlinks=False).st_size
    return number, held
