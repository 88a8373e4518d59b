"""Command-line parsing: one dataclass of options per command, as in `transformers`."""

from __future__ import annotations

import argparse
import copy
import difflib
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from runtime.files.foreign import printable
from runtime.files.unique_keys import parse_json, parse_yaml
from runtime.options.declaration import DECLARED, declaration_of, declarations

USAGE = "%(prog)s ...        (--help shows examples and all options)"  # an error does not list all of them first


DEFAULT = "(default: "  # how argparse begins it


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Descriptions keep their lines, so that the commands in them can be copied; "(default: None)" is left out."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if isinstance(action, argparse._StoreFalseAction):  # its default is a default of the option that it negates
            return action.help
        if action.default in (None, "", (), []) or DEFAULT in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class OptionParser(HfArgumentParser):
    """A parser for one dataclass of options, which `--help` shows under their headings."""

    def __init__(self, cls: type, **settings: Any) -> None:
        self.source = ""  # the file that arguments come from
        super().__init__(cls, allow_abbrev=False, formatter_class=HelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """End the process with the message, which names the file of options where there is one."""
        super().error(printable(message if self.source in message else f"{self.source}: {message}"))
        raise AssertionError(message)  # argparse has ended the process

    def _add_dataclass_arguments(self, dtype: Any) -> None:
        hints = get_type_hints(dtype)
        groups: dict[str, Any] = {}
        for item in fields(dtype):
            if item.init:
                heading = declaration_of(item).group
                if heading not in groups:
                    groups[heading] = self.add_argument_group(heading)
                self._parse_dataclass_field(groups[heading], as_argument_field(item, hints[item.name]))
                if negated := self._option_string_actions.get(f"--no_{item.name}"):
                    negated.help = f"the same as --{item.name} false"


def as_argument_field(item: Field[Any], hint: Any) -> Field[Any]:
    """The field as HfArgumentParser reads it: its metadata are arguments of `add_argument`."""
    declared, argument = declaration_of(item), dict(item.metadata)
    argument.pop(DECLARED, None)
    if declared.choices:  # a value outside them is reported together with all other errors
        argument.setdefault("metavar", "{" + ",".join(declared.choices) + "}")
    if declared.by_data:
        values = ", ".join(f"{value} {data}" for data, value in declared.by_data.items())
        plain_default = f"{item.default}, but " if item.default else ""
        argument["help"] = f"{argument['help']} {DEFAULT}{plain_default}{values})"
    plain = copy.copy(item)
    plain.metadata = argument  # type: ignore[assignment]
    plain.type = str if get_origin(hint) is Literal else hint
    return plain


Parsed = TypeVar("Parsed")
Replacement = Callable[[str], str | None]  # the name of an option that this program does not have -> what replaces it

INJECTED = ("--local_rank=", "--local-rank=")  # by the deepspeed launcher
OPTION_FILES = (".yaml", ".yml", ".json")
LARGEST_OPTIONS_FILE_BYTES = 1 << 20
MOST_EXPLAINED = 10  # unknown options of one call: the search for the nearest valid name is slow
LONGEST_SHOWN = 100  # characters of one of them


def parse_options(
    cls: type[Parsed],
    argv: Sequence[str] | None,
    *,
    description: str | None = None,
    replaced: Replacement | None = None,
) -> Parsed:
    """Parse `--name value` options, or a YAML or JSON file of them (as first argument; later options override it).

    `--local_rank=N`, which the deepspeed launcher injects, is accepted and ignored: ranks come from the environment.
    Ends the process with status 2 and a message on stderr, as argparse does, on an unknown, ill-typed or wrong option;
    for an unknown one the message gives its new name, the text of `replaced`, or the nearest valid name.
    """
    arguments = arguments_of(argv)
    parser, answer = OptionParser(cls, usage=USAGE, description=description), answers(cls, replaced)
    if arguments and not arguments[0].startswith("-"):
        file = arguments.pop(0)
        try:
            known = read_options_file(Path(file), list(declarations(cls)), answer)
            parser.source = f"{file} and the command line" if arguments else file
            arguments = [*as_arguments(known, cls), *arguments]
        except ValueError as error:
            parser.error(str(error))
    required = [action for action in parser._actions if action.required]
    for action in required:  # a misspelt option that is required: what it is near to helps, that it is missing does not
        action.required = False
    namespace, unknown = parser.parse_known_args(arguments)
    if not unknown and any(getattr(namespace, action.dest) is None for action in required):
        for action in required:
            action.required = True
        parser.parse_known_args(arguments)  # ends the process, naming what is missing
    if unknown:
        known_flags = sorted(flag for action in parser._actions for flag in action.option_strings)
        flags = [argument for argument in unknown if argument.startswith("-")]
        explained = explain_all_unknown(flags, known_flags, answer)
        parser.error(explained or f"unexpected argument {unknown[0]!r}: every value follows its --option")
    try:
        return options_from(cls, namespace)
    except ValueError as error:
        parser.error(str(error))
        raise AssertionError("argparse ends the process") from error


def arguments_of(argv: Sequence[str] | None) -> list[str]:
    """The command's arguments (None: those of the process), without what a launcher injected."""
    return [argument for argument in (sys.argv[1:] if argv is None else argv) if not argument.startswith(INJECTED)]


def parse_with_names(
    cls: type[Parsed], argv: Sequence[str] | None, *, description: str | None = None
) -> tuple[list[str], Parsed]:
    """What is named before the first option (files, folders), and the options as `parse_options` reads them.

    The first name may be a YAML or JSON file of options.
    """
    arguments = arguments_of(argv)
    first_option = next((index for index, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    first_name = int(bool(first_option) and Path(arguments[0]).suffix in OPTION_FILES)
    options = [*arguments[:first_name], *arguments[first_option:]]
    return arguments[first_name:first_option], parse_options(cls, options, description=description)


def parse_text(
    cls: type[Parsed], text: str, *, option: str, replaced: Callable[[str], str | None] | None = None
) -> Parsed:
    """The options of another command, given as the value of `option`; ends the process as `parse_options` does.

    Raises ValueError if a quotation mark is not closed.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{option} {text!r} cannot be read as options ({error}): fix its quotation marks") from error
    return parse_options(cls, words, replaced=replaced)


def options_from(cls: type[Parsed], namespace: argparse.Namespace) -> Parsed:
    """The dataclass filled with what was parsed; ValueError for values that the class refuses."""
    return cls(**{item.name: as_word(getattr(namespace, item.name)) for item in fields(cls) if item.init})  # type: ignore[arg-type]


def answers(cls: type, replaced: Replacement | None = None) -> Replacement:
    """A function that gives the replacement of an option that `cls` does not have."""
    renamed = {old: name for name, declared in declarations(cls).items() for old in declared.formerly}

    def answer(name: str) -> str | None:
        if name in renamed:
            return f"it was renamed to --{renamed[name]}; use that"
        return replaced(name) if replaced else None

    return answer


def explain_all_unknown(arguments: Sequence[str], known: Sequence[str], replaced: Replacement | None = None) -> str:
    """One explanation for each of the first few unknown options; "" if there are none."""
    more = [f"and {len(arguments) - MOST_EXPLAINED:,} more"] if len(arguments) > MOST_EXPLAINED else []
    return "; ".join([*(explain_unknown(name, known, replaced) for name in arguments[:MOST_EXPLAINED]), *more])


def explain_unknown(argument: str, known: Sequence[str], replaced: Replacement | None = None) -> str:
    """One sentence with the replacement of an option of other programs, or with the nearest valid one."""
    name = argument[:LONGEST_SHOWN].split("=", 1)[0]
    replacement = replaced(name.lstrip("-").replace("-", "_")) if replaced else None
    if replacement:
        return f"{name} is not an option of this program: {replacement}"
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"unknown option {name}" + (f": did you mean {nearest[0]}?" if nearest else ": see --help")


def read_options_file(path: Path, names: Sequence[str], replaced: Replacement | None = None) -> dict[str, Any]:
    """Read a YAML or JSON mapping of option names to values.

    Raises ValueError for a missing, overlong or malformed file, for a key that appears twice or is not an option.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give a YAML or JSON file of options, or options that start with --")
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
    """Turn a mapping into command-line arguments of `cls`, so that a file and the command line use one parser.

    A list for an option of comma-separated values is joined with commas; ValueError if it is empty.
    """
    declared = declarations(cls)
    arguments: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, list) and name in declared and declared[name].commas:
            if not value:
                raise ValueError(f"{name}: an empty list; name a value, or leave the option out")
            value = ",".join(as_argument(item) for item in value)
        arguments.append(f"--{name}")
        arguments.extend(as_argument(item) for item in value) if isinstance(value, list) else arguments.append(
            as_argument(value)
        )
    return arguments


def as_argument(value: object) -> str:
    """A value from a file as it is written on a command line; a mapping (--config_overrides) as JSON."""
    return json.dumps(value) if isinstance(value, dict) else str(value)


def as_word(value: Any) -> Any:
    """`true` or `false` for an option of words, where YAML or another program's command line gave `True` or `False`."""
    return value.lower() if value in ("True", "False") else value
