"""Rules between options: combinations in which an option would be ignored are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.options.declaration import not_given


def named_twice(options: Any, name: str, others: Sequence[str]) -> list[str]:
    """A complaint for each of `others` that is given together with `name`, which makes it useless."""
    if getattr(options, name) is None:
        return []
    given = [other for other in others if getattr(options, other) is not None]
    return [f"--{name} and --{other} both name the data: drop --{other}" for other in given]


def idle_without(options: Any, name: str, others: Sequence[str]) -> list[str]:
    """A complaint for each of `others` that is given and does nothing without `name`."""
    if getattr(options, name):
        return []
    given = [other for other in others if getattr(options, other) is not None]
    return [
        f"--{other} {getattr(options, other)} does nothing without --{name}: give both, or drop it" for other in given
    ]


def idle_beside(options: Any, names: Sequence[str], beside: str) -> list[str]:
    """A complaint for each of `names` that is not its default, though it does nothing with `beside`."""
    given = [name for name in names if name not in not_given(options)]
    return [f"--{name} {getattr(options, name)} does nothing with {beside}: drop it" for name in given]


def refuse_given(options: Any, names: Sequence[str], beside: str) -> None:
    """ValueError for the first of `names` that is not its default, though it does nothing with `beside`."""
    for complaint in idle_beside(options, names, beside):
        raise ValueError(complaint)
