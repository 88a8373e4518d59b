"""Numbers with the thing that they count, in the singular or the plural."""

from __future__ import annotations

SIBILANTS = ("s", "x", "z", "ch", "sh")


def counted(number: float, noun: str, *, written: str | None = None) -> str:
    """`1 task`, `2 tasks`, `1,000 searches`; `written` replaces the digits of the number.

    The noun is given in the singular and must have a regular plural.
    """
    digits = f"{number:,}" if written is None else written
    return f"{digits} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The regular plural: tasks, searches, retries."""
    if noun.endswith(SIBILANTS) and not noun.endswith("epoch"):  # whose ch is a k
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"
