"""The fields of our files as tables, from the schemas that read them; the comment at a field is its note."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

JSON_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
LARGE = 1 << 20  # a bound from here on only keeps a file from being absurd
FIELD_LINE = re.compile(r"    (\w+): [^#]*(?:#\s*(.*))?$")


def format_text(place: str) -> str:
    """The tables of MODULE:SCHEMA, nested objects below it in tables of their own."""
    module, _, name = place.partition(":")
    schema = getattr(importlib.import_module(module), name)
    content = TypeAdapter(schema).json_schema()
    notes = {cls.__name__: notes_of(cls) for cls in schemas_in(schema)}
    tables = [table(content, notes.get(name, {}))]
    for nested, inner in content.get("$defs", {}).items():
        if "properties" in inner:
            tables.append(f"`{plain(nested)}`:\n\n" + table(inner, notes.get(nested, {})))
    return "\n\n".join(tables)


def table(schema: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """One row for each field of an object."""
    required = schema.get("required", [])
    rows = ["| field | value | always there | note |", "|---|---|---|---|"]
    for name, value in schema["properties"].items():
        there = "yes" if name in required else "no"
        rows.append(f"| `{name}` | {words(value)} | {there} | {notes.get(name, '')} |".replace("  |", " |"))
    return "\n".join(rows)


def words(value: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in value:
        return f"`{plain(value['$ref'].split('/')[-1])}`"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(words(part) for part in value["anyOf"]))
    if "const" in value or "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value.get("enum", [value.get("const")]))
    kind = value.get("type")
    if kind == "null":
        return "null"
    if kind == "array":
        return f"list of {words(value.get('items', {}))}" if value.get("items") else "list"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"object of {words(inner)}" if isinstance(inner, dict) and inner else "object"
    bounds = [f"{sign} {value[key]:,g}" for key, sign in BOUNDS.items() if key in value and abs(value[key]) < LARGE]
    return ", ".join([JSON_WORDS.get(str(kind), "text, number, true, false or null"), *bounds])


def plain(name: str) -> str:
    """A schema's name for readers: `_FileFacts` is not less of an object."""
    return name.strip("_").removesuffix("File")


def schemas_in(schema: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The schema and those of its module, which its fields may hold."""
    yield schema
    for member in vars(inspect.getmodule(schema)).values():
        if isinstance(member, type) and issubclass(member, BaseModel) and member is not schema:
            yield member


def notes_of(schema: type[BaseModel]) -> dict[str, str]:
    """Field -> the comments above and beside it in the source."""
    notes: dict[str, str] = {}
    above = ""
    for line in inspect.getsource(schema).splitlines()[1:]:
        if comment := re.match(r"    #\s*(.+)$", line):
            above = f"{above} {comment[1]}".strip()
        elif field := FIELD_LINE.match(line):
            beside = "" if (field[2] or "").startswith("noqa") else field[2]
            notes[field[1]], above = "; ".join(part for part in (above, beside) if part), ""
    return {name: note.replace("|", "\\|") for name, note in notes.items()}
