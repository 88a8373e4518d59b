"""The report of a study as Markdown: its texts and tables, without the interactive charts."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from gap.analysis.results import Analysis, TaskResult
from gap.report.tables import Part, Table
from gap.report.text import macro_parts, made_parts, note_parts, task_parts
from runtime.plurals import counted

WIDTH = 100


def study_markdown(analysis: Analysis, question: str, pictures: Sequence[str] = ()) -> str:
    """results.md of a study: the answer to its question, then everything the report says of each task."""
    blocks = [f"# {question}", *(bold(task.answer) for task in analysis.tasks), *map(picture, pictures)]
    for task in analysis.tasks:
        blocks += [f"## {task.task}", *part_blocks(_without_cells(task_parts(task, analysis, ())))]
    if analysis.macro is not None:
        blocks += [f"## Mean of {counted(len(analysis.macro.tasks), 'task')}"]
        blocks += part_blocks(macro_parts(analysis.macro, ()))
    blocks += ["## Notes, commands and options"]
    blocks += part_blocks([*note_parts(analysis), *made_parts(analysis)])
    return joined(blocks)


def part_blocks(parts: Sequence[Part]) -> Iterator[str]:
    """The Markdown blocks of a report's parts; charts are left out."""
    for part in parts:
        if part.chart:
            continue
        if part.heading:
            yield f"### {part.heading}"
        if part.text:
            yield bold(part.text) if part.style == "warn" else wrapped(part.text)
        if part.table is not None:
            yield table_text(part.table)
        if part.code:
            yield code(part.code.splitlines())


def table_text(table: Table) -> str:
    """A table; `|` in a cell is escaped."""
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in row)} |" for row in rows)


def joined(blocks: Sequence[str]) -> str:
    """Blocks with a blank line between them."""
    return "\n\n".join(blocks) + "\n"


def wrapped(text: str) -> str:
    """One paragraph, wrapped; its signs that Markdown would read are escaped."""
    return filled(_escaped(text))


def bold(text: str) -> str:
    """One paragraph in bold, wrapped."""
    return filled(f"**{_escaped(text)}**")


def filled(text: str) -> str:
    """One paragraph of Markdown, wrapped."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def code(lines: Sequence[str]) -> str:
    """An indented block of code, whose lines keep their length."""
    return "\n".join(f"    {line}" for line in lines)


def command_lines(command: str) -> list[str]:
    """A command line broken with backslashes where it is long, before options."""
    lines = [""]
    for part in re.split(r" (?=--)", command.strip()):
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH:
            lines.append(f"    {part}")
        else:
            lines[-1] = f"{lines[-1]} {part}" if lines[-1] else part
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def anchor(heading: str) -> str:
    """The name by which the pages of GitHub and GitLab link to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def picture(path: str) -> str:
    """A picture with its name as the text for those who do not see it."""
    name = path.rsplit("/", 1)[-1].rsplit(".", 1)[0].replace("-", " ")
    return f"![{name}]({path})"


def _without_cells(parts: Sequence[Part]) -> list[Part]:
    """All parts but the last table, of every cell: scores.jsonl has them."""
    return [part for part in parts if not (part.folded and part.heading == "")]


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("_", "\\_")


def tasks_longest_first(analysis: Analysis) -> list[TaskResult]:
    """The tasks with the most checkpoints first."""
    return sorted(analysis.tasks, key=lambda task: -len(task.checkpoints))
