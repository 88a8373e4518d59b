"""Formatting of numbers and answers as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gap.analysis.results import CheckpointResult, Crossing, CurveResult, Dot
from gap.intervals.interval import Estimate
from runtime.plurals import counted


def tokens_text(tokens: float) -> str:
    """1234567 -> `1.2e6`; below a thousand as it is."""
    if abs(tokens) < 1000:
        return f"{tokens:.3g}"
    exponent = 3 * (math.floor(math.log10(abs(tokens)) + 1e-9) // 3)
    return (
        f"{tokens / 10**exponent:.2g}e{exponent}"
        if tokens / 10**exponent < 99.5
        else f"{tokens / 10**exponent:.0f}e{exponent}"
    )


def duration_text(hours: float) -> str:
    """A time in seconds, minutes, hours or days, whichever reads best."""
    for unit, size in (("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60)):
        if hours >= 2 * size:
            return f"{hours / size:.3g} {unit}"
    return f"{hours * 3600:.3g} seconds"


def money_text(amount: float, currency: str) -> str:
    return f"{currency}{amount:,.2f}"


def percent_text(estimate: Estimate, *, digits: int = 1) -> str:
    """`75.5 % [74.1, 76.8]`."""
    value = f"{100 * estimate.value:.{digits}f} %"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{100 * estimate.low:.{digits}f}, {100 * estimate.high:.{digits}f}]"


def points_text(estimate: Estimate) -> str:
    """A difference of scores in points: `+1.2 [-0.3, +2.7]`."""
    value = f"{100 * estimate.value:+.1f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def interval_text(crossing: Crossing) -> str:
    """The interval of a crossing in brackets, with its open ends in words."""
    if crossing.refused:
        return f"(no interval: {crossing.refused})"
    if crossing.state == "already_reached" and crossing.high is None and not crossing.high_open:
        return "[at or below the smallest budget]"
    if crossing.low is None and crossing.high_open and not crossing.low_open:
        return "[not reached]"
    low = "at or below the smallest budget" if crossing.low_open else _end(crossing.low)
    high = "not reached" if crossing.high_open else _end(crossing.high)
    return f"[{low}, {high}]"


def checkpoint_text(checkpoint: CheckpointResult, estimate: Estimate) -> str:
    """A checkpoint with its mean in words: the hover text, with lines separated by <br>."""
    failed = (
        f"<br>{checkpoint.failed_runs} of {counted(checkpoint.runs, 'run')} failed" if checkpoint.failed_runs else ""
    )
    return f"<b>{checkpoint.name}</b><br>{percent_text(estimate)}<br>{checkpoint.layout} seeds{failed}"


def cell_text(checkpoint: CheckpointResult, dot: Dot) -> str:
    """One cell in words: the hover text."""
    rate = "" if dot.learning_rate is None else f"<br>learning rate {dot.learning_rate:g}"
    return (
        f"<b>{checkpoint.name}</b><br>score {100 * dot.score:.2f} % ({dot.status.replace('_', ' ')})"
        f"<br>pretraining seed {dot.pretraining_seed}, fine-tuning seed {dot.finetuning_seed}"
        f"{rate}<br>{dot.seconds:.0f} s<br>cell {dot.fingerprint[:12]}"
    )


def answer_text(
    task: str,
    gap: Estimate,
    resolved: bool,
    reference: str,
    in_series: bool,
    conditional: str | None,
    curves: Sequence[CurveResult],
    checkpoints: Sequence[CheckpointResult],
    currency: str,
    priced: bool,
    floor: str = "scratch",
) -> str:
    """The answer in one sentence; `floor` is what the gap begins at, `conditional` what the intervals are of."""
    above, start = ("", "") if floor == "scratch" else (f" above {floor}", f" from {floor}")
    if gap.refused:
        return f"On {task} the gap{start} to {reference} is {100 * gap.value:.1f} points; {gap.refused}."
    if gap.is_below_zero:
        given = f" ({conditional})" if conditional else ""
        return (
            f"On {task} pretraining lowers the score: {reference} minus {floor} is {100 * gap.value:.1f} points "
            f"{_points(gap)}{given}."
        )
    if not resolved:
        given = f" ({conditional})" if conditional else ""
        return (
            f"On {task} there is no gap to close that this study resolves: {reference} minus {floor} is "
            f"{100 * gap.value:.1f} points {_points(gap)}{given}."
        )
    curve = next((candidate for candidate in curves if candidate.kind == "annealed"), curves[0] if curves else None)
    if curve is None or not curve.crossings:
        given = f" ({conditional})" if conditional else ""
        return (
            f"On {task} the gap{start} to {reference} is {100 * gap.value:.1f} points {_points(gap)}; "
            f"too few budgets for a curve{given}."
        )
    whose = f"this series' gap on {task}{above}" if in_series else f"the gap on {task}{above} to {reference}"
    sentence = _crossing_words(curve, whose, currency, priced, checkpoints)
    sentence += _longer_words(checkpoints) if floor == "scratch" else ""
    return f"{sentence} ({conditional})." if conditional else f"{sentence}."


def _crossing_words(
    curve: CurveResult, whose: str, currency: str, priced: bool, checkpoints: Sequence[CheckpointResult]
) -> str:
    """The highest level that was measured, or how far the largest budget came."""
    measured = [crossing for crossing in curve.crossings if crossing.state == "measured"]
    if measured:
        best = max(measured, key=lambda crossing: crossing.level)
        costs = []
        if best.other_units.get("hours", (None,))[0] is not None:
            costs.append(duration_text(float(best.other_units["hours"][0] or 0.0)))
        if priced and best.other_units.get("money", (None,))[0] is not None:
            costs.append(money_text(float(best.other_units["money"][0] or 0.0), currency))
        price = f", {', '.join(costs)}" if costs else ""
        return (
            f"{100 * best.level:g} % of {whose} is closed after {_end(best.tokens)} tokens {interval_text(best)}{price}"
        )
    already = [crossing for crossing in curve.crossings if crossing.state == "already_reached"]
    if already:
        best = max(already, key=lambda crossing: crossing.level)
        smallest = _end(curve.line[0][0])
        return f"{100 * best.level:g} % of {whose} is closed already at the smallest budget, {smallest} tokens"
    lost = [crossing for crossing in curve.crossings if crossing.state == "lost_again"]
    if lost:
        lowest = min(crossing.level for crossing in lost)
        return f"{100 * lowest:g} % of {whose} is closed at a smaller budget and lost again at a later one"
    lowest = min(crossing.level for crossing in curve.crossings)
    largest = max(
        (one for one in checkpoints if one.kind == curve.kind and one.control is None and one.gap_closed is not None),
        key=lambda one: one.budget_tokens or 0,
        default=None,
    )
    closed = f", which close {percent_text(largest.gap_closed, digits=0)}" if largest and largest.gap_closed else ""
    return f"{100 * lowest:g} % of {whose} is not reached by {_end(curve.line[-1][0])} tokens{closed}"


def _longer_words(checkpoints: Sequence[CheckpointResult]) -> str:
    longer = [
        checkpoint
        for checkpoint in checkpoints
        if checkpoint.control == "scratch_longer" and checkpoint.gap_closed is not None
    ]
    if not longer:
        return ""
    longest = max(longer, key=lambda checkpoint: checkpoint.epochs_factor)
    assert longest.gap_closed is not None
    return f"; scratch with {longest.epochs_factor:g}x epochs closes {percent_text(longest.gap_closed, digits=0)}"


def _end(tokens: float | None) -> str:
    return "unknown" if tokens is None else tokens_text(tokens)


def _points(estimate: Estimate) -> str:
    return f"[{100 * (estimate.low or 0.0):.1f}, {100 * (estimate.high or 0.0):.1f}]"
