"""Time and memory of the multi-bootstrap at the size it was made for.

    python benchmarks/bootstrap.py

10,000 draws over 8 budgets x 5 pretraining seeds x 5 fine-tuning seeds x 10,000 examples, then the interval of every
score and of the crossing of half the gap.
"""

from __future__ import annotations

import resource
import time

import numpy as np

from gap.intervals.bootstrap import Resampling, resample
from gap.intervals.interval import quantiles, statistic_draws
from gap.intervals.variance import Floats, SeedGrid
from gap.measures.curve import MonotoneCurve, gap_closed

BUDGETS, SEEDS, EXAMPLES, DRAWS = 8, 5, 10_000, 10_000


def main() -> None:
    random = np.random.default_rng(0)
    chances = np.linspace(0.2, 0.9, BUDGETS).repeat(SEEDS * SEEDS)
    answers = (random.random((len(chances), EXAMPLES), dtype=np.float32) < chances[:, None]).astype(np.float32)
    size = SEEDS * SEEDS
    seeds = tuple(range(SEEDS))
    grids = [SeedGrid(seeds, seeds, tuple(range(one * size, (one + 1) * size))) for one in range(BUDGETS)]
    start = time.perf_counter()
    draws = resample(
        grids,
        answers.mean(axis=1, dtype=np.float64),
        lambda weights: (weights @ answers.T / weights.sum(axis=1, keepdims=True)).astype(np.float64),
        num_clusters=EXAMPLES,
        resampling=Resampling(draws=DRAWS),
        units=list(answers.reshape(BUDGETS, SEEDS, SEEDS, EXAMPLES)),
    )
    resampled = time.perf_counter() - start
    tokens = 1e5 * 2.0 ** np.arange(1, BUDGETS)

    def half(scores: Floats) -> Floats:
        return MonotoneCurve.fit(tokens, gap_closed(scores[:, 1:], scores[:, 0], scores[:, -1])).crossing(0.5)

    for column in range(BUDGETS):
        quantiles(statistic_draws(lambda scores, column=column: scores[:, column], draws), 0.95)
    low, high = quantiles(statistic_draws(half, draws), 0.95)
    total = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{DRAWS} draws: {resampled:.1f} s; with 9 intervals {total:.1f} s; peak memory {peak:.2f} GB")
    print(f"half the gap between 10^{low:.3f} and 10^{high:.3f} tokens")


if __name__ == "__main__":
    main()
