"""Command-line options: one dataclass per command, in the manner of `transformers`."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from transformers import HfArgumentParser

from runtime.files.unique_keys import parse_json, parse_yaml

USAGE = "%(prog)s ...        (--help shows examples and all options)"  # not all of them above an error


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Descriptions keep their lines, so that the commands in them can be copied; "(default: None)" is left out."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default in ((), []):
            return action.help
        return super()._get_help_string(action)


Options = TypeVar("Options")
COMMAS = "values with commas between; in a file of options also a list"  # what annotates such an option

LARGEST_OPTIONS_FILE_BYTES = 1 << 20
MOST_EXPLAINED = 10  # unknown options of one call: looking for the nearest right one takes a while
LONGEST_SHOWN = 100  # characters of one of them


def parse_options(
    cls: type[Options],
    argv: Sequence[str] | None,
    *,
    description: str | None = None,
    replaced: Mapping[str, str] | None = None,
) -> Options:
    """Parse `--name value` options, or a YAML or JSON file of them (as first argument; later options override it).

    `--local_rank=N`, which the deepspeed launcher injects, is accepted and ignored: ranks come from the environment.
    Ends the process with status 2 and a message on stderr, as argparse does, on an unknown or ill-typed option; an
    unknown one is answered with what `replaced` (name -> what does its work) says, or with the nearest right one. No
    number may be NaN, which no rule would refuse.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(
        cls, usage=USAGE, description=description, allow_abbrev=False, formatter_class=HelpFormatter
    )
    arguments = [argument for argument in arguments if not argument.startswith(("--local_rank=", "--local-rank="))]
    if arguments and not arguments[0].startswith("-"):
        file = arguments.pop(0)
        try:
            known = read_options_file(Path(file), [field.name for field in fields(cls)], replaced)  # type: ignore[arg-type]
            arguments = [*as_arguments(known, cls), *arguments]
        except ValueError as error:
            parser.error(str(error))
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        known_flags = sorted(flag for action in parser._actions for flag in action.option_strings)
        flags = [one for one in unknown if one.startswith("-")]
        explained = explain_all_unknown(flags, known_flags, replaced)
        parser.error(explained or f"unexpected argument {unknown[0]!r}: every value follows its --option")
    try:
        return options_from(cls, namespace)
    except ValueError as error:
        parser.error(str(error))
        raise AssertionError("argparse ends the process") from error


def parse_text(cls: type[Options], text: str, *, option: str, replaced: Mapping[str, str] | None = None) -> Options:
    """The options of another command that are the value of `option`, as on a command line; ends as `parse_options`.

    Raises ValueError where a quotation is left open.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{option} {text!r} cannot be read as options ({error}): mend its quotation marks") from error
    return parse_options(cls, words, replaced=replaced)


def options_from(cls: type[Options], namespace: argparse.Namespace) -> Options:
    """The dataclass of what was parsed; ValueError for a number that is NaN and for what the class itself refuses."""
    values = {field.name: as_word(getattr(namespace, field.name)) for field in fields(cls) if field.init}  # type: ignore[arg-type]
    for name, value in values.items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and math.isnan(number) for number in numbers):
            raise ValueError(f"--{name} nan is no number: give one, or leave the option out")
    return cls(**values)


def explain_all_unknown(
    arguments: Sequence[str], known: Sequence[str], replaced: Mapping[str, str] | None = None
) -> str:
    """A sentence for each of the first few; "" without any."""
    more = [f"and {len(arguments) - MOST_EXPLAINED:,} more"] if len(arguments) > MOST_EXPLAINED else []
    return "; ".join([*(explain_unknown(one, known, replaced) for one in arguments[:MOST_EXPLAINED]), *more])


def explain_unknown(argument: str, known: Sequence[str], replaced: Mapping[str, str] | None = None) -> str:
    """One sentence that says what replaces an option of other programs, or names the nearest right one."""
    name = argument[:LONGEST_SHOWN].split("=", 1)[0]
    replacement = (replaced or {}).get(name.lstrip("-").replace("-", "_"))
    if replacement:
        return f"{name} is no option here: {replacement}"
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"unknown option {name}" + (f": did you mean {nearest[0]}?" if nearest else ": see --help")


def read_options_file(path: Path, names: Sequence[str], replaced: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read a YAML or JSON mapping of option names to values.

    Raises ValueError for a missing, overlong or malformed file, for a key that stands there twice or is no option.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file: give a YAML or JSON file of options, or options that start with --")
    size = path.stat().st_size
    if size > LARGEST_OPTIONS_FILE_BYTES:
        raise ValueError(f"{path} has {size} bytes: an options file has at most {LARGEST_OPTIONS_FILE_BYTES}")
    try:
        text = path.read_text(encoding="utf-8")
        content = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as options: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}: it must map option names to values")
    unknown = [str(key) for key in content if key not in names]
    if unknown:
        raise ValueError(f"{path}: {explain_all_unknown(unknown, names, replaced)}")
    return content


def as_arguments(values: Mapping[str, Any], cls: type) -> list[str]:
    """Turn a mapping into command-line arguments of `cls`, so that a file and the command line are parsed alike.

    A list for an option that is annotated with `COMMAS` is joined with them; ValueError where it is empty.
    """
    hints = get_type_hints(cls, include_extras=True)
    arguments: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, list) and COMMAS in getattr(hints.get(name), "__metadata__", ()):
            if not value:
                raise ValueError(f"{name}: an empty list; name a value, or leave the option out")
            value = ",".join(as_argument(item) for item in value)
        arguments.append(f"--{name}")
        arguments.extend(as_argument(item) for item in value) if isinstance(value, list) else arguments.append(
            as_argument(value)
        )
    return arguments


def as_argument(value: object) -> str:
    """A value of a file as it is written on a command line; a mapping (--config_overrides) as JSON."""
    return json.dumps(value) if isinstance(value, dict) else str(value)


def as_word(value: Any) -> Any:
    """`True` and `False`, as YAML's booleans and other programs' options come, for an option of words: true, false."""
    return value.lower() if value in ("True", "False") else value
