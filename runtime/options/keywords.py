"""Options as keyword arguments: `pretrain(budget_tokens=1e6)` means what `--budget_tokens 1e6` means to the command.

The keywords of a function are the fields of its dataclass of options, written out as a TypedDict, so that an editor
completes them and mypy checks them; `keyword_type` says which type each has there. A keyword takes a little more than
the field: a path where the option is a word, and a list where it is several values separated by commas.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from runtime.options.declaration import Declaration, Options, declaration_of, declarations, default_of

Words: TypeAlias = str | os.PathLike[str]  # a path is taken as its text
Several: TypeAlias = Words | float | Sequence[Words | float]  # one value, several, or several in a text with commas
Settings: TypeAlias = str | Mapping[str, Any]  # name=value,name=value as text, or a mapping
Given = TypeVar("Given", bound=Options)


def options_of(
    cls: type[Given],
    given: Given | None,
    keywords: Mapping[str, Any],
    *,
    function: str,
    replaced: Callable[[str], str | None] | None = None,
) -> Given:
    """The options that a call of `function` gives: as one object, or as keywords.

    `replaced` gives the replacement of a name of other programs. Raises TypeError for both at once, an unknown name
    and a value of another type, ValueError as the dataclass for what no run can use.
    """
    if given is not None:
        if not isinstance(given, cls):
            raise TypeError(f"{function}() takes {cls.__name__} or keywords, not {type(given).__name__}")
        if keywords:
            raise TypeError(f"{function}() got options and also {', '.join(keywords)}: give one or the other")
        return with_floats(given)
    known = {item.name: item for item in fields(cls) if item.init}  # type: ignore[arg-type]
    if unknown := [name for name in keywords if name not in known]:
        raise TypeError(f"{function}() has no option {explained(unknown[0], cls, replaced)}")
    hints = get_type_hints(cls)
    return cls(**{name: as_option(known[name], hints[name], value) for name, value in keywords.items()})


def with_floats(options: Given) -> Given:
    """The options, with 4.0 where 4 was given, as the command has it: the identity of a run tells the two apart."""
    hints, record = get_type_hints(type(options)), cast(Any, options)
    changed = {
        item.name: number
        for item in fields(record)
        if without_none(hints[item.name])[0] is float
        and type(value := getattr(options, item.name)) is int
        and type(number := as_declared(item, float(value))) is float
    }
    return cast(Given, replace(record, **changed)) if changed else options


def as_declared(item: Field[Any], value: float) -> float:
    """A number as its field holds it: the default itself where it is equal, which may be written without a point."""
    default = default_of(item)
    return default if value == default else value


def explained(name: str, cls: type, replaced: Callable[[str], str | None] | None) -> str:
    """An unknown name, and what is meant by it: its new name, its replacement, or the nearest option."""
    renamed = {old: new for new, declared in declarations(cls).items() for old in declared.formerly}
    if name in renamed:
        return f"{name!r}: it was renamed to {renamed[name]}"
    if replaced is not None and (replacement := replaced(name)):
        return f"{name!r}: {replacement}"
    nearest = difflib.get_close_matches(name, list(declarations(cls)), n=1, cutoff=0.5)
    return f"{name!r}" + (f": did you mean {nearest[0]}?" if nearest else "")


def keyword_type(item: Field[Any], hint: Any) -> Any:
    """The type of a field's keyword in the TypedDict; `hint` is the type of the field."""
    base, is_optional = without_none(hint)
    declared = declaration_of(item)
    wider: Any = base
    if base is str and declared.settings:
        wider = Settings
    elif base is str and declared.commas:
        wider = Several
    elif base is str and declared.choices:
        wider = Literal[declared.choices] | bool if "false" in declared.choices else Literal[declared.choices]
    elif base is str:
        wider = Words
    elif base == list[str]:
        wider = Words | Sequence[Words]
    elif base == list[int]:
        wider = Sequence[int]
    return wider | None if is_optional else wider


def without_none(hint: Any) -> tuple[Any, bool]:
    """A type without None, and whether None belonged to it."""
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    others = [part for part in get_args(hint) if part is not NoneType]
    return others[0], len(others) < len(get_args(hint))


def as_option(item: Field[Any], hint: Any, value: Any) -> Any:
    """A keyword's value as its field holds it; TypeError for a value of another type."""
    base, is_optional = without_none(hint)
    if value is None and is_optional:
        return None
    if getattr(value, "ndim", 1) == 0:  # a number of numpy or torch
        value = value.item()
    converted = converted_to(base, declaration_of(item), value)
    if converted is None:
        raise TypeError(f"{item.name}={value!r} is a {type(value).__name__}: give {wanted(base, declaration_of(item))}")
    return as_declared(item, converted) if base is float else converted


def converted_to(base: Any, declared: Declaration, value: Any) -> Any:
    """The value as a `base`; None where it is something else."""
    if base in (list[str], list[int]):
        inner = get_args(base)[0]
        parts = [value] if isinstance(value, str | os.PathLike) and inner is str else value
        if not isinstance(parts, list | tuple):
            return None
        items = [converted_to(inner, Declaration(), part) for part in parts]
        return None if None in items else items
    if base is bool:
        return value if isinstance(value, bool) else None
    if base in (int, float):
        return base(value) if is_number(value) and (base is float or isinstance(value, int)) else None
    return as_text(declared, value)  # a str, or a Literal of them


def as_text(declared: Declaration, value: Any) -> str | None:
    """The text of an option of words; None for what is no text."""
    if isinstance(value, bool):
        return str(value).lower() if "false" in declared.choices else None
    if declared.settings:
        return json.dumps(value) if isinstance(value, Mapping) else as_word(value)
    if declared.commas:
        words = [
            repr(part) if is_number(part) else as_word(part)
            for part in (value if isinstance(value, list | tuple) else [value])
        ]
        return None if None in words or not words else ",".join(map(str, words))
    return as_word(value)


def as_word(value: Any) -> str | None:
    """A text, or a path's; None for anything else."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return value if isinstance(value, str) else None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def wanted(base: Any, declared: Declaration) -> str:
    """A type in words."""
    if declared.settings:
        return "a text such as 'name=value,name=value', or a mapping"
    if declared.commas:
        return "a text, a number, or a list of them"
    names: dict[Any, str] = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}
    names |= {list[str]: "a list of texts", list[int]: "a list of whole numbers"}
    return names.get(base, "one of the words that the option knows")
