"""The sweep file (YAML): rows of options times seeds, each cell with its own directory."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finetuning.examples.recipe import MODEL_PLACE, SET_BY_A_SWEEP
from finetuning.run.option_checks import RECIPES, options_class
from finetuning.run.replaced_options import replaced_option
from finetuning.sweep.metric import require_known_metric
from finetuning.sweep.options import (
    Options,
    full_rows,
    is_data_folder,
    state_of,
)
from runtime.files.unique_keys import parse_yaml
from runtime.model_places import is_elsewhere
from runtime.options.command_line import answers, explain_all_unknown, explain_unknown
from runtime.options.declaration import declarations, names_marked

KEYS = ("recipe", "base", "grid", "list", "seeds", "baseline", "metric")
LARGEST_FILE_BYTES = 1 << 20
MOST_CELLS = 10_000
LARGEST_TABLE = 64_000_000  # characters of all cells' options
TASK = "task_name"  # of GLUE: scores of different tasks are never compared


@dataclass(frozen=True)
class SweepCell:
    """One run: a row's options and a seed; the fingerprint of all that decides it names its directory."""

    row: int
    seed: int
    options: Mapping[str, Any]  # those on its command line: from the file, the model and the seed
    fingerprint: str
    files: Mapping[str, str] = field(default_factory=dict)  # named files and checkpoints -> `state_of` when it was made


@dataclass(frozen=True)
class Sweep:
    """Rows (all options of the recipe but the seed, defaults filled in) and their cells."""

    recipe: str
    rows: tuple[Mapping[str, Any], ...]
    seeds: tuple[int, ...]
    baseline: int  # number of the row that the others are compared with
    metric: str | None  # a validation score in all_results.json; None: the recipe's own
    cells: tuple[SweepCell, ...]

    @property
    def varied(self) -> list[str]:
        """Options that differ between rows, in the order of the file."""
        return [name for name in self.rows[0] if len({json.dumps(row[name]) for row in self.rows}) > 1]

    def cell_text(self, cell: SweepCell) -> str:
        """A cell as text: the options that vary and the seed."""
        return ", ".join([*self._varied_of(cell.row), f"seed={cell.seed}"])

    def setting(self, row: int) -> str:
        """A row as text."""
        return ", ".join(self._varied_of(row)) or self.recipe

    def _varied_of(self, row: int) -> list[str]:
        return [f"{name}={self.rows[row][name]}" for name in self.varied]

    def reference(self, row: int) -> int:
        """The row that a row is compared with: the baseline, with its options on the same task where tasks vary."""
        wanted = {**self.rows[self.baseline], TASK: self.rows[row].get(TASK)}
        names = [name for name in self.varied if name != TASK]
        same_task = [number for number, options in enumerate(self.rows) if options.get(TASK) == wanted[TASK]]
        return next(
            (number for number in same_task if all(self.rows[number][name] == wanted[name] for name in names)),
            same_task[0],
        )

    def changes(self, row: int) -> dict[str, Any]:
        """Options in which a row differs from its reference; the effects of several cannot be separated."""
        reference = self.rows[self.reference(row)]
        return {name: self.rows[row][name] for name in self.varied if self.rows[row][name] != reference[name]}


def read_sweep(path: str | Path) -> Sweep:
    """Parse and check a sweep file; relative paths in it are relative to the working directory.

    Raises ValueError for a malformed file, a repeated key, an unknown key or option (naming the nearest known one)
    and repeated rows.
    """
    where = Path(path)
    if not where.is_file():
        reason = "not a regular file" if where.exists() else "no such file"
        raise ValueError(f"{where}: {reason}; give a YAML file as docs/sweep.md shows")
    if where.stat().st_size > LARGEST_FILE_BYTES:
        raise ValueError(f"{where}: {where.stat().st_size} bytes; a sweep file has at most {LARGEST_FILE_BYTES}")
    try:
        content = parse_yaml(where.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not readable as YAML ({error}); correct the file") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where}: holds a {type(content).__name__}; it must map {', '.join(KEYS)} to values")
    return make_sweep(content, source=str(where))


def make_sweep(content: Mapping[str, Any], *, source: str = "sweep") -> Sweep:
    """The same from the parsed mapping: `recipe`, `base`, and `grid` (option -> values) or `list` (of options)."""
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown:
        raise ValueError(f"{source}: {explain_all_unknown(unknown, KEYS)}")
    recipe = content.get("recipe")
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ValueError(f"{source}: recipe is {recipe!r}; it must be one of {', '.join(RECIPES)}")
    metric = require_known_metric(content.get("metric"), recipe, source)
    given, seeds = _rows(content, _mapping(content.get("base") or {}, f"{source}: base"), source)
    _check_names(recipe, given, source)
    rows = full_rows(recipe, given, source)
    _refuse_doubles(rows, given, source)
    baseline = _baseline(content.get("baseline"), recipe, rows, source)
    models = names_marked(options_class(recipe), MODEL_PLACE)
    texts = {(name, value) for row in rows for name, value in row.items() if isinstance(value, str)}
    named = {value for name, value in texts if name in models or not is_elsewhere(value)}
    states = {value: state_of(value) for value in named}
    # Readers may leave their caches in a folder of data: the sweep does not stop for that.
    fixed = {value: state for value, state in states.items() if state is not None and not is_data_folder(value)}
    cells = tuple(
        SweepCell(
            number,
            seed,
            _told_to_cell(row, given[number], seed),
            fingerprint(recipe, {**row, "seed": seed}, states),
            {value: fixed[value] for value in row.values() if isinstance(value, str) and value in fixed},
        )
        for number, row in enumerate(rows)
        for seed in seeds
    )
    return Sweep(recipe, tuple(rows), tuple(seeds), baseline, metric, cells)


def fingerprint(recipe: str, options: Mapping[str, Any], states: Mapping[str, str | None]) -> str:
    """sha256 of the recipe, the options, and the content of every file or folder that they name."""
    named = {str(value): states[value] for value in options.values() if isinstance(value, str) and states.get(value)}
    text = json.dumps([recipe, dict(options), named], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _told_to_cell(row: Mapping[str, Any], given: Mapping[str, Any], seed: int) -> Options:
    """The file's options and the model, fixed now: a default pretraining run still going would change it later."""
    return {name: row[name] for name in row if name in given or name == "model_name_or_path"} | {"seed": seed}


def _rows(content: Mapping[str, Any], base: Options, source: str) -> tuple[list[Options], list[int]]:
    grid = _mapping(content.get("grid") or {}, f"{source}: grid")
    listed = content.get("list") or [{}]
    if not isinstance(listed, list):
        raise ValueError(f"{source}: list is a {type(listed).__name__}; it must be a list of {{option: value}}")
    axes = {name: values if isinstance(values, list) else [values] for name, values in grid.items()}
    empty = [name for name, values in axes.items() if not values]
    if empty:
        raise ValueError(f"{source}: grid.{empty[0]} has no values; give at least one")
    seeds = content.get("seeds") or axes.pop("seed", None) or [base.get("seed", 42)]
    if not isinstance(seeds, list) or any(isinstance(seed, bool) or not isinstance(seed, int) for seed in seeds):
        raise ValueError(f"{source}: seeds is {seeds!r}; it must be a list of integers, such as [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{source}: seeds {seeds} repeat; name each once")
    fixed = {name: value for name, value in base.items() if name != "seed"}
    cells = len(listed) * math.prod(map(len, axes.values())) * len(seeds)
    if cells > MOST_CELLS:
        raise ValueError(f"{source}: {cells:,} cells, more than {MOST_CELLS:,}; split the sweep")
    longest = len(str(fixed)) + sum(map(_longest, axes.values())) + _longest(listed)
    if cells * longest > LARGEST_TABLE:
        raise ValueError(
            f"{source}: {cells:,} cells with options of up to {longest:,} characters; shorten the values or split it"
        )
    rows = [
        {**fixed, **dict(zip(axes, values, strict=True)), **_mapping(options, f"{source}: list")}
        for options in listed
        for values in itertools.product(*axes.values())
    ]
    return rows, seeds


def _longest(values: Iterable[Any]) -> int:
    """Characters of the longest value."""
    return max((len(str(value)) for value in values), default=0)


def _baseline(asked: Any, recipe: str, rows: Sequence[Options], source: str) -> int:
    if asked is None:
        return 0
    wanted = _mapping(asked, f"{source}: baseline")
    _check_names(recipe, [wanted], f"{source}: baseline")
    typed = full_rows(recipe, [{**rows[0], **wanted}], f"{source}: baseline")[0]
    matches = [number for number, row in enumerate(rows) if all(row[name] == typed[name] for name in wanted)]
    if len(matches) != 1:
        raise ValueError(
            f"{source}: baseline {wanted} matches {len(matches)} rows; name the options that select a single row"
        )
    return matches[0]


def _refuse_doubles(rows: Sequence[Options], given: Sequence[Options], source: str) -> None:
    """ValueError for two rows that are equal once the defaults are filled in, quoted as in the file."""
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        before = first.setdefault(json.dumps(row, sort_keys=True), number)
        if before != number:
            raise ValueError(
                f"{source}: rows {before + 1} ({_shown(given[before])}) and {number + 1} ({_shown(given[number])}) are "
                "the same run, since an omitted option takes its default; keep one"
            )


def _check_names(recipe: str, rows: Sequence[Options], source: str) -> None:
    cls = options_class(recipe)
    known, answer = list(declarations(cls)), answers(cls, replaced_option)
    for name in dict.fromkeys(name for row in rows for name in row):
        if name in names_marked(cls, SET_BY_A_SWEEP):
            raise ValueError(
                f"{source}: {name} cannot be set by a row: the sweep sets it or leaves it out (seeds go under `seeds`; "
                "push a cell's folder with launch/push.py)"
            )
        if name not in known:
            raise ValueError(f"{source}: {explain_unknown(str(name), known, answer)}")
    for row in rows:
        for name, value in row.items():
            if isinstance(value, dict) or (isinstance(value, str) and not value):
                raise ValueError(f"{source}: {name} is {value!r}; it must be a number, a word, true, false or a list")


def _mapping(value: Any, where: str) -> Options:
    if not isinstance(value, dict) or any(not isinstance(name, str) for name in value):
        raise ValueError(f"{where} is {value!r}; it must map option names to values")
    return dict(value)


def _shown(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items()) or "the recipe's defaults"
