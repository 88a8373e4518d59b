"""Chunks of documents: read in order, encoded by several processes, and returned in order."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from typing import Any

from runtime.files.schemas import Count, Schema, checked
from runtime.processes.failures import Failed
from shards.building import worker
from shards.building.options import BuildOptions
from shards.building.worker import EncodedChunk, EncoderOptions, TextEncoder
from shards.text.readers import DocumentReader
from shards.text.sources import Source

CHUNK_CHARACTERS = 1 << 19
CHUNK_DOCUMENTS = 2_048


@dataclass
class Chunk:
    """Consecutive documents, the reader's position after them, and its counts."""

    texts: list[str]
    source: int
    documents_of_source: int
    bytes_read: int
    documents_read: dict[int, int]
    changed: Counter[str]


class _BuildProgressFile(Schema):
    """`BuildProgress` as an unfinished build keeps it on disk."""

    source: Count
    documents_of_source: Count
    text_bytes: Count
    changed: dict[str, Count]
    dropped: dict[str, Count]
    characters: Count = 0
    unknown_characters: Count = 0
    kept_with_full_key: Count = 0


@dataclass
class BuildProgress:
    """Position of a build: all before document `documents_of_source` of source number `source` is in the shards.

    After the last chunk `source` is the number of sources.
    """

    source: int = 0
    documents_of_source: int = 0
    text_bytes: int = 0
    documents_read: Counter[int] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    characters: int = 0  # of cleaned text, except blanks
    unknown_characters: int = 0  # those of them that became the unknown token
    kept_with_full_key: int = 0  # documents that may have a near duplicate missing from a full key of the index

    def advance(self, chunk: Chunk, encoded: EncodedChunk) -> None:
        """Count a chunk as done."""
        self.source, self.documents_of_source = chunk.source, chunk.documents_of_source
        self.text_bytes += encoded.text_bytes
        self.characters += encoded.characters
        self.unknown_characters += encoded.unknown_characters
        self.documents_read.update(chunk.documents_read)
        self.changed.update(chunk.changed + encoded.changed)
        self.dropped.update(encoded.dropped)

    def saved(self) -> dict[str, Any]:
        """The JSON form, without `documents_read`, which is as long as the list of sources."""
        # dataclasses.asdict would count the items of a Counter.
        values = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}
        del values["documents_read"]
        return values

    @classmethod
    def restored(cls, saved: dict[str, Any] | None, documents_read: dict[int, int]) -> BuildProgress:
        """The progress that was committed, or that of a fresh build."""
        if saved is None:
            return cls()
        record = checked(saved, _BuildProgressFile, "progress", "it was changed")
        values = {name: getattr(record, name) for name in _BuildProgressFile.model_fields}
        counts = {name: Counter(values[name]) for name in ("changed", "dropped")}
        return cls(**{**values, **counts, "documents_read": Counter(documents_read)})


def read_chunks(
    sources: list[Source], options: BuildOptions, first_source: int, documents_to_skip: int
) -> Iterator[Chunk]:
    """Read all documents after a position, as chunks of about half a million characters."""
    reader = DocumentReader(options.text_rules())
    texts: list[str] = []
    characters = 0
    read: Counter[int] = Counter()
    place = (first_source, documents_to_skip)

    def chunk() -> Chunk:
        nonlocal texts, characters, read
        result = Chunk(texts, *place, reader.bytes_read, dict(read), Counter(reader.changed))
        texts, characters, read = [], 0, Counter()
        reader.changed.clear()
        return result

    for number in range(first_source, len(sources)):
        documents = reader.read(sources[number])
        skipped = documents_to_skip if number == first_source else 0
        for _ in islice(documents, skipped):
            reader.changed.clear()
        place = (number, skipped)
        for text in documents:
            texts.append(text)
            characters += len(text)
            read[number] += 1
            place = (number, place[1] + 1)
            if characters >= CHUNK_CHARACTERS or len(texts) >= CHUNK_DOCUMENTS:
                yield chunk()
    if texts or reader.changed:
        place = (len(sources), 0)  # so that counts after the last document are not repeated
        yield chunk()


def encode_chunks(
    chunks: Iterable[Chunk], options: EncoderOptions, processes: int
) -> Iterator[tuple[Chunk, EncodedChunk]]:
    """Encode chunks, in this process or in several, in input order, with a bounded number in progress.

    Raises Failed when a worker process dies.
    """
    if processes == 1:
        local = TextEncoder(options)
        for chunk in chunks:
            yield chunk, local.encode(chunk.texts)
        return
    waiting: deque[tuple[Chunk, Future[EncodedChunk]]] = deque()
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=worker.start, initargs=(options,)) as pool:
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(worker.encode, chunk.texts)))
                chunk.texts = []
                if len(waiting) > 2 * processes:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        except BrokenProcessPool as error:
            raise Failed(
                "a worker process died (killed, or out of memory?): the same command continues the build; "
                "fewer --processes or a smaller --max_document_mb need less memory"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
