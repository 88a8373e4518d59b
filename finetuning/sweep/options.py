"""The full options of a sweep's rows, typed and with all defaults, and digests of the files they name."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetuning.examples.recipe import MODEL_PLACE, PATH, PATH_OR_HUB_NAME, SET_BY_A_SWEEP, FinetuningOptions
from finetuning.recipes.choices.chain import second_stage_options
from finetuning.run.command import for_small_world
from finetuning.run.option_checks import check_options, options_class
from finetuning.run.starting_point import model_name
from pretraining.model.source.weights import checkpoint_digest
from runtime.files.whole_files import sha256_of
from runtime.hub import is_missing_path
from runtime.model_places import is_elsewhere, model_place
from runtime.options.command_line import OptionParser, as_arguments, options_from
from runtime.options.declaration import declarations, names_marked
from shards.small_world.world import TASKS

Options = dict[str, Any]


def full_rows(recipe: str, rows: Sequence[Mapping[str, Any]], source: str) -> list[Options]:
    """Every row with all the options of the recipe, those that any row names first; the model is always named.

    Raises ValueError, naming the row and the option, for a value that the recipe would refuse before it reads its data,
    for a path that does not exist, for a GLUE row of several tasks, and when neither a row nor a pretraining run names
    a model.
    """
    parser = OptionParser(options_class(recipe), exit_on_error=False)
    named = list(dict.fromkeys(name for row in rows for name in row))
    full = []
    for row, place in zip(rows, _places(rows, source), strict=True):
        try:
            full.append(_full_row(recipe, parser, row, named))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    return full


def state_of(name: str) -> str | None:
    """A hash of the content at a path or of a model elsewhere, independent of its name; None if there is nothing.

    For a checkpoint: its configuration, weights and tokenizer; for any other folder: all of its files.
    """
    path = Path(model_place(name)).expanduser()
    try:
        if path.is_file():
            return sha256_of(path)
        if not path.is_dir():
            return None
        if (path / "config.json").is_file():
            return checkpoint_digest(path, "all")
        return _folder_digest(path)
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error}); check its permissions") from error


def is_data_folder(name: str) -> bool:
    """Whether a path is a folder but not a checkpoint."""
    path = Path(name).expanduser()
    return path.is_dir() and not (path / "config.json").is_file()


def _folder_digest(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    listed = "".join(f"{file.relative_to(folder)}:{sha256_of(file)}\n" for file in files)
    return hashlib.sha256(f"\n{listed}".encode(errors="surrogateescape")).hexdigest()


def _full_row(recipe: str, parser: OptionParser, row: Mapping[str, Any], named: Sequence[str]) -> Options:
    try:
        namespace, left = parser.parse_known_args(as_arguments(row, options_class(recipe)))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if left:
        raise ValueError(f"{' '.join(left)} is left over: the option before it takes a single value")
    options = options_from(options_class(recipe), namespace)
    if recipe in TASKS:  # of the small world: other defaults where no data are named
        options = for_small_world(options)
    check_options(options)
    if getattr(options, "chain", False):
        check_options(second_stage_options(options, Path()))
    require_paths(options)
    if recipe == "glue":
        _require_one_task(options)
    values = {**asdict(options), "model_name_or_path": model_name(options)}
    kept = declarations(options).keys() - names_marked(options, SET_BY_A_SWEEP)
    return {name: values[name] for name in dict.fromkeys([*named, *values]) if name in kept}


def require_paths(options: FinetuningOptions) -> None:
    """ValueError for a file or folder that does not exist; a name that may be on the hub is not looked up."""
    for name, declared in declarations(options).items():
        value = getattr(options, name)
        if not isinstance(value, str) or Path(value).exists():
            continue
        is_name = MODEL_PLACE in declared.marks or PATH_OR_HUB_NAME in declared.marks
        if MODEL_PLACE in declared.marks and is_elsewhere(value):
            continue
        if PATH in declared.marks or (is_name and is_missing_path(value)):
            raise ValueError(f"--{name} {value}: no such file or folder; relative paths start at the working directory")


def _places(rows: Sequence[Mapping[str, Any]], source: str) -> list[str]:
    """Each row's name in errors: with several rows, its number and the options that are not the same in all."""
    if len(rows) == 1:
        return [source]
    first = rows[0]
    names = dict.fromkeys(name for row in rows for name in row)
    varied = [name for name in names if any(row.get(name) != first.get(name) for row in rows)]
    words_of_rows = [", ".join(f"{name}={row[name]}" for name in varied if name in row) for row in rows]
    return [f"{source}: row {number} ({words})" for number, words in enumerate(words_of_rows, start=1)]


def _require_one_task(options: Any) -> None:
    from finetuning.recipes.texts.glue_run import refuse_idle, require_data, tasks_of

    tasks = [task.name for task in tasks_of(options)]
    if len(tasks) > 1:
        raise ValueError(
            f"task_name {options.task_name} is {len(tasks)} tasks, and a cell of a sweep is one: write "
            f"`task_name: [{', '.join(tasks)}]` under `grid`"
        )
    refuse_idle(options, tasks_of(options))
    require_data(options, tasks_of(options))
