"""How often the forecasts cover the truth, before and after the rule on backtests, in worlds whose future is known.

    python benchmarks/forecasting.py --simulations 200
    python benchmarks/forecasting.py --simulations 200 --only "second step" --budgets 6
    git show ee62c21:gap/measures/forecast.py > before.py
    python benchmarks/forecasting.py --simulations 200 --before before.py

Answers are simulated as in `benchmarks/coverage.py`; a world is the expected score over tokens. The budgets double, the
largest counts as 1, and the checkpoints at 2, 5 and 10 are simulated with the others but not shown to the forecast. The
truth is the expected score there, of this pretraining run where there is only one. `given` are the forecasts that the
report would give. The other ways are the module of an earlier checkout (`--before`) and, with `--rejected`, what was
tried: each draw takes the best member of all three families, or one of them at random, weighted by its fit.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.coverage import Floats, World, draws_of, simulate
from gap.analysis.forecasts import Forecasts, KnownCurve, forecast_curve
from gap.intervals.bootstrap import Draws, Resampling
from gap.intervals.interval import Statistic, estimate
from gap.measures.forecast import MULTIPLES, PARAMETERS, fit

Extrapolation = Callable[[list[float], list[float], Floats, Floats], Floats]  # budgets, wanted, scores, scratch


def step(tokens: Floats, middle: float, steepness: float) -> Floats:
    """A sigmoid in log-tokens, from 0 to 1."""
    share = (tokens / middle) ** steepness
    return share / (1 + share)


def doublings(tokens: Floats) -> Floats:
    """Doublings since 1/256 of the largest budget; below it 0."""
    return np.maximum(0.0, np.log2(np.maximum(tokens, 1e-9)) + 8)


CURVES: dict[str, Callable[[Floats], Floats]] = {
    "sigmoid": lambda tokens: 0.2 + 0.65 * step(tokens, 1 / 16, 1.5),
    "power law": lambda tokens: 0.2 + 0.6 * (1 - (1 + 30 * tokens) ** -0.5),
    "log-linear": lambda tokens: 0.2 + 0.05 * doublings(tokens),
    "flat, then a step": lambda tokens: 0.2 + 0.6 * step(tokens, 1.0, 2.5),
    "two steps, both seen": lambda tokens: 0.2 + 0.3 * step(tokens, 1 / 64, 2.0) + 0.3 * step(tokens, 1 / 3, 2.5),
    "second step to come": lambda tokens: 0.2 + 0.3 * step(tokens, 1 / 32, 1.5) + 0.3 * step(tokens, 4.0, 2.0),
}


@dataclass(frozen=True)
class Future(World):
    """A world whose last checkpoints lie at MULTIPLES of the largest budget; seeds of both kinds move it by a point."""

    curve: str = "sigmoid"
    pretraining_points: float = 1.0

    def expected(self, tokens: Floats) -> Floats:
        """True score after so many tokens, the largest budget being 1."""
        return np.asarray(CURVES[self.curve](np.asarray(tokens, dtype=np.float64)))


@dataclass
class Found:
    """Simulated forecasts of one world at one multiple: whether they covered, their half-width, whether they count."""

    covered: list[bool] = field(default_factory=list)
    half_width: list[float] = field(default_factory=list)

    def add(self, low: float | None, high: float | None, truth: float) -> None:
        assert low is not None
        assert high is not None
        self.covered.append(low <= truth <= high)
        self.half_width.append((high - low) / 2)


def future(curve: str, budgets: int, pretraining_points: float) -> Future:
    """The world of a curve with so many budgets, each twice the one before, and the multiples of the last."""
    known = [2.0 ** (number - budgets + 1) for number in range(budgets)]
    return Future(curve=curve, budgets=(*known, *MULTIPLES), pretraining_points=pretraining_points)


def best_member(budgets: list[float], wanted: list[float], scores: Floats, scratch: Floats) -> Floats:
    """Each draw takes the member of all three families that fits it best."""
    fits = [fit(family, budgets, scores, scratch) for family in PARAMETERS]
    best = np.argmin([one.squared_error for one in fits], axis=0)
    return np.stack([one.at(wanted) for one in fits])[best, np.arange(len(scores))]


def weighted_member(budgets: list[float], wanted: list[float], scores: Floats, scratch: Floats) -> Floats:
    """Each draw takes one of the families at random, weighted by the Bayesian information criterion of its fit."""
    if len(scores) < 100:  # the slope of the statistic, which chance would hide
        return best_member(budgets, wanted, scores, scratch)
    fits = [fit(family, budgets, scores, scratch) for family in PARAMETERS]
    size = len(budgets)
    logs = np.array([-size / 2 * np.log(one.squared_error + 1e-9) for one in fits])
    logs -= np.log(size) / 2 * np.array(list(PARAMETERS.values()))[:, None]
    weights = np.exp(logs - logs.max(axis=0))
    chance = np.random.default_rng(0).random(len(scores))
    chosen = (np.cumsum(weights / weights.sum(axis=0), axis=0) < chance).sum(axis=0).clip(max=len(fits) - 1)
    return np.stack([one.at(wanted) for one in fits])[chosen, np.arange(len(scores))]


REJECTED: dict[str, Extrapolation] = {"best member": best_member, "weighted member": weighted_member}


def known_curve(draws: Draws, world: Future) -> KnownCurve:
    """What a study knows of its world: all checkpoints but those at MULTIPLES of its largest budget."""
    budgets = world.budgets[: -len(MULTIPLES)]
    return KnownCurve(
        lambda statistic, columns, bounds: estimate(statistic, draws, bounds=bounds),
        draws.observed,
        0,
        range(1, 1 + len(budgets)),
        budgets,
    )


def studies(
    world: Future, layout: tuple[int, int], *, simulations: int, draws: int, seed: int = 0
) -> Iterator[tuple[Draws, KnownCurve, Floats]]:
    """Draws, known curve and true scores at MULTIPLES of so many simulated studies."""
    budgets = len(world.budgets) - len(MULTIPLES)
    for number in range(simulations):
        experiment = simulate(world, *layout, np.random.default_rng([seed, *layout, budgets, number]))
        drawn = draws_of(world, [experiment], Resampling(draws=draws, seed=number))
        yield drawn, known_curve(drawn, world), experiment.truth[-len(MULTIPLES) :]


def statistic_of(way: Extrapolation, known: KnownCurve, multiple: float) -> Statistic:
    """The forecast at a multiple of the largest budget as a function of all scores."""
    budgets, columns = list(known.budgets), list(known.columns)
    return lambda scores: way(budgets, [multiple], scores[:, columns], scores[:, 0])[:, 0]


def simulate_forecasts(
    curve: str,
    layout: tuple[int, int],
    budgets: int = 8,
    *,
    simulations: int,
    draws: int = 400,
    pretraining_points: float = 1.0,
    ways: dict[str, Extrapolation] | None = None,
) -> tuple[dict[str, list[Found]], list[Forecasts]]:
    """Forecasts of simulated studies: for every way, `all` and `given` what was found at each of MULTIPLES."""
    found: dict[str, list[Found]] = {way: [Found() for _ in MULTIPLES] for way in (*(ways or {}), "all", "given")}
    world, reports = future(curve, budgets, pretraining_points), []
    for drawn, known, truth in studies(world, layout, simulations=simulations, draws=draws):
        reports.append(forecast_curve(known))
        given = {point.multiple: point.score for point in reports[-1].given}
        for number, multiple in enumerate(MULTIPLES):
            now = given.get(multiple) or known.expected(budgets, multiple)
            for name in ("all", *(["given"] if multiple in given else [])):
                found[name][number].add(now.low, now.high, float(truth[number]))
            for name, way in (ways or {}).items():
                other = estimate(statistic_of(way, known, multiple), drawn, bounds=(0.0, 1.0))
                found[name][number].add(other.low, other.high, float(truth[number]))
    return found, reports


def percent(values: list[float] | list[bool], digits: int = 0) -> str:
    """The mean in percent; a dash for none."""
    return f"{100 * float(np.mean(values)):.{digits}f}" if values else "-"


def row(curve: str, layout: tuple[int, int], ways: dict[str, Extrapolation], options: argparse.Namespace) -> str:
    """The row of the table for one world and layout: its cells stand under those of `header`."""
    found, reports = simulate_forecasts(
        curve,
        layout,
        options.budgets,
        simulations=options.simulations,
        draws=options.draws,
        pretraining_points=options.pretraining_points,
        ways=ways,
    )
    given = [percent([len(one.covered) / options.simulations]) for one in found["given"]]
    covered = [" ".join(percent(one.covered) for one in at) for at in found.values()]
    wide = [" ".join(percent(one.half_width, 1) for one in found[way]) for way in (*ways, "all")]
    reach: dict[int, list[float]] = {}
    for test in (test for report in reports for test in report.backtests):
        assert test.low is not None
        assert test.high is not None
        reach.setdefault(round(test.tokens / test.made_at_tokens), []).append((test.high - test.low) / 2)
    tested = ", ".join(f"{multiple}x {percent(reach[multiple])}" for multiple in sorted(reach))
    return f"| {' | '.join([curve, f'{layout[0]} x {layout[1]}', *covered, ' '.join(given), *wide, tested])} |"


def header(ways: dict[str, Extrapolation]) -> str:
    """The first two lines of the table."""
    covered = [f"covered: {way}" for way in (*ways, "now", "now, where given")]
    wide = [f"half-width: {way}" for way in (*ways, "now", "backtests")]
    cells = ["world", "seeds", *covered, "given", *wide]
    return f"| {' | '.join(cells)} |\n{'|---' * len(cells)}|"


def earlier(path: str) -> Extrapolation:
    """`forecast` of an earlier checkout's gap/measures/forecast.py."""
    name = "earlier_forecast"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise SystemExit(f"--before is {path}: it must be a forecast.py of an earlier checkout; see --help")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    if not hasattr(module, "forecast"):
        raise SystemExit(f"--before is {path}: it has no function forecast; take the one of commit ee62c21")
    function: Extrapolation = module.forecast
    return function


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=20)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--budgets", type=int, default=8)
    parser.add_argument("--only", default="", help="only worlds whose name holds this")
    parser.add_argument("--layouts", default="1x3,1x5,3x3", help="pretraining x fine-tuning seeds")
    parser.add_argument("--pretraining_points", type=float, default=1.0, help="spread of the pretraining seeds")
    parser.add_argument("--before", default="", help="forecast.py of an earlier checkout, to compare with")
    parser.add_argument("--rejected", action="store_true", help="the ways that were tried and rejected too")
    options = parser.parse_args()
    layouts = [tuple(int(count) for count in layout.split("x")) for layout in options.layouts.split(",")]
    ways = {**({"before": earlier(options.before)} if options.before else {}), **(REJECTED if options.rejected else {})}
    print(f"{options.budgets} budgets; at {', '.join(f'{multiple:g}x' for multiple in MULTIPLES)}, in percent:\n")
    print(header(ways), flush=True)
    for curve in (name for name in CURVES if options.only in name):
        for pretraining, finetuning in layouts:
            print(row(curve, (pretraining, finetuning), ways, options), flush=True)


if __name__ == "__main__":
    main()
