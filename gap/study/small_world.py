"""What `launch/gap.py` does without a series: the pretraining runs of the embedded small world."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from gap.cells.plan import Source
from gap.study.experiment import UNKNOWN
from gap.study.options import GapOptions
from pretraining.loop.training_data import SMALL_WORLD_VOCABULARY
from pretraining.model.configuration import fit_to_data, named_configuration, parse_overrides
from pretraining.plan.options import PretrainingOptions, with_defaults
from pretraining.plan.segments import parse_series
from runtime.options.command_line import parse_options


def series_paths(options: GapOptions) -> list[Path]:
    """The series files: those that were named, or those of the small world's runs."""
    if options.series is not None:
        paths = [Path(part.strip()) for part in options.series.split(",") if part.strip()]
        return [path / "series.json" if path.is_dir() else path for path in paths]
    root = Path(options.output_dir) / "pretraining"
    return [root / f"seed-{seed}" / "series.json" for seed in range(options.pretraining_seeds or 1)]


def pretraining_arguments(options: GapOptions) -> list[list[str]]:
    """The command lines of launch/pretrain.py that make the series; none for a named one.

    With `full` the last is a run of a middle budget by itself: is its annealed branch a fair stand-in for that?
    """
    if options.series is not None:
        return []
    more = ["--report_to", "none", *shlex.split(options.pretraining)]
    found = [
        ["--output_dir", str(path.parent), "--seed", str(seed), *more]
        for seed, path in enumerate(series_paths(options))
    ]
    if options.full and options.independent_run is not None:
        budgets = budgets_of(options)
        middle = budgets[len(budgets) // 2]
        own = ["--budget_tokens", repr(middle), "--series", "0"]
        seed = str(len(found))  # one that no run of the series has, or it would be the series' own branch once more
        found.append(["--output_dir", str(options.independent_run.parent), "--seed", seed, *more, *own])
    return found


def pretraining_options(options: GapOptions) -> PretrainingOptions:
    """The options of the first run, defaults filled in."""
    return with_defaults(parse_options(PretrainingOptions, pretraining_arguments_of(options)))


def pretraining_arguments_of(options: GapOptions) -> list[str]:
    """Only what the user gave for pretraining."""
    return shlex.split(options.pretraining)


def budgets_of(options: GapOptions) -> tuple[float, ...]:
    """The budgets that the series will have, in tokens."""
    own = pretraining_options(options)
    return parse_series(str(own.series), float(own.budget_tokens or 0), own.series_ratio)


def expected_sources(options: GapOptions) -> list[Source]:
    """The checkpoints that the series will have, for a plan before there is one."""
    sources = []
    for seed in range(options.pretraining_seeds or 1):
        sources.append(Source(UNKNOWN, "raw", 0, seed))
        sources += [
            Source(UNKNOWN, kind, round(budget), seed) for budget in budgets_of(options) for kind in options.kind_names
        ]
    return [*sources, *expected_own_run(options)]


def expected_own_run(options: GapOptions) -> list[Source]:
    """The control run that `full` adds: a middle budget by itself, with a seed of its own."""
    if options.series is not None or not options.full or options.independent_run is None:
        return []
    budgets = budgets_of(options)
    middle, seed = round(budgets[len(budgets) // 2]), options.pretraining_seeds or 1
    return [Source(UNKNOWN, "annealed", middle, seed, control="independent_run")]


def expected_config(options: GapOptions) -> Any:
    """The shape of the model that will be pretrained, to time it."""
    own = pretraining_options(options)
    config = named_configuration(str(own.model), parse_overrides(own.config_overrides))
    special = {name: number for number, name in enumerate(("pad", "unk", "cls", "sep", "mask"))}
    length = int(own.max_seq_length or 128)
    fit_to_data(config, vocab_size=SMALL_WORLD_VOCABULARY, special_ids=special, max_seq_length=length)
    return config
