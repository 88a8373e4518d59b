"""Numbers as text, and with the thing that they count, in the singular or the plural."""

from __future__ import annotations

SIBILANTS = ("s", "x", "z", "ch", "sh")


def amount_text(amount: float) -> str:
    """A budget or another large amount: `62,500`; `3.2e+17` for FLOPs; `0.25` for hours."""
    return f"{amount:,.0f}" if amount == 0 or 1000 <= abs(amount) < 1e13 else f"{amount:.4g}"


def counted(number: float, noun: str, *, written: str | None = None) -> str:
    """`1 task`, `2 tasks`, `1,000 searches`; `written` replaces the digits of the number.

    The noun is given in the singular and must have a regular plural. `written` is for numbers that are printed rounded;
    whether the noun is plural is decided by the number itself.
    """
    digits = f"{number:,}" if written is None else written
    return f"{digits} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The regular plural: tasks, searches, retries.

    `epoch` is the one noun of ours whose ch is spoken as a k: it takes only an s.
    """
    if noun.endswith(SIBILANTS) and not noun.endswith("epoch"):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"
