"""The runs below a folder, recognised by the files that they leave."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from gap.watch.readers.finetuning_run import FinetuningReader
from gap.watch.readers.pretraining_run import PretrainingReader
from gap.watch.readers.shard_build import BuildReader
from gap.watch.readers.study_run import StudyReader
from gap.watch.readers.sweep_run import SweepReader
from gap.watch.view import RunView

DEEPEST, MOST_FOLDERS, MOST_ENTRIES, MOST_RUNS = 8, 20_000, 5_000, 1_000
# Folders inside a run that hold no run; one with such a name elsewhere is looked into.
INNER = frozenset(
    (
        *("checkpoints", "series", "predictions", "claims", "contamination", "figures", "tensorboard", "mlruns"),
        *("building", "best", "state", "cells", "slurm", "wandb", "tokenizer", "mlflow", "profile"),
    )
)
OF_PRETRAINING = frozenset(("run.lock", "journal.jsonl", "checkpoints"))  # run.json may be another program's
NEVER = frozenset(("node_modules", "__pycache__", "site-packages"))


class RunReader(Protocol):
    """What reads one run again and again."""

    def view(self) -> RunView:
        """The run as it stands."""


ReaderOf = Callable[[Path, str], RunReader]  # of a folder and its name


def reader_of(names: frozenset[str]) -> ReaderOf | None:
    """The kind of run whose folder has these entries; None for a folder that is no run."""
    if names & {"cells.json", "scores.jsonl", "study.json"}:
        return StudyReader
    if "sweep.log" in names:
        return SweepReader
    if "series.json" in names or ("run.json" in names and names & OF_PRETRAINING):
        return PretrainingReader
    if "building" in names or {"manifest.json", "tokenizer"} <= names:
        return BuildReader
    if names & {"all_results.json", "journal.jsonl"}:
        return FinetuningReader
    return None


def find_runs(root: Path) -> tuple[dict[Path, ReaderOf], bool]:
    """Folder -> its reader, for the root and what lies below it; and whether there are more than were looked at.

    Links to folders are followed, each folder once. Hidden folders and virtual environments are left out.
    """
    found: dict[Path, ReaderOf] = {}
    seen: set[tuple[int, int]] = set()
    is_cut = False
    for number, (folder, names) in enumerate(_folders(root, seen)):
        if number >= MOST_FOLDERS or len(found) >= MOST_RUNS:
            return found, True
        is_cut = is_cut or len(names) >= MOST_ENTRIES
        reader = reader_of(names)
        if reader is not None:
            found[folder] = reader
    return found, is_cut


def _folders(root: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, frozenset[str]]]:
    """Folders and the names in them, those above first, each level in the order of its names."""
    level = [root]
    for _ in range(DEEPEST):
        below: list[Path] = []
        for folder in level:
            names, folders = _listing(folder, seen)
            if "pyvenv.cfg" in names:
                continue
            yield folder, names
            is_run = reader_of(names) is not None
            below += [folder / name for name in folders if not (is_run and name in INNER) and name not in NEVER]
        level = below


def _listing(folder: Path, seen: set[tuple[int, int]]) -> tuple[frozenset[str], list[str]]:
    """Up to MOST_ENTRIES names in a folder, and those of the folders in it; nothing the second time, or where it cannot
    be read."""
    names, folders = [], []
    try:
        state = folder.stat()
        if (state.st_dev, state.st_ino) in seen:
            return frozenset(), []
        seen.add((state.st_dev, state.st_ino))
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= MOST_ENTRIES:
                    break
                names.append(entry.name)
                with suppress(OSError):  # a link to itself, or to what lies behind a folder that is not ours to read
                    if not entry.name.startswith(".") and entry.is_dir():
                        folders.append(entry.name)
    except OSError:
        pass  # it is gone, or not ours to read
    return frozenset(names), sorted(folders)


def place_of(root: Path, folder: Path) -> str:
    """How a run is named: its path below the root, and for the root itself its own name."""
    relative = folder.relative_to(root).as_posix()
    return relative if relative != "." else folder.resolve().name or str(folder)
