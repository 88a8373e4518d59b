"""Loading a tokenizer from a directory or the hub, whose files are checked before `transformers` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.files.foreign import read_foreign_object, reading_foreign, refuse_pointer
from runtime.hub import local_files_only
from runtime.model_places import model_place

# Files with a vocabulary; without one `transformers` makes an empty tokenizer from config.json, every word unknown.
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "spm.model"),
    "sentencepiece.bpe.model",
)
SAVE = "tokenizer.save_pretrained"
OBJECTS = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "special_tokens_map.json", "added_tokens.json")


def has_tokenizer(folder: Path) -> bool:
    """Whether a directory has a file with a vocabulary."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def open_tokenizer(source: str, *, option: str = "--tokenizer") -> Any:
    """The tokenizer of a directory, a hub name or an address (`model_place`); code that comes with it is never run.

    Raises ValueError, naming the file, if a directory has none or a broken one, if it has no words, and if it is not a
    fast one; OSError if neither a directory nor the hub has it.
    """
    source = model_place(source, option)
    folder = Path(source).expanduser()
    if folder.is_dir():
        check_tokenizer_files(folder)
        source = str(folder)
    from transformers import AutoTokenizer

    what, remedy = f"{option} {source}: its tokenizer", f"save it again beside the model ({SAVE})"
    with reading_foreign(what, remedy, from_hub=not folder.is_dir()):
        tokenizer = AutoTokenizer.from_pretrained(
            source, trust_remote_code=False, local_files_only=local_files_only(source)
        )
        is_fast, words = tokenizer.is_fast, set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    if not words:
        raise ValueError(_no_files(source, ", or their vocabulary is empty"))
    if not is_fast:
        raise ValueError(
            f"{option} {source} has no fast tokenizer (its own is written in Python), and offsets are needed: use a "
            "model with a fast (Rust) one"
        )
    return tokenizer


def check_tokenizer_files(folder: Path) -> None:
    """ValueError if a directory has no tokenizer files, Git LFS pointers in their place, or invalid JSON."""
    if not has_tokenizer(folder):
        raise ValueError(_no_files(str(folder), ""))
    for name in (*TOKENIZER_FILES, "merges.txt"):
        if (folder / name).is_file():
            refuse_pointer(folder / name)
    for name in OBJECTS:
        if (folder / name).is_file():
            read_foreign_object(folder / name)


def _no_files(source: str, more: str) -> str:
    return (
        f"{source} has no tokenizer files (tokenizer.json, vocab.txt, ...){more}: save the tokenizer beside the model "
        f"({SAVE})"
    )
