"""The parser of one dataclass of options: arguments from its fields, and `--help` under their headings.

Fields become arguments as in `transformers.HfArgumentParser`, whose package takes half a second to import.
"""

from __future__ import annotations

import argparse
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from runtime.files.foreign import printable
from runtime.options.declaration import DECLARED, declaration_of

YES, NO = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")
DEFAULT = "(default: "  # how argparse begins it


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Descriptions keep their lines, so that the commands in them can be copied; "(default: None)" is left out."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if isinstance(action, argparse._StoreFalseAction):  # its default is a default of the option that it negates
            return action.help
        if action.default in (None, "", (), []) or DEFAULT in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class OptionParser(argparse.ArgumentParser):
    """A parser for one dataclass of options, which `--help` shows under their headings."""

    def __init__(self, cls: type, **settings: Any) -> None:
        self.source = ""  # the file that arguments come from
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **settings)
        hints = get_type_hints(cls)
        groups: dict[str, Any] = {}
        for item in fields(cls):
            if item.init:
                heading = declaration_of(item).group
                if heading not in groups:
                    groups[heading] = self.add_argument_group(heading)
                add_option(groups[heading], item, hints[item.name])

    def error(self, message: str) -> NoReturn:
        """End the process with the message, which names the file of options where there is one."""
        super().error(printable(message if self.source in message else f"{self.source}: {message}"))
        raise AssertionError(message)  # argparse has ended the process


def add_option(group: Any, item: Field[Any], hint: Any) -> None:
    """Add a field as --name and --na-me; one that is True by default as --no_name too."""
    argument, kind = words_of(item), one_type(hint)
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    if default is MISSING and kind is bool:
        default = False
    value: dict[str, Any] = {"type": as_bool if kind is bool else kind}
    if kind is bool and default is not None:
        value |= {"nargs": "?", "const": True}
    elif get_origin(kind) is list:
        value = {"type": get_args(kind)[0], "nargs": "+"}
    value |= {"required": True} if default is MISSING else {"default": default}
    group.add_argument(*flags_of(item.name), **{**argument, **value})
    if kind is bool and default is True:
        argument |= {"help": f"the same as --{item.name} false", "default": False}
        group.add_argument(*flags_of(f"no_{item.name}"), action="store_false", dest=item.name, **argument)


def flags_of(name: str) -> list[str]:
    """An option's name as it is written in front of a value."""
    return list(dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]))


def words_of(item: Field[Any]) -> dict[str, Any]:
    """The arguments of `add_argument` that a declaration gives: help, nargs, const, and the choices as metavar."""
    declared, argument = declaration_of(item), dict(item.metadata)
    argument.pop(DECLARED, None)
    if declared.choices:  # a value outside them is reported together with all other errors
        argument.setdefault("metavar", "{" + ",".join(declared.choices) + "}")
    if declared.by_data:
        values = ", ".join(f"{value} {data}" for data, value in declared.by_data.items())
        plain_default = f"{item.default}, but " if item.default else ""
        argument["help"] = f"{argument['help']} {DEFAULT}{plain_default}{values})"
    return argument


def one_type(hint: Any) -> Any:
    """The type of a value that is given: X of `X | None`; words of a `Literal` are str."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
    return str if get_origin(hint) is Literal else hint


def as_bool(word: str) -> bool:
    """True or false, in any of the words that `transformers` takes."""
    if word.lower() in (*YES, *NO):
        return word.lower() in YES
    raise argparse.ArgumentTypeError(
        f"Truthy value expected: got {word} but expected one of yes/no, true/false, t/f, y/n, 1/0 (case insensitive)."
    )
