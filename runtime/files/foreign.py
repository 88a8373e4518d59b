"""Reading files that other programs wrote: any error becomes a ValueError that names the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LFS_HEAD = b"version https://git-lfs"
LARGEST_JSON_BYTES = 100_000_000
LONGEST_WORD = 400  # characters that a message shows of a value or a path
LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")
DEEPEST = 32  # levels of lists and objects: readers recurse


@contextmanager
def reading_foreign(
    what: str, remedy: str, *, from_hub: bool = False, how: str = "could not be read"
) -> Iterator[None]:
    """Turn whatever a library raises inside into a ValueError: `what` could not be read, the reason, the `remedy`.

    A MemoryError passes through, and with `from_hub` an OSError: the hub did not deliver the file. A reader written
    in Rust panics with an exception that is not an Exception.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, MemoryError) or (from_hub and isinstance(error, OSError)):
            raise
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # an interrupt
        raise ValueError(f"{what} {how} ({reason_of(error)}): {remedy}") from error


def reason_of(error: BaseException) -> str:
    """The error's text on one line of bounded length, and its type, without which a KeyError says little."""
    text = printable(" ".join(str(error).split()))
    text = text if len(text) <= 300 else f"{text[:300]} ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def printable(text: str) -> str:
    """The text as a terminal may show it: no word without end, and escapes and the like as they are written."""
    cut = LONG_WORD.sub(lambda word: f"{word[0][:LONGEST_WORD]}...", text)
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1] for character in cut
    )


def refuse_pointer(path: Path) -> None:
    """Raise ValueError for a Git LFS pointer in place of the file, and for an empty file."""
    with path.open("rb") as file:
        head = file.read(len(LFS_HEAD))
    refuse_pointer_head(str(path), head)
    if not head:
        raise ValueError(f"{path} is empty: copy or download it again")


def refuse_pointer_head(name: str, head: bytes) -> None:
    """ValueError where the first bytes of a file are those of a Git LFS pointer."""
    if head.startswith(LFS_HEAD):
        raise ValueError(
            f"{name} is a Git LFS pointer, not the file itself: run `git lfs install` and `git lfs pull` in its folder"
        )


def read_foreign_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, without NaN or Infinity, of bounded size and depth; ValueError names the file."""
    refuse_pointer(path)
    size = path.stat().st_size
    if size > LARGEST_JSON_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, far too many for a file of this kind: copy or download it again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
        deep = _is_deep(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} could not be read as JSON ({reason_of(error)}): copy or download it again") from error
    if deep:
        raise ValueError(f"{path} is nested more than {DEEPEST} levels deep: copy or download it again")
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a JSON object: copy or download it again")
    return content


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _is_deep(content: Any) -> bool:
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(DEEPEST):
        inside = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in inside if isinstance(child, dict | list)]
    return bool(level)
