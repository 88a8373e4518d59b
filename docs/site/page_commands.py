"""The commands of the pages: every shell and Python block, with what an HTML comment before it says.

<!-- not run: REASON -->    the block is parsed and not executed
<!-- file: NAME -->         the block is the content of a file that later commands of the page read

What a test's machine lacks (`NEEDS`) needs no comment.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Kind = Literal["shell", "python", "file", "other"]

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"python", "torchrun", "deepspeed", "make", "source", "pip", "sbatch", "srun", "docker", "kubectl", "cat"}
PROGRAMS |= {"export", "hf", "curl", "git"}
# What a block calls -> what it needs to run.
NEEDS = {
    r"^\s*(sbatch|srun|scontrol|scancel)\b": "a cluster with SLURM",
    r"^\s*docker\b": "a machine with Docker",
    r"^\s*kubectl\b": "a cluster with Kubernetes",
    r"^\s*(make|pip|apt-get|source)\b": "an environment of its own to install into",
    r"^\s*hf\b|\bOWNER/NAME\b": "an account of the model hub",
    r"--nnodes|--hostfile": "more than one machine",
    r"^\s*gap-\w+": "an installed wheel",
}
LANGUAGES: dict[str, Kind] = {"bash": "shell", "sh": "shell", "shell": "shell", "python": "python"}
# Pages that record what was run on real data, with the commands of their day.
RECORDS = re.compile(
    r"docs/(measurements|results|decisions|lab-notes|reliability|scaling|studies/.*)\.md|benchmarks/.*"
)
MARK = re.compile(r"<!-- (not run|file): (.+?) -->")
COMMAND = re.compile(r"(?:^|/)((?:launch|finetuning)/\w+)\.py$|^((?:launch|finetuning)\.\w+)$")
ENDS = {"|", "&&", "||", ";", "&", ">", ">>", "2>&1", "<", "done", ")"}


@dataclass(frozen=True)
class Block:
    """A code block of a page: where it begins, its kind, its text, and the mark before it."""

    line: int
    kind: Kind
    text: str
    not_run: str = ""  # the reason
    file: str = ""  # its name


@dataclass(frozen=True)
class Call:
    """A call of one of our commands: the command, its arguments, and the line of its block."""

    line: int
    command: str
    arguments: tuple[str, ...]


def command_pages(root: Path) -> list[Path]:
    """The pages whose commands must work as written."""
    places = [root / "README.md", root / "CONTRIBUTING.md", *sorted(root.glob("ds_configs/*.md"))]
    places += sorted(root.glob("docs/**/*.md"))
    return [path for path in places if not RECORDS.fullmatch(path.relative_to(root).as_posix())]


def blocks(page: str) -> Iterator[Block]:
    """The code blocks of a page, fenced or indented by four, in order."""
    lines, index, mark = page.splitlines(), 0, ("", "")
    while index < len(lines):
        line = lines[index]
        if found := MARK.fullmatch(line.strip()):
            mark = (found[1], found[2])
        elif fence := re.match(r"(\s*)(```+)(\S*)\s*$", line):
            end = next((at for at in range(index + 1, len(lines)) if lines[at].strip() == fence[2]), len(lines))
            text = [inner[len(fence[1]) :] for inner in lines[index + 1 : end]]
            yield block(index + 2, LANGUAGES.get(fence[3], "other"), text, mark)
            index, mark = end, ("", "")
        elif line.startswith("    ") and begins_block(lines, index):
            end = next(
                (at for at in range(index, len(lines)) if lines[at].strip() and not lines[at].startswith("    ")),
                len(lines),
            )
            text = [inner[4:] for inner in lines[index:end]]
            yield block(index + 1, kind_of(text[0]), text, mark)
            index, mark = end - 1, ("", "")
        elif line.strip():
            mark = ("", "")
        index += 1


def begins_block(lines: list[str], index: int) -> bool:
    """Whether an indented line is code: after a blank line, and not the continued item of a list."""
    if index and lines[index - 1].strip() and not MARK.fullmatch(lines[index - 1].strip()):
        return False
    before = next((line for line in reversed(lines[:index]) if line.strip() and not line.startswith("    ")), "")
    return not re.match(r"\s*([-*]|\d+\.) ", before)


def kind_of(first: str) -> Kind:
    """The kind of an indented block, by its first line."""
    words = first.split()
    if re.match(r"(from [\w.]+ )?import \w", first):
        return "python"
    is_program = bool(words) and (words[0] in PROGRAMS or words[0].startswith("gap-"))
    return "shell" if is_program or re.match(r"[A-Z_]+=\S* \w", first) else "other"


def block(line: int, kind: Kind, text: list[str], mark: tuple[str, str]) -> Block:
    """A block with its mark."""
    name, value = mark
    if name == "file":
        return Block(line, "file", "\n".join(text).rstrip() + "\n", file=value)
    content = "\n".join(text).rstrip() + "\n"
    lacking = [need for call, need in NEEDS.items() if kind in ("shell", "python") and re.search(call, content, re.M)]
    return Block(line, kind, content, not_run=value if name == "not run" else f"needs {lacking[0]}" if lacking else "")


def calls(block: Block) -> Iterator[Call]:
    """The calls of our commands in a shell block, as a shell would split them; comments are left out."""
    text = block.text.replace("\\\n", " ")
    for number, line in enumerate(text.splitlines()):
        yield from (Call(block.line + number, command, arguments) for command, arguments in calls_in(split(line)))


def split(line: str) -> list[str]:
    """The words of a line of shell, its operators as words of their own."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    return list(lexer)


def calls_in(words: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each command among the words, with what follows it up to the next operator."""
    command, arguments = "", []
    for word in [*words, ";"]:
        if command and word in ENDS:
            yield command, tuple(arguments)
            command, arguments = "", []
        elif command:
            arguments.append(word)
        elif word in entry_points():
            command = entry_points()[word]
        elif found := COMMAND.search(word):
            command = (found[1] or found[2].replace(".", "/")) + ".py"


@cache
def entry_points() -> dict[str, str]:
    """The names that an installed wheel gives the commands, with their files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {name: place.split(":")[0].replace(".", "/") + ".py" for name, place in project.get("scripts", {}).items()}


def inline_calls(page: str) -> Iterator[tuple[str, list[str]]]:
    """Command and names of options of each call that stands in running text or a table."""
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`\n]*(?:launch|finetuning)/\w+\.py [^`\n]*)`", prose):
        if found := re.search(r"((?:launch|finetuning)/\w+\.py) (.*)", code):
            yield found[1], re.findall(r"(?<!\S)--(\w+)", found[2])
