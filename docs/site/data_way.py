"""Draws docs/data-way.svg, the picture of the data's way: `python docs/site/data_way.py` writes it again."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

PICTURE = Path(__file__).resolve().parents[1] / "data-way.svg"
WIDTH, BOX, HEIGHT, GAP = 960, (200, 96), 470, 40
LEFT, ROWS = 20, (70, 220, 370)
# Row, column, title, lines, colour of the command that does it.
SHARDS, PRETRAINING, STUDY, PLAIN = "#dbeafe", "#dcfce7", "#fef3c7", "#f3f4f6"
STEPS = (
    (0, 0, "text", ("files, archives,", "data sets"), PLAIN),
    (0, 1, "documents", ("cleaned, without", "duplicates"), SHARDS),
    (0, 2, "tokens", ("blocks of 65,536,", "1 % held out"), SHARDS),
    (0, 3, "shards", ("tar files and", "manifest.json"), SHARDS),
    (1, 3, "masked batches", ("each row once an epoch,", "state: one integer"), PRETRAINING),
    (1, 2, "engine", ("one process, FSDP2", "or ZeRO 0 to 3"), PRETRAINING),
    (1, 1, "checkpoints", ("any ranks and engine", "continue them"), PRETRAINING),
    (1, 0, "series", ("raw and annealed,", "at each budget"), PRETRAINING),
    (2, 0, "cells", ("budget x task x seed,", "same search for all"), STUDY),
    (2, 1, "scores", ("with a record for", "each example"), STUDY),
    (2, 2, "intervals", ("over runs, seeds", "and examples"), STUDY),
    (2, 3, "curve and report", ("gap closed over tokens,", "FLOPs, hours, money"), STUDY),
)
BANDS = (
    (0, "launch/build_shards.py"),
    (1, "launch/pretrain.py"),
    (2, "launch/gap.py, with the recipes of finetuning/"),
)
DESCRIPTION = (
    "Text becomes documents, tokens and shards; these become masked batches, which an engine trains on; its "
    "checkpoints become a series; each of the series is fine-tuned in cells, whose scores give intervals, the curve "
    "and the report."
)


def left_of(column: int) -> int:
    """The left edge of a column."""
    return LEFT + column * (BOX[0] + GAP)


def box(row: int, column: int, title: str, lines: tuple[str, ...], colour: str) -> str:
    """A step: its title and two lines below it."""
    x, y = left_of(column), ROWS[row] - 30
    middle = x + BOX[0] // 2
    parts = [
        f'<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="8" fill="{colour}" stroke="#64748b"/>',
        f'<text x="{middle}" y="{y + 28}" font-weight="bold" font-size="17">{escape(title)}</text>',
    ]
    parts += [
        f'<text x="{middle}" y="{y + 52 + 20 * number}" font-size="14.5">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return "\n".join(parts)


def arrow(first: tuple[int, int], second: tuple[int, int]) -> str:
    """From one step to the next: sideways, or down to the next row."""
    (row, column), (next_row, next_column) = first, second
    if row == next_row:
        right = next_column > column
        y = ROWS[row] - 30 + BOX[1] // 2
        start = left_of(column) + (BOX[0] + 4 if right else -4)
        end = left_of(next_column) + (-8 if right else BOX[0] + 8)
        return f'<path d="M{start} {y} H{end}" marker-end="url(#head)"/>'
    x = left_of(column) + BOX[0] // 2
    return f'<path d="M{x} {ROWS[row] - 30 + BOX[1] + 4} V{ROWS[next_row] - 38}" marker-end="url(#head)"/>'


def picture() -> str:
    """The whole picture as SVG, with a white ground, so that it is read on dark pages too."""
    places = [(row, column) for row, column, *_ in STEPS]
    arrows = [arrow(first, second) for first, second in pairwise(places)]
    names = [
        f'<text x="{left_of(min(row, 1))}" y="{ROWS[row] - 40}" font-size="14.5" fill="#334155" '
        f'text-anchor="start" font-family="monospace">{escape(text)}</text>'
        for row, text in BANDS
    ]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'aria-labelledby="title description">',
            '<title id="title">The data\'s way from text to the curve</title>',
            f'<desc id="description">{DESCRIPTION}</desc>',
            '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="#334155" stroke="none"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            '<g font-family="system-ui, sans-serif" text-anchor="middle" fill="#0f172a">',
            *names,
            *(box(*step) for step in STEPS),
            "</g>",
            '<g fill="none" stroke="#334155" stroke-width="2">',
            *arrows,
            "</g>",
            "</svg>",
            "",
        )
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
