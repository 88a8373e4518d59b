"""Generated parts of pages: each stands where the page's source has a marker, an HTML comment.

<!-- options: launch/pretrain.py -->                   every option of a command
<!-- format: shards.storage.manifest:Manifest -->      the fields of a file, from its schema
<!-- api: shards.streaming.stream -->                  a module's public functions and classes, from docstrings
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from field_tables import format_text
from option_lists import options_text

MARKER = re.compile(r"^<!-- (options|format|api): (\S+) -->$", re.MULTILINE)


def api_text(module: str) -> str:
    """The directive that documents what a module defines and exports."""
    return f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```"


def as_rst(lines: Sequence[str]) -> list[str]:
    """A docstring as reStructuredText: plain text, code in backticks, lists of "- ", and indented code."""
    written: list[str] = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        inner = [line for line in paragraph.splitlines() if line.strip()]
        if inner and all(line.startswith("    ") for line in inner):
            written += ["::", "", *inner, ""]
        elif inner:
            items = re.split(r"\n(?=\s*- )", "\n".join(inner))
            written += [*(escaped(" ".join(item.split())) for item in items), ""]
    return written


def escaped(text: str) -> str:
    """Text whose stars, bars and underscores at the end of a word are themselves, but in backticks."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if number % 2 else re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for number, part in enumerate(parts)
    )


def import_modules(texts: Iterable[str]) -> None:
    """Import every module that the pages show, before any is documented.

    While autodoc documents a pydantic class it replaces the annotations of its bases, pydantic's own included, and no
    further schema can be defined.
    """
    for text in texts:
        for kind, place in MARKER.findall(text):
            if kind != "options":
                importlib.import_module(place.partition(":")[0])


WRITERS: Mapping[str, Callable[[str], str]] = {"options": options_text, "format": format_text, "api": api_text}


def with_generated_text(text: str) -> str:
    """The page with every marker replaced by what it stands for."""
    return MARKER.sub(lambda found: WRITERS[found[1]](found[2]), text)
