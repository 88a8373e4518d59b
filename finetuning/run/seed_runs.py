"""Runs of several seeds: a folder per seed, the mean, median and spread of every score, and overlaid curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from finetuning.examples.predictions import write_finite_json
from finetuning.examples.recipe import RecipeOptions
from finetuning.loop.result import SCHEMA_VERSION
from finetuning.run.figures import draw_curves
from finetuning.run.finished import RESULTS_NAME, read_results
from runtime.processes.collectives import on_main
from runtime.processes.ranks import Ranks

SCORES = ("eval_", "test_")
SUMMED = ("seconds", "train_seconds", "evaluation_seconds")
AVERAGED = ("train_samples_per_second", "evaluation_samples_per_second")


def run_seeds(
    options: RecipeOptions,
    directory: Path,
    name: str,
    run: Callable[[RecipeOptions], Mapping[str, Any]],
    ranks: Ranks,
    *,
    stages: Sequence[str] = ("",),
) -> list[dict[str, Any]]:
    """`run` once per seed of --seeds, in `directory`/seed-N, or with one seed in `directory` itself; all ranks call it.

    Returns each seed's all_results.json. Of several seeds the main rank writes a summary under that name in `directory`
    and overlays their curves, one picture for each of `stages` (folders of a run with a journal). Seeds that were
    finished before are read. Raises ValueError where `directory` holds a single run.
    """
    seeds = options.seeds or [options.seed]
    options = replace(options, seeds=[])
    if len(seeds) == 1:
        return [dict(run(replace(options, seed=seeds[0], output_dir=str(directory))))]
    again = options.resume_from_checkpoint == "false"
    on_main(lambda: refuse_single_run(directory, again=again), ranks, "looking at its results")
    places = {seed: directory / f"seed-{seed}" for seed in seeds}
    results = [dict(run(replace(options, seed=seed, output_dir=str(place)))) for seed, place in places.items()]
    if ranks.is_main:
        overlay_curves(places, directory, name, stages)
        write_finite_json(directory / RESULTS_NAME, seed_summary(seeds, results))
        print(seed_table(f"{name} in {directory}: {len(seeds)} seeds", seeds, results), flush=True)
    return results


def refuse_single_run(directory: Path, *, again: bool) -> None:
    """ValueError where all_results.json is that of one run, which the summary would replace; `again` drops it."""
    if again:
        (directory / RESULTS_NAME).unlink(missing_ok=True)
    elif (directory / RESULTS_NAME).is_file() and "seeds" not in read_results(directory):
        raise ValueError(
            f"{directory} holds the results of a run of one seed: choose another --output_dir for --seeds, remove it, "
            "or drop them with --resume_from_checkpoint false"
        )


def seed_summary(seeds: Sequence[int], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The flat content of all_results.json over seeds: of each score the mean, _median, _sd and _by_seed (a list).

    Collapsed seeds count; a score that a seed lacks (not finite) does not, and is null in the list.
    """
    failed = [(seed, result) for seed, result in zip(seeds, results, strict=True) if result["status"] != "done"]
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": failed[0][1]["status"] if failed else "done",
        "reason": "; ".join(f"seed {seed}: {result.get('reason') or result['status']}" for seed, result in failed)
        or None,
        "metric": results[0]["metric"],
        "seeds": list(seeds),
        "failed_seeds": [seed for seed, _ in failed],
    }
    for score in scores_of(results):
        values = _values(results, score)
        mean, median, deviation = spread(values)
        summary |= {score: mean, f"{score}_median": median, f"{score}_sd": deviation, f"{score}_by_seed": list(values)}
    summary |= {name: float(np.nansum(_values(results, name))) for name in SUMMED if name in results[0]}
    summary |= {name: spread(_values(results, name))[0] for name in AVERAGED if name in results[0]}
    kept = ("preflight_", "model", "from_scratch")
    return summary | {name: value for name, value in results[0].items() if name.startswith(kept)}


def scores_of(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the scores that any seed has as a number, in their order."""
    names = dict.fromkeys(name for result in results for name in result if name.startswith(SCORES))
    return [name for name in names if np.isfinite(_values(results, name)).any()]


def spread(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, median and standard deviation (n - 1) of the numbers among the values; NaN where there are too few."""
    numbers = values[np.isfinite(values)]
    if not len(numbers):
        return float("nan"), float("nan"), float("nan")
    deviation = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
    return float(numbers.mean()), float(np.median(numbers)), deviation


def seed_table(title: str, seeds: Sequence[int], results: Sequence[Mapping[str, Any]]) -> str:
    """A table of scores over seeds: one line per score with mean, median, sd and every seed."""
    names = scores_of(results)
    width = max((len(name) for name in names), default=0)
    heads = ["mean", "median", "sd", *(f"seed {seed}" for seed in seeds)]
    lines = [title, "-" * len(title), " " * width + "".join(f"  {head:>10}" for head in heads)]
    for name in names:
        values = _values(results, name)
        shown = ["-" if np.isnan(value) else f"{value:.4f}" for value in (*spread(values), *values)]
        lines.append(f"{name:<{width}}" + "".join(f"  {value:>10}" for value in shown))
    for seed, result in zip(seeds, results, strict=True):
        if result["status"] != "done":
            lines.append(
                f"FAILED ({result['status']}) seed {seed}: {result.get('reason') or 'see its all_results.json'}"
            )
    return "\n".join(lines)


def overlay_curves(places: Mapping[int, Path], directory: Path, name: str, stages: Sequence[str]) -> None:
    """curves.png, or curves_STAGE.png, with a line for each seed that made updates."""
    for stage in stages:
        runs = {f"seed {seed}": place / stage for seed, place in places.items()}
        results = {label: read_results(place) for label, place in runs.items()}
        drawn = {label: place for label, place in runs.items() if results[label].get("updates")}
        if drawn:
            title = f"{name}{stage and f', {stage}'}, {len(drawn)} seeds"
            metric = str(results[next(iter(drawn))]["metric"])
            draw_curves(drawn, directory / f"curves{stage and f'_{stage}'}.png", title=title, metric=metric)


def _values(results: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """[number of seeds]; NaN where a seed has none."""
    values = [result.get(name) for result in results]
    return np.array([float(value) if isinstance(value, int | float) else np.nan for value in values])
