"""The runs as HTML: fragments of the page that the browser puts in where they changed. All text is escaped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gap.watch.board import BoardState, ListedRun
from gap.watch.page.chart_geometry import HEIGHT, LEFT, RIGHT, WIDTH, draw
from gap.watch.view import CellState, LiveState
from gap.watch.wording import ago, duration

FOLDER = Path(__file__).parent
SECTIONS = (
    ("running", "Running", (LiveState.RUNNING,)),
    ("attention", "Needs attention", (LiveState.FAILED, LiveState.STALE, LiveState.INTERRUPTED, LiveState.DAMAGED)),
    ("finished", "Finished", (LiveState.FINISHED,)),
)
MOST_LISTED = 200  # of a section
MOST_OPEN = 12  # runs of a section whose charts are shown without being asked for
MOST_PLACES = 600  # of a task's cells that are drawn one by one
SYMBOLS = {
    LiveState.RUNNING: "▶",
    LiveState.FINISHED: "✓",
    LiveState.INTERRUPTED: "❚❚",
    LiveState.STALE: "?",
    LiveState.FAILED: "!",
    LiveState.DAMAGED: "✕",
}
HEADLINE = ("loss", "held-out loss", "tokens/s", "failed cells", "tokens", "documents", "training loss")


@dataclass(frozen=True)
class Fragment:
    """The HTML of a section; `version` changes with it."""

    name: str
    html: str

    @cached_property
    def version(self) -> str:
        """A digest of the HTML."""
        return hashlib.sha256(self.html.encode()).hexdigest()[:16]


@cache
def _environment() -> Environment:
    """The templates' environment; a template is compiled once."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals.update(draw=draw, duration=duration, symbols=SYMBOLS, headline=HEADLINE)
    environment.globals.update(width=WIDTH, height=HEIGHT, left=LEFT, right=RIGHT)
    environment.globals.update(counts_text=counts_text, most_places=MOST_PLACES)
    return environment


class Cards:
    """The templates of the page."""

    def __init__(self) -> None:
        environment = _environment()
        self._cards = environment.get_template("cards.html").module
        self._page = environment.get_template("page.html")

    def page(self, state: BoardState, title: str, *, every: float) -> str:
        """The whole page."""
        return self._page.render(
            title=title, state=state, fragments=self.fragments(state), every=every, sections=SECTIONS
        )

    def fragments(self, state: BoardState) -> list[Fragment]:
        """The sections of the page."""
        fragments = []
        for name, title, states in SECTIONS:
            runs = state.of(*states)
            shown = [(run, self._is_open(name, number)) for number, run in enumerate(runs[:MOST_LISTED])]
            html = self._call("section", name, title, shown, len(runs) - len(shown), self._ago(state))
            fragments.append(Fragment(name, html))
        return fragments

    def body(self, run: ListedRun) -> str:
        """The charts and tables of one run."""
        return self._call("body", run)

    def changes(self, state: BoardState, known: Mapping[str, str]) -> dict[str, Any]:
        """The sections whose version is not known, and the words at the top of the page."""
        fragments = self.fragments(state)
        changed = {
            one.name: {"version": one.version, "html": one.html}
            for one in fragments
            if known.get(one.name) != one.version
        }
        return {"summary": state.summary, "at": round(state.at), "changed": changed}

    def _is_open(self, section: str, number: int) -> bool:
        return section != "finished" and number < MOST_OPEN

    def _ago(self, state: BoardState) -> Any:
        return lambda changed: ago(state.at - changed) if changed else ""

    def _call(self, macro: str, *arguments: Any) -> str:
        return str(getattr(self._cards, macro)(*arguments))


def counts_text(counts: Mapping[CellState, int]) -> str:
    """`12 of 20 cells done, 1 failed, 2 running, 6 to come`."""
    total, done = sum(counts.values()), counts[CellState.DONE] + counts[CellState.FAILED]
    words = [f"{done} of {total} cells done"]
    words += [f"{counts[CellState.FAILED]} of them failed"] if counts[CellState.FAILED] else []
    words += [f"{counts[state]} {state}" for state in (CellState.RUNNING, CellState.TO_COME) if counts[state]]
    return ", ".join(words)
