"""Error spending: repeated looks at a growing series, or at a growing number of seeds, at a fixed total error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import norm

from runtime.plurals import counted

ERROR = 0.05  # of all looks together


def spent_error(information: float, *, error: float = 0.05) -> float:
    """Error that may be spent when this share of the looks (0 to 1) is done.

    The O'Brien-Fleming-like spending function of Lan and DeMets (1983): almost nothing early, all of it at the end.
    """
    if not 0.0 < information <= 1.0:
        raise ValueError(f"information is {information}: it is the share of planned looks done, above 0 and at most 1")
    return float(2 - 2 * norm.cdf(norm.ppf(1 - error / 2) / information**0.5))


def look_confidence(look: int, num_looks: int, *, error: float = 0.05) -> float:
    """Confidence of the interval at look 1..num_looks, so that all looks together err with at most `error`.

    Each look gets what the spending function adds. The errors of the looks are added up (the union bound), which
    needs no knowledge of how the estimates of a growing series are correlated.
    """
    if not 1 <= look <= num_looks:
        raise ValueError(f"look {look} of {num_looks}: looks are counted from 1; plan one look per budget")
    before = spent_error((look - 1) / num_looks, error=error) if look > 1 else 0.0
    return 1.0 - (spent_error(look / num_looks, error=error) - before)


@dataclass(frozen=True)
class SeedLook:
    """One analysis of a study that may get more seeds: the error that it may make, and what it resolved."""

    finetuning_seeds: int
    error: float  # of the ERROR of all looks
    resolved: Mapping[str, bool]  # by task
    pilot: bool = False


def seed_look_error(earlier: Sequence[SeedLook], seeds: int, most: int) -> float:
    """Error that an analysis with so many seeds, of at most `most`, may make after the earlier ones; 0: none is left.

    A look at the same seeds again is the same look. The errors of all looks are added up, as in `look_confidence`.
    """
    same = [look.error for look in earlier if look.finetuning_seeds == seeds]
    if same:
        return same[-1]
    spent = sum(look.error for look in looks_by_seeds(earlier))
    return max(0.0, spent_error(min(1.0, seeds / most), error=ERROR) - spent)


def looks_by_seeds(looks: Sequence[SeedLook]) -> list[SeedLook]:
    """The latest look at each number of seeds, in that order."""
    latest = {look.finetuning_seeds: look for look in looks}
    return [latest[seeds] for seeds in sorted(latest)]


def seeds_to_look_at(first: int, most: int) -> list[int]:
    """Numbers of seeds from `first` to `most`, each about half as large again as the one before."""
    seeds = [min(first, most)]
    while seeds[-1] < most:
        seeds.append(min(most, seeds[-1] + max(2, seeds[-1] // 2)))
    return seeds


def history_note(looks: Sequence[SeedLook]) -> str | None:
    """What the intervals of the last look have to do with the earlier ones; None if there is but one."""
    ordered = looks_by_seeds(looks)
    if len(ordered) < 2:
        return None
    history = "; ".join(_look_text(look) for look in ordered)
    if ordered[-1].error > 0:
        return (
            f"Looks at this study, whose errors together are at most {sum(look.error for look in ordered):.1%}: "
            f"{history}. So the intervals here are of {1 - ordered[-1].error:.2%} confidence."
        )
    return (
        f"This study was analysed with fewer seeds before and got more after: {history}. The 95 % of these intervals "
        "do not allow for that: a gap that is resolved after several tries is resolved by chance more often than 1 "
        "time in 20 (with --seeds_until_resolved the error is spent over the looks)."
    )


def _look_text(look: SeedLook) -> str:
    found = [task for task, resolved in look.resolved.items() if resolved]
    said = f"{', '.join(found)} resolved" if found else "nothing resolved"
    spent = f"error {look.error:.2%}" if look.error else "no error left to spend"
    return f"{'pilot, ' * look.pilot}{counted(look.finetuning_seeds, 'seed')}: {said} ({spent})"
