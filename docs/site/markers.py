"""Generated parts of pages: each stands where the page's source has a marker, an HTML comment.

<!-- options: launch/pretrain.py -->                   every option of a command
<!-- format: shards.storage.manifest:Manifest -->      the fields of a file, from its schema
<!-- api: shards.streaming.stream -->                  a module's public functions and classes, from docstrings
<!-- api: shards -->                                   a package's public names, as they are imported from it
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import is_typeddict

from field_tables import format_text
from option_lists import options_text

MARKER = re.compile(r"^<!-- (options|format|api): (\S+) -->$", re.MULTILINE)


def api_text(module: str) -> str:
    """The directives for a package's public names, functions first, or for what a module itself defines.

    Each function and class stands on the site once: a public name under its package, as it is imported.
    """
    loaded = importlib.import_module(module)
    if hasattr(loaded, "__path__"):
        names = sorted(loaded.__all__, key=lambda name: place_of(getattr(loaded, name)))
        lines = "\n\n".join(public_text(f"{module}.{name}", getattr(loaded, name)) for name in names)
    else:
        package = importlib.import_module(module.partition(".")[0])
        own = [name for name in package.__all__ if getattr(package, name).__module__ == module]
        lines = f".. automodule:: {module}\n   :members:\n   :ignore-module-all:"
        lines += f"\n   :exclude-members: {', '.join(own)}" if own else ""
    return f"```{{eval-rst}}\n{lines}\n```"


def place_of(value: object) -> int:
    """Functions first, then classes, then the long lists: options and keywords."""
    if is_typeddict(value):
        return 3
    return 2 if hasattr(value, "contradictions") else int(inspect.isclass(value))


def public_text(name: str, value: object) -> str:
    """The directive for a public name; of keywords, the type of each."""
    text = f".. auto{'class' if inspect.isclass(value) else 'function'}:: {name}"
    return f"{text}\n   :undoc-members:" if is_typeddict(value) else text


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


def readable_signature(signature: str) -> str:
    """A signature that is Python, with `...` for a default such as <factory>.

    Sphinx shows one that is not Python as it stands, with the marks (~) that it puts in front of types.
    """
    return re.sub(r"<[\w.]+( object)?( at 0x\w+)?>", "...", signature)


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
