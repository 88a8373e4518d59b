"""Validated reading of our own JSON files: limits on size and depth, then a pydantic schema.

The schema of a file is defined next to the code that writes it. Fields that a schema does not name are kept: later
versions write more. Any violation raises a ValueError that names the file, the place in it and the remedy.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from runtime.files.whole_files import LARGEST_JSON_BYTES, read_json

SHOWN_CHARACTERS = 80
MOST_LISTED, LONGEST_LISTED = 20, 40


class Schema(BaseModel):
    """Base of all file schemas: types are not converted, unknown fields are kept."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())


S = TypeVar("S", bound=Schema)
Item = TypeVar("Item")

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Number = Annotated[float, Field(ge=-1e300, le=1e300, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=4096)]
Items = Annotated[list[Item], Field(fail_fast=True)]  # stop at the first of a million wrong entries


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_path(text: str) -> str:
    if "\0" in text or any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in text.split("/")):
        raise ValueError("it must be a path")
    return text


def _is_leaf(value: Any) -> Any:
    if not isinstance(value, str | int | float | None):
        raise ValueError("it must be text or a number")
    return value


def _is_id(value: Any) -> Any:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("it must be text or a whole number")
    return value


PathName = Annotated[Name, Field(min_length=1), AfterValidator(_is_path)]
Leaf = Annotated[Any, AfterValidator(_is_leaf)]  # text, a number, true, false or nothing
Id = Annotated[Any, AfterValidator(_is_id)]

# A measured figure: infinity and NaN become None.
Figure = Annotated[Number | None, BeforeValidator(_finite_or_none)]


def read_file(path: Path, schema: type[S], remedy: str, *, largest: int = LARGEST_JSON_BYTES) -> S:
    """The object in a JSON file of at most `largest` bytes, checked; FileNotFoundError if there is no file."""
    return checked(read_json(path, largest=largest, remedy=remedy), schema, str(path), remedy)


def read_object(path: Path, schema: type[Schema], remedy: str, *, largest: int = LARGEST_JSON_BYTES) -> dict[str, Any]:
    """The same object exactly as in the file: no number converted, no default filled in."""
    content = read_json(path, largest=largest, remedy=remedy)
    checked(content, schema, str(path), remedy)
    return dict(content)


def checked(content: Any, schema: type[S], place: str, remedy: str) -> S:
    """Parsed JSON as an instance of its schema; ValueError names the `place` it comes from and what is wrong there."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{place}: {complaint(error)}: {remedy}") from error


def complaint(error: ValidationError) -> str:
    """What is wrong, in one line: all fields that the first incomplete object lacks, or the first wrong value."""
    problems = error.errors(include_url=False)
    missing = [problem["loc"] for problem in problems if problem["type"] == "missing"]
    if missing:
        names = [str(loc[-1]) for loc in missing if loc[:-1] == missing[0][:-1]]
        return f"{_place(missing[0][:-1])} lacks {', '.join(names)}"
    first = problems[0]
    wanted = re.sub(r"^(Input|List|String|Value) should", "it must", first["msg"].removeprefix("Value error, "))
    if first["type"] == "model_type":
        wanted = "it must be an object"
    return f"{_place(first['loc'])} is {shown(first['input'])}: {wanted}"


def shown(value: Any) -> str:
    """A value of any size for a message, on one line."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = SHOWN_CHARACTERS
    text = short.repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def listed(names: Iterable[Any]) -> str:
    """Names of any number and length for a message, on one line: the first of them, each cut."""
    first = [str(name) for name in islice(names, MOST_LISTED + 1)]
    cut = [name[:LONGEST_LISTED] if name.isprintable() else ascii(name[:LONGEST_LISTED]) for name in first]
    return ", ".join([*cut[:MOST_LISTED], *(["..."] if len(first) > MOST_LISTED else [])])


def _place(loc: Sequence[int | str]) -> str:
    """("checkpoints", 2, "flops") -> checkpoints[2].flops."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
    if not text:
        return "the content"
    return text if len(text) <= SHOWN_CHARACTERS and text.isprintable() else shown(text)
