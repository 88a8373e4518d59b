"""A finished run in its folder: the scores, and what they were made of and with, so that it can be analysed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gap.jobs import SCORES_NAME
from gap.series import Prices
from pretraining.files import read_json, write_json

SCHEMA_VERSION = 1
STUDY_NAME = "study.json"


@dataclass(frozen=True)
class RunSource:
    """One run: its scores.jsonl, the file with its checkpoints where there is one, and what its first report said."""

    name: str
    scores: Path
    series: Path | None = None
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prices: Prices = field(default_factory=Prices)

    @staticmethod
    def of(folder: Path) -> RunSource:
        """The run in a folder (or the folder of a scores.jsonl): with its study.json, else with a series.json."""
        scores = folder if folder.is_file() else folder / SCORES_NAME
        if not scores.is_file():
            raise ValueError(f"{folder} holds no {SCORES_NAME}: name the output folders of gap runs")
        name, study, series = scores.resolve().parent.name, scores.parent / STUDY_NAME, scores.parent / "series.json"
        if not study.is_file():
            return RunSource(name, scores, series if series.is_file() else None)
        content = read_json(study)
        try:
            if content["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {content['schema_version']}, this program reads {SCHEMA_VERSION}")
            prices = Prices(**content["prices"])
            return RunSource(name, scores, study, tuple(content["commands"]), tuple(content["notes"]), prices)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{study} is no study ({error}): run launch/gap.py again, it writes the file") from error


def write_study(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    commands: Sequence[str],
    notes: Sequence[str],
    prices: Prices,
) -> None:
    """Keep the checkpoints (rows of series.json, of all pretraining seeds), commands, notes and prices of a run."""
    write_json(
        folder / STUDY_NAME,
        {
            "schema_version": SCHEMA_VERSION,
            "checkpoints": [dict(row) for row in rows],
            "commands": list(commands),
            "notes": list(notes),
            "prices": asdict(prices),
        },
    )
