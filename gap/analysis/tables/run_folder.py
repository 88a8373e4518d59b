"""Reading a finished run's folder: its scores and their provenance, for another analysis."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gap.analysis.tables.costs import Prices
from gap.cells.job_list import LIST_NAME, SCORES_NAME, read_jobs
from gap.intervals.spending import ERROR, SeedLook
from pretraining.checkpoints.series import SERIES_NAME, SeriesEntry, finite_figures
from runtime.files.schemas import Count, Items, Name, Number, Schema, read_object
from runtime.files.whole_files import write_json

SCHEMA_VERSION = 1
STUDY_NAME = "study.json"
REMEDY = "run launch/gap.py again, which writes the file"


@dataclass(frozen=True)
class RunSource:
    """One run: its scores.jsonl, its checkpoints where they are known, and the data of its first report."""

    name: str
    scores: Path
    series: Path | Sequence[Mapping[str, Any]] | None = None  # series.json, or the checkpoints in study.json
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prices: Prices = field(default_factory=Prices)
    planned: frozenset[str] | None = None  # fingerprints of the cells that belong to the run; None: unknown, all
    resolve: float | None = None  # the difference that the seeds were planned for
    made: Mapping[str, str] = field(default_factory=dict)
    looks: tuple[SeedLook, ...] = ()

    @property
    def confidence(self) -> float:
        """Of the intervals of the last look: 95 %, less where earlier looks have spent some of the error."""
        return 1 - ((self.looks[-1].error if self.looks else 0.0) or ERROR)

    @staticmethod
    def of(folder: Path) -> RunSource:
        """The run in a folder (or the folder of a scores.jsonl): with its study.json, else with a series.json."""
        scores = folder if folder.is_file() else folder / SCORES_NAME
        if not scores.is_file():
            raise ValueError(f"{folder} holds no {SCORES_NAME}: name the output folders of gap runs")
        name, study, series = scores.resolve().parent.name, scores.parent / STUDY_NAME, scores.parent / SERIES_NAME
        if not study.is_file():
            return RunSource(name, scores, series if series.is_file() else None, planned=_planned(scores.parent))
        content = read_object(study, _StudyFile, REMEDY)
        try:
            prices = Prices(
                **{name: content["prices"][name] for name in _PricesFile.model_fields if name in content["prices"]}
            )
        except ValueError as error:
            raise ValueError(f"{study}: {error}: {REMEDY}") from error
        planned = frozenset(content["cells"]) if "cells" in content else _planned(scores.parent)
        checkpoints = finite_figures(content["checkpoints"])
        commands, notes = tuple(content["commands"]), tuple(content["notes"])
        resolve, made = content.get("resolve"), dict(content.get("made", {}))
        looks = tuple(SeedLook(**look) for look in content.get("looks", []))
        return RunSource(name, scores, checkpoints, commands, notes, prices, planned, resolve, made, looks)


class _PricesFile(Schema):
    per_device_hour: Number = 0.0
    currency: Name = "$"
    devices: Count | None = None


class _SeedLookFile(Schema):
    finetuning_seeds: Count
    error: Number
    resolved: dict[str, bool]
    pilot: bool = False
    runs: Count = 1


class _StudyFile(Schema):
    """study.json; files of older versions lack the fields with a default."""

    schema_version: Literal[1]
    checkpoints: Items[SeriesEntry]
    commands: Items[str]
    notes: Items[str]
    prices: _PricesFile
    cells: Items[Name] = []  # noqa: RUF012
    resolve: Number | None = None
    made: dict[str, str] = {}  # noqa: RUF012
    looks: Items[_SeedLookFile] = []  # noqa: RUF012


def told_apart(runs: Sequence[RunSource]) -> list[RunSource]:
    """The runs under different names: as many parent folders are added as that takes (as they were if none helps)."""
    places = [run.scores.resolve().parent.parts for run in runs]
    for depth in range(1, max(map(len, places)) + 1):
        names = ["/".join(place[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
    return list(runs)


def _planned(folder: Path) -> frozenset[str] | None:
    """The cells of the list in a folder, None without a list."""
    return read_jobs(folder).cell_names() if (folder / LIST_NAME).is_file() else None


def write_study(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    planned: Collection[str],
    commands: Sequence[str],
    notes: Sequence[str],
    prices: Prices,
    resolve: float | None = None,
    made: Mapping[str, str] | None = None,
    looks: Sequence[SeedLook] = (),
) -> None:
    """Keep the checkpoints (rows of series.json, of all pretraining seeds), commands, notes and prices of a run.

    `planned` are the fingerprints of its cells: scores.jsonl may hold others from an earlier run in the same folder.
    """
    write_json(
        folder / STUDY_NAME,
        {
            "schema_version": SCHEMA_VERSION,
            "checkpoints": [dict(row) for row in rows],
            "commands": list(commands),
            "notes": list(notes),
            "prices": asdict(prices),
            "cells": sorted(planned),
            "resolve": resolve,
            "made": dict(made or {}),
            "looks": [asdict(look) for look in looks],
        },
    )


def earlier_looks(folder: Path) -> tuple[SeedLook, ...]:
    """The looks on record in a folder; none if there is no readable record."""
    try:
        return RunSource.of(folder).looks if (folder / STUDY_NAME).is_file() else ()
    except ValueError:
        return ()


def earlier_study(folder: Path, planned: Collection[str]) -> RunSource | None:
    """What the folder says of this study before, say with fewer seeds or tasks; None for a study without its cells."""
    try:
        before = RunSource.of(folder) if (folder / STUDY_NAME).is_file() else None
    except ValueError:
        return None  # damaged: it is rewritten
    return before if before is not None and set(planned) & (before.planned or set()) else None
