"""Options that cannot be honoured together are refused, never ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

FILE_OPTIONS = ("train_file", "validation_file", "test_file")


def refuse_beside(options: Any, name: str, others: Sequence[str]) -> None:
    """ValueError naming both when `name` and one of `others`, which it makes idle, are given."""
    if getattr(options, name) is None:
        return
    for other in others:
        if getattr(options, other) is not None:
            raise ValueError(f"--{name} and --{other}: the data are named one way only; drop --{other}")


def require_beside(options: Any, name: str, others: Sequence[str]) -> None:
    """ValueError naming both when one of `others` is given, which does nothing without `name`."""
    for other in others:
        if getattr(options, other) is not None and not getattr(options, name):
            raise ValueError(
                f"--{other} {getattr(options, other)} does nothing without --{name}: give that, or drop it"
            )


def refuse_given(options: Any, names: Sequence[str], beside: str) -> None:
    """ValueError for the first of `names` that is not its default, though `beside` leaves it nothing to do."""
    defaults = {one.name: one.default for one in fields(options)}
    for name in names:
        if getattr(options, name) != defaults[name]:
            raise ValueError(f"--{name} {getattr(options, name)} does nothing beside {beside}: drop it")
