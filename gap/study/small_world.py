"""The pretraining runs on the embedded small world, which `launch/gap.py` makes if no series is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gap.cells.plan import CellSource
from gap.study.experiment import UNKNOWN
from gap.study.options import GapOptions
from pretraining.api import pretrain
from pretraining.loop.training_data import SMALL_WORLD_VOCABULARY
from pretraining.model.configuration import configuration_from, fit_to_data, named_configuration, parse_overrides
from pretraining.plan.options import PretrainingOptions, with_defaults
from pretraining.plan.segments import parse_series
from pretraining.replaced_options import REPLACED_OPTIONS
from runtime.options.command_line import parse_text


def series_paths(options: GapOptions) -> list[Path]:
    """The series files: the named ones, or those of the small world's runs."""
    if options.series is not None:
        paths = [Path(part.strip()) for part in options.series.split(",") if part.strip()]
        return [path / "series.json" if path.is_dir() else path for path in paths]
    root = Path(options.output_dir) / "pretraining"
    return [root / f"seed-{seed}" / "series.json" for seed in range(options.pretraining_seeds or 1)]


def pretraining_runs(options: GapOptions) -> list[PretrainingOptions]:
    """The runs that make the series, defaults filled in, one per seed from --seed on; none for a named series.

    With `full`, the last is a run for a middle budget alone, with which the annealed branch is compared.
    Raises ValueError for what --pretraining cannot set: a folder, a dry run.
    """
    if options.series is not None:
        return []
    text = f"--output_dir '' --report_to none {options.pretraining}"  # later options override earlier ones
    given = parse_text(PretrainingOptions, text, option="--pretraining", replaced=REPLACED_OPTIONS.get)
    if given.output_dir or given.dry_run:
        idle = f"--output_dir {given.output_dir}" if given.output_dir else "--dry_run"
        raise ValueError(f"--pretraining: {idle} has no effect there: give it to launch/gap.py itself")
    places = [path.parent for path in series_paths(options)]
    runs = [
        with_defaults(replace(given, output_dir=str(place), seed=given.seed + number))
        for number, place in enumerate(places)
    ]
    if options.full and options.independent_run is not None:
        budgets = budgets_of(runs[0])
        own: dict[str, Any] = {"budget_tokens": budgets[len(budgets) // 2], "series": "0"}
        place = str(options.independent_run.parent)
        # A seed that no run of the series has, else it would repeat the series' own branch.
        runs.append(with_defaults(replace(given, output_dir=place, seed=given.seed + len(runs), **own)))
    return runs


def pretrain_series(runs: Sequence[PretrainingOptions]) -> None:
    """Make the series, run by run; finished runs are kept. Every rank calls it."""
    for run in runs:
        pretrain(run)


def budgets_of(run: PretrainingOptions) -> tuple[float, ...]:
    """The budgets that a run's series will have, in tokens."""
    return parse_series(str(run.series), float(run.budget_tokens or 0), run.series_ratio)


def expected_sources(options: GapOptions, runs: Sequence[PretrainingOptions]) -> list[CellSource]:
    """The checkpoints that the series will have, for a plan before the series exists."""
    sources = []
    if runs and runs[0].model_name_or_path:
        sources.append(CellSource(UNKNOWN, "start", 0, runs[0].seed))
    for run in runs[: len(series_paths(options))]:
        sources.append(CellSource(UNKNOWN, "raw", 0, run.seed))
        sources += [
            CellSource(UNKNOWN, kind, round(budget), run.seed)
            for budget in budgets_of(run)
            for kind in options.kind_names
        ]
    return [*sources, *expected_own_run(options, runs)]


def expected_own_run(options: GapOptions, runs: Sequence[PretrainingOptions]) -> list[CellSource]:
    """The control run that `full` adds: a middle budget alone, with a different seed."""
    own = runs[len(series_paths(options)) :]
    return [
        CellSource(UNKNOWN, "annealed", round(float(run.budget_tokens or 0)), run.seed, control="independent_run")
        for run in own
    ]


def expected_config(run: PretrainingOptions) -> Any:
    """The configuration of the model that will be pretrained, to time it."""
    if run.model_name_or_path:
        return configuration_from(run.model_name_or_path)
    config = named_configuration(str(run.model), parse_overrides(run.config_overrides))
    special = {name: number for number, name in enumerate(("pad", "unk", "cls", "sep", "mask"))}
    length = int(run.max_seq_length or 128)
    fit_to_data(config, vocab_size=SMALL_WORLD_VOCABULARY, special_ids=special, max_seq_length=length)
    return config
