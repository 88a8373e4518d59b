"""A sweep as a YAML file says it: rows of options times seeds, each cell with a directory of its own."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from finetuning.recipe import FinetuningOptions
from pretraining.files import sha256_of
from pretraining.options import explain_unknown

RECIPES = ("qa", "multiple_choice", "glue", "classification")
KEYS = ("recipe", "base", "grid", "list", "seeds", "baseline", "metric")
OWNED_BY_THE_SWEEP = ("output_dir", "resume_from_checkpoint", "seeds")
LARGEST_FILE_BYTES = 1 << 20
MOST_CELLS = 10_000
SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")

Options = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run: a row's options and a seed; the fingerprint of all that decides it names its directory."""

    row: int
    seed: int
    options: Mapping[str, Any]  # the seed included
    fingerprint: str


@dataclass(frozen=True)
class Sweep:
    """Rows (options without the seed, the baseline first unless named otherwise) and their cells."""

    recipe: str
    rows: tuple[Mapping[str, Any], ...]
    seeds: tuple[int, ...]
    baseline: int  # number of the row that the others are compared with
    metric: str | None  # of all_results.json; None: the recipe's own
    cells: tuple[Cell, ...]

    @property
    def varied(self) -> list[str]:
        """Options that differ between rows, in the order in which they first occur."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        return [name for name in names if len({json.dumps(row.get(name)) for row in self.rows}) > 1]

    def changes(self, row: int) -> dict[str, Any]:
        """Options of a row that are not the baseline's; more than one means their effects cannot be told apart."""
        reference = self.rows[self.baseline]
        return {
            name: self.rows[row].get(name) for name in self.varied if self.rows[row].get(name) != reference.get(name)
        }


def read_sweep(path: str | Path) -> Sweep:
    """Parse and check a sweep file; relative paths in it are relative to the working directory.

    Raises ValueError for a malformed file, an unknown key or option (naming the nearest right one) and repeated rows.
    """
    where = Path(path)
    if not where.is_file():
        raise ValueError(f"{where}: no such file; give a YAML file as docs/sweep.md shows")
    if where.stat().st_size > LARGEST_FILE_BYTES:
        raise ValueError(f"{where}: {where.stat().st_size} bytes; a sweep file has at most {LARGEST_FILE_BYTES}")
    try:
        content = yaml.safe_load(where.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: not readable as YAML ({error}); mend the file") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where}: holds a {type(content).__name__}; it must map {', '.join(KEYS)} to values")
    return make_sweep(content, source=str(where))


def make_sweep(content: Mapping[str, Any], *, source: str = "sweep") -> Sweep:
    """The same from the parsed mapping: `recipe`, `base`, and `grid` (option -> values) or `list` (of options)."""
    unknown = [explain_unknown(str(key), KEYS) for key in content if key not in KEYS]
    if unknown:
        raise ValueError(f"{source}: {'; '.join(unknown)}")
    recipe = content.get("recipe")
    if recipe not in RECIPES:
        raise ValueError(f"{source}: recipe is {recipe!r}; it must be one of {', '.join(RECIPES)}")
    base = _mapping(content.get("base") or {}, f"{source}: base")
    rows, seeds = _rows(content, base, source)
    _check_names(recipe, rows, source)
    repeated = [row for number, row in enumerate(rows) if row in rows[:number]]
    if repeated:
        raise ValueError(f"{source}: the row {_shown(repeated[0], base)} comes twice; keep one")
    baseline = _baseline(content.get("baseline"), rows, base, source)
    states = {value: _state_of(value) for row in rows for value in row.values() if isinstance(value, str)}
    cells = tuple(
        Cell(number, seed, {**row, "seed": seed}, fingerprint(recipe, {**row, "seed": seed}, states))
        for number, row in enumerate(rows)
        for seed in seeds
    )
    if len(cells) > MOST_CELLS:
        raise ValueError(f"{source}: {len(cells)} cells, more than {MOST_CELLS}; split the sweep")
    return Sweep(recipe, tuple(rows), tuple(seeds), baseline, content.get("metric"), cells)


def fingerprint(recipe: str, options: Mapping[str, Any], states: Mapping[str, str | None]) -> str:
    """sha256 of recipe, options, and the content of every file or folder that they name."""
    named = {str(value): states[value] for value in options.values() if isinstance(value, str) and states.get(value)}
    text = json.dumps([recipe, dict(options), named], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def options_class(recipe: str) -> type[FinetuningOptions]:
    """The dataclass of a recipe's options."""
    module = importlib.import_module(f"finetuning.{recipe}")
    return next(
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, FinetuningOptions) and found.__module__ == module.__name__
    )


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
        raise ValueError(f"{source}: seeds {seeds} repeat; each counts once")
    fixed = {name: value for name, value in base.items() if name != "seed"}
    rows = [
        _with_numbers({**fixed, **dict(zip(axes, values, strict=True)), **_mapping(one, f"{source}: list")})
        for one in listed
        for values in itertools.product(*axes.values())
    ]
    return rows, seeds


def _baseline(asked: Any, rows: Sequence[Options], base: Options, source: str) -> int:
    if asked is None:
        return 0
    wanted = _with_numbers(_mapping(asked, f"{source}: baseline"))
    found = [number for number, row in enumerate(rows) if all(row.get(name) == value for name, value in wanted.items())]
    if len(found) != 1:
        raise ValueError(f"{source}: baseline {wanted} fits {len(found)} rows; name the options that single out one")
    return found[0]


def _check_names(recipe: str, rows: Sequence[Options], source: str) -> None:
    known = [one.name for one in fields(options_class(recipe))]
    for name in dict.fromkeys(name for row in rows for name in row):
        if name in OWNED_BY_THE_SWEEP or name == "seed":
            raise ValueError(f"{source}: {name} cannot be set by a row; the sweep sets it (seeds go under `seeds`)")
        if name not in known:
            raise ValueError(f"{source}: {explain_unknown(str(name), known)}")
    for row in rows:
        for name, value in row.items():
            if isinstance(value, dict) or (isinstance(value, str) and not value):
                raise ValueError(f"{source}: {name} is {value!r}; it must be a number, a word, true, false or a list")


def _state_of(name: str) -> str | None:
    """What identifies the content behind a path: a file's hash, the names and sizes in a folder; None: no path."""
    path = Path(name)
    try:
        if path.is_file():
            return sha256_of(path)
        if path.is_dir() and ("/" in name or (path / "config.json").is_file()):
            inside = sorted(
                (str(file.relative_to(path)), file.stat().st_size) for file in path.rglob("*") if file.is_file()
            )
            return hashlib.sha256(json.dumps(inside).encode()).hexdigest()
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error}); check its permissions") from error
    return None


def _with_numbers(row: Options) -> Options:
    """YAML 1.1 takes 2e-5 for a word; it means the number, and the same cell as 2.0e-5."""
    return {
        name: float(value) if isinstance(value, str) and SCIENTIFIC.fullmatch(value) else value
        for name, value in row.items()
    }


def _mapping(value: Any, where: str) -> Options:
    if not isinstance(value, dict) or any(not isinstance(name, str) for name in value):
        raise ValueError(f"{where} is {value!r}; it must map option names to values")
    return dict(value)


def _shown(row: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items() if base.get(name) != value) or "base"
