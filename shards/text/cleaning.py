"""Cleaning of one document: each step is an option, and each that changes or drops a document is counted."""

from __future__ import annotations

import html
import unicodedata
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Cleaning:
    """Which cleaning steps to apply."""

    min_characters: int = 1
    nfc: bool = True
    html_entities: bool = False

    def clean(self, text: str, changed: Counter[str], dropped: Counter[str]) -> str | None:
        """The cleaned text, without white space around it, or None when it is dropped.

        Adds 1 to `changed` for each step that altered the text, or 1 to `dropped` with the reason.
        """
        if self.html_entities and "&" in text:
            text = counted(text, html.unescape(text), "html_entities", changed)
        if self.nfc and not unicodedata.is_normalized("NFC", text):
            text = counted(text, unicodedata.normalize("NFC", text), "nfc", changed)
        text = text.strip()
        if not text:
            dropped["empty"] += 1
            return None
        if len(text) < self.min_characters:
            dropped["too_short"] += 1
            return None
        return text


def counted(before: str, after: str, step: str, changed: Counter[str]) -> str:
    """The text after a step; counts the step when it altered anything."""
    changed[step] += before != after
    return after
