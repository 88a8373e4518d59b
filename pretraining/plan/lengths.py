"""The sequence-length schedule: `128:0.9,512:0.1` -> the first row of each length."""

from __future__ import annotations

from collections.abc import Callable


def parse_length_schedule(text: str) -> list[tuple[int, float]]:
    """Lengths and their shares of the budget; ValueError unless all are positive and the shares sum to 1."""
    example = "write lengths and shares that sum to 1, such as 128:0.9,512:0.1"
    parts = [part.partition(":") for part in text.split(",")]
    try:
        shares = [(int(length), float(share)) for length, _, share in parts]
    except ValueError as error:
        raise ValueError(f"--length_schedule {text!r}: {example}") from error
    if (
        not all(length > 0 and share > 0 for length, share in shares)
        or abs(sum(share for _, share in shares) - 1) > 1e-6
    ):
        raise ValueError(f"--length_schedule {text!r}: {example}")
    return shares


def scheduled_rows(
    shares: list[tuple[int, float]], *, budget: float, cost_of_row: Callable[[int], float], global_batch_rows: int
) -> tuple[tuple[int, int], ...]:
    """(first global row, length) of each length, in whole updates, at least one each.

    `cost_of_row` gives what a row of sequences of a length costs, in the budget's unit.
    """
    first, schedule = 0, []
    for length, share in shares:
        schedule.append((first, length))
        first += max(1, round(share * budget / cost_of_row(length) / global_batch_rows)) * global_batch_rows
    return tuple(schedule)
