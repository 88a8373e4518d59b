"""The options of a command as a page shows them, from their declarations."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from runtime.options.declaration import Declaration, declaration_of, default_of

ROOT = Path(__file__).resolve().parents[2]
OF_THE_MACHINE = {"processes": "the number of usable cores"}  # defaults that another machine has otherwise
PARSERS = ("parse_options", "parse_with_names")


def commands() -> list[str]:
    """Every command of the project, as a path."""
    return [
        path.relative_to(ROOT).as_posix()
        for folder in ("launch", "finetuning")
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.name != "__init__.py"
    ]


def options_class(command: str) -> tuple[type, bool]:
    """The dataclass of a command's options, and whether names may stand before them; read from the call in `main`."""
    tree = ast.parse((ROOT / command).read_text(encoding="utf-8"))
    homes = {
        alias.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PARSERS:
            name = ast.unparse(node.args[0])
            return getattr(importlib.import_module(str(homes[name])), name), node.func.id == PARSERS[1]
    raise LookupError(f"{command} calls none of {PARSERS}")


def options_text(command: str) -> str:
    """Every option of a command under its heading, as MyST."""
    cls, _ = options_class(command)
    hints = get_type_hints(cls)
    groups: dict[str, list[Field[Any]]] = {}
    for item in fields(cls):
        if item.init:
            groups.setdefault(declaration_of(item).group, []).append(item)
    parts = [f"```{{program}} {command}\n```"]
    for heading, items in groups.items():
        parts += [f"## {heading[0].upper()}{heading[1:]}", *(option_text(item, hints[item.name]) for item in items)]
    return "\n\n".join(parts)


def option_text(item: Field[Any], hint: Any) -> str:
    """One option: its name and form, its help, its default, and the values that it takes."""
    declared = declaration_of(item)
    facts = " ".join(f"{name}: {text}." if text else f"{name}." for name, text in facts_of(item, declared, hint))
    body = [sentence(item.metadata["help"]), facts]
    if declared.formerly:
        body.append("Earlier names: " + ", ".join(f"`--{name}`" for name in declared.formerly) + ".")
    form = f"--{item.name} {value_word(hint, item)}".rstrip()
    return f"````{{option}} {form}\n" + "\n\n".join(part for part in body if part) + "\n````"


def facts_of(item: Field[Any], declared: Declaration, hint: Any) -> Iterator[tuple[str, str]]:
    """Default, choices and range, each as text."""
    default = MISSING if item.default is MISSING and item.default_factory is MISSING else default_of(item)
    by_data = ", ".join(f"`{value}` {data}" for data, value in declared.by_data.items())
    if default is MISSING or (default is None and item.metadata.get("required")):
        yield "Required", ""
    elif item.name in OF_THE_MACHINE:
        yield "Default", OF_THE_MACHINE[item.name]
    elif by_data:
        yield "Default", f"`{default}`, but {by_data}" if default else by_data
    elif default not in (None, "", [], ()):
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        yield "Default", f"`{shown.lower() if isinstance(default, bool) else shown}`"
    if declared.choices:
        yield "One of", ", ".join(f"`{choice}`" for choice in declared.choices)
    elif hint is bool:
        yield "One of", "`true`, `false`"
    if declared.range:
        yield "Range", declared.range + (f", {declared.what}" if declared.what else "")
    if item.metadata.get("nargs") in ("+", "*") or str(hint).startswith("list") or "list[" in str(hint):
        yield "Several values", "separated by blanks"
    elif declared.commas:
        yield "Several values", "separated by commas"


def value_word(hint: Any, item: Field[Any]) -> str:
    """What stands for the value: FILE and DIR by the option's name, N for numbers."""
    kinds = {kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)}
    if kinds <= {int, float}:
        return "N"
    if hint is bool:
        return "true|false"
    if re.search(r"_dir$|^shards$", item.name):
        return "DIR"
    return "FILE" if item.name.endswith("_file") else "VALUE"


def sentence(text: str) -> str:
    """A help text as a sentence; what Markdown would take for markup is text."""
    text = re.sub(r"([*_<>\[\]#|\\])", r"\\\1", text.replace("%%", "%"))
    text = re.sub(r"(?<![\w`])(--\w[\w\\-]*)", lambda found: "`" + found[1].replace("\\", "") + "`", text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
