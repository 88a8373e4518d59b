"""What a build of shards is told: inputs, cleaning, tokenizer, split and layout."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from runtime.machine import usable_cores
from shards.text.cleaning import Cleaning
from shards.text.plain_text import TextRules

DEFAULT_VOCAB_SIZE = 16_384
WITHOUT_EFFECT_ON_THE_RESULT = ("input", "output_dir", "tokenizer", "processes", "index_memory_mb")


def described(default: Any, text: str) -> Any:
    """A dataclass field with the help text that the command line shows."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class BuildOptions:
    """Options of one build; the defaults suit a folder of text files.

    Raises ValueError for a value outside its range and for options that contradict each other.
    """

    input: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Files, folders, globs, a directory written by save_to_disk, or datasets:NAME[:CONFIG[:SPLIT]]",
            "nargs": "+",
        },
    )
    output_dir: str = described(
        "", "Directory of the shards, also inside an --input folder; an interrupted build there is continued"
    )
    tokenizer: str | None = described(None, "A transformers tokenizer (directory or hub name) instead of training one")
    vocab_size: int | None = described(None, f"Size of the vocabulary to train (default {DEFAULT_VOCAB_SIZE})")
    vocabulary: Literal["wordpiece", "byte_bpe"] = described("wordpiece", "Kind of vocabulary to train")
    lowercase: bool = described(True, "Train an uncased vocabulary")
    vocabulary_sample_mb: int = described(32, "Text the vocabulary is trained on, in MB: heads of evenly spaced inputs")
    document: Literal["file", "line", "paragraph"] = described(
        "file", "What a document of plain text is: a file, a line, or the lines between blank ones"
    )
    text_column: str = described(
        "text", "Column of JSON lines, CSV, TSV, parquet and datasets; a number where no header is"
    )
    max_document_mb: int = described(
        16, "Longer plain text is cut here; a longer JSON line or row of a table is refused"
    )
    invalid_utf8: Literal["stop", "replace"] = described("stop", "Bytes that are not UTF-8: stop, or replace and count")
    min_characters: int = described(1, "Shorter documents are dropped and counted")
    nfc: bool = described(True, "Bring text to Unicode NFC")
    html_entities: bool = described(False, "Turn HTML entities such as &lt; into characters")
    drop_duplicates: bool = described(
        True, "Drop all but the first of identical documents; if false they stay, whatever --near_duplicates says"
    )
    near_duplicates: Literal["drop", "separate", "ignore"] = described(
        "drop", "All but the first: drop; drop only what would lie on both sides of the held-out split; do not look"
    )
    near_duplicate_threshold: float = described(0.8, "Jaccard similarity of 5-token shingles, estimated by MinHash")
    validation_fraction: float = described(0.01, "Share of documents held out, chosen by a hash of the document")
    words: Literal["none", "jieba"] = described("none", "Store where words start, as jieba cuts Chinese text")
    block_tokens: int = described(65_536, "Tokens of a block, the unit that is read and shuffled")
    blocks_per_shard: int = described(64, "Blocks of a tar file")
    index_memory_mb: int = described(64, "Memory for new keys and pages of the index of duplicates, in MB")
    processes: int = described(usable_cores(), "Processes that clean and tokenize")

    def __post_init__(self) -> None:
        if not self.input or not self.output_dir:
            raise ValueError("--input and --output_dir are needed: what to read and where the shards go")
        if self.tokenizer and self.vocab_size:
            raise ValueError(f"--tokenizer {self.tokenizer} and --vocab_size {self.vocab_size}: give one of the two")
        ranges = {
            "vocab_size": (self.trained_vocab_size, 64, 4_000_000),
            "vocabulary_sample_mb": (self.vocabulary_sample_mb, 1, 4_096),
            "max_document_mb": (self.max_document_mb, 1, 1_024),
            "min_characters": (self.min_characters, 1, 1_000_000_000),
            "near_duplicate_threshold": (self.near_duplicate_threshold, 0.5, 1.0),
            "validation_fraction": (self.validation_fraction, 0.0, 0.5),
            "block_tokens": (self.block_tokens, 16, 1 << 24),
            "blocks_per_shard": (self.blocks_per_shard, 1, 65_536),
            "index_memory_mb": (self.index_memory_mb, 1, 1_000_000),
            "processes": (self.processes, 1, 4_096),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise ValueError(f"--{name} {value}: it must lie between {low} and {high}")

    @property
    def trained_vocab_size(self) -> int:
        """Size of the vocabulary to train."""
        return self.vocab_size or DEFAULT_VOCAB_SIZE

    @property
    def max_document_bytes(self) -> int:
        """Where long plain text is cut."""
        return self.max_document_mb * 1_000_000

    def cleaning(self) -> Cleaning:
        """The cleaning steps asked for."""
        return Cleaning(self.min_characters, self.nfc, self.html_entities)

    def text_rules(self) -> TextRules:
        """The reading rules asked for, with fresh counts."""
        return TextRules(self.document, self.text_column, self.max_document_bytes, self.invalid_utf8)

    def deciding(self) -> dict[str, Any]:
        """The options that decide the shards' bytes: two builds agree exactly when these, sources and tokenizer do."""
        options = {key: value for key, value in asdict(self).items() if key not in WITHOUT_EFFECT_ON_THE_RESULT}
        training = {"vocab_size", "vocabulary", "lowercase", "vocabulary_sample_mb"}
        if self.tokenizer:
            return {key: value for key, value in options.items() if key not in training}
        return options | {"vocab_size": self.trained_vocab_size}
