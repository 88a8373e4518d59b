"""A part of a data set: whole examples, the same ones for every seed and recipe option."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

Example = TypeVar("Example")


def subset(examples: Sequence[Example], limit: int | None, id_of: Callable[[Example], str]) -> list[Example]:
    """At most `limit` examples, in file order, chosen by a hash of their ids: files are often sorted by label or topic.

    No seed enters: smaller subsets are parts of larger ones. Raises ValueError for a limit under 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"--max_train_samples and --max_eval_samples are {limit}: use 1 or more")
    if limit is None or limit >= len(examples):
        return list(examples)
    ranked = sorted(map(id_of, examples), key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = set(ranked[:limit])
    return [one for one in examples if id_of(one) in chosen]
