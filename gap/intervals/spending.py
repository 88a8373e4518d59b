"""Error spending: repeated looks at a growing series, or at a growing number of seeds, at a fixed total error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    runs: int = 1  # pretraining runs

    def is_at(self, other: SeedLook) -> bool:
        """Whether both look at the same cells of both ends of the gaps."""
        return (self.finetuning_seeds, self.runs) == (other.finetuning_seeds, other.runs)


def seed_look_error(earlier: Sequence[SeedLook], seeds: int, most: int, *, runs: int = 1, pilot: bool = False) -> float:
    """Error that an analysis with so many seeds, of at most `most`, may make after the earlier ones; 0: none is left.

    The error grows with the square of the seeds (Kim and DeMets 1987): an early look may stop at a clear gap, and half
    of the error is kept for the last ones. The errors of all looks are added up, as in `look_confidence`. A look at the
    same seeds again is the same look; a study of as many seeds as its pilot looks at the same cells, and counts it in.
    """
    here = SeedLook(seeds, 0.0, {}, pilot, runs)
    same = [look.error for look in earlier if look.is_at(here) and look.pilot <= pilot]
    if same:
        return same[-1]
    spent = sum(look.error for look in earlier if not look.is_at(here))
    return max(0.0, ERROR * min(1.0, seeds / most) ** 2 - spent)


def with_look(earlier: Sequence[SeedLook], look: SeedLook) -> list[SeedLook]:
    """The looks with one more, which is the last; it replaces one at the same cells."""
    return [*(other for other in earlier if not other.is_at(look)), look]


def seeds_to_look_at(first: int, most: int) -> list[int]:
    """Numbers of seeds from `first` to `most`, each about half as large again as the one before.

    Looks that could err more than the one after them are left out: what one look resolves, the next ones resolve too.
    """
    seeds = [min(first, most)]
    while seeds[-1] < most:
        seeds.append(min(most, seeds[-1] + max(2, seeds[-1] // 2)))
    while True:
        squares = [0, *(number**2 for number in seeds)]
        gains = [after - before for before, after in pairwise(squares)]
        falls = [number for number in range(len(gains) - 1) if gains[number] > gains[number + 1]]
        if not falls:
            return seeds
        del seeds[falls[-1]]


def history_note(looks: Sequence[SeedLook], confidence: float | None = None) -> str | None:
    """What the intervals of the last look have to do with the earlier ones; None if there is but one.

    `confidence`: of the intervals that stand beside the note, where it is not that of the last look.
    """
    if len(looks) < 2:
        return None
    history = "; ".join(_look_text(look) for look in looks)
    if looks[-1].error > 0:
        own = f" So the intervals here are of {1 - looks[-1].error:.2%} confidence." if confidence is None else ""
        spent = sum(look.error for look in looks)
        return f"Looks at this study, whose errors together are at most {spent:.1%}: {history}.{own}"
    return (
        f"This study was analysed before and got more seeds or runs after that: {history}. The intervals do not allow "
        "for that: a gap that is resolved after several tries is resolved by chance more often than 1 time in 20. To "
        "spend the 5 % over all looks, give --seeds_until_resolved from the first one on, in a folder of its own."
    )


def _look_text(look: SeedLook) -> str:
    found = [task for task, resolved in look.resolved.items() if resolved]
    said = f"{', '.join(found)} resolved" if found else "nothing resolved"
    spent = f"{100 * look.error:.2g} of the 5 %" if look.error else "none of the 5 % was left"
    runs = f"{counted(look.runs, 'run')} x " if look.runs > 1 else ""
    return f"{'pilot, ' * look.pilot}{runs}{counted(look.finetuning_seeds, 'seed')}: {said} ({spent})"
