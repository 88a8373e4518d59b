"""A fine-tuning run: its journal of updates and validations, and its results."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetuning.loop.run_log import JOURNAL_NAME, JournalLine
from finetuning.run.finished import RESULTS_NAME, read_results
from gap.watch.journal_tail import JournalTail, Line, number_in
from gap.watch.owners import Owner, newest, read_owner, state_of_unfinished
from gap.watch.readers.kept_files import KeptFiles
from gap.watch.view import ChartSeries, LiveChart, LiveState, LiveTable, RunView
from gap.watch.wording import duration, rate
from runtime.plurals import counted
from runtime.processes.interruption import MARKER_NAME

AVERAGED_LINES, CHART_POINTS = 20, 160
MOST_SCORES = 12
NOT_SCORES = re.compile(r".*_(per_second|seconds|samples|sd|median|by_seed)$|eval_loss$")


class FinetuningReader:
    """The reader of a fine-tuning run's folder; of several seeds, each has its own."""

    kind = "fine-tuning"

    def __init__(self, directory: Path, place: str) -> None:
        self.directory, self.place = directory, place
        self.files = KeptFiles()
        self.tail = JournalTail(directory / JOURNAL_NAME, JournalLine, place_of=_update_of)

    def view(self) -> RunView:
        """The run as it stands."""
        self.files.begin()
        self.files.try_now(self.tail.read)
        results = self.files.read(self.directory / RESULTS_NAME, lambda: read_results(self.directory))
        changed = newest(self.directory / name for name in (JOURNAL_NAME, RESULTS_NAME, MARKER_NAME))
        state, reason = self._state(results, changed)
        return RunView(
            self.place,
            self.kind,
            state,
            changed,
            reason=reason,
            share=1.0 if results is not None else None,
            done=self._done_words(results),
            figures=self._figures(results),
            charts=tuple(self._charts(results)),
            tables=tuple(_score_tables(results)),
            problems=tuple(self.files.problems),
        )

    def _state(self, results: Mapping[str, Any] | None, changed: float) -> tuple[LiveState, str]:
        if results is not None:
            status = str(results.get("status", "done"))
            failed = status != "done"
            return (
                (LiveState.FAILED, f"{status}: {results.get('reason') or ''}") if failed else (LiveState.FINISHED, "")
            )
        if self.files.problems and not self.tail.recent:
            return LiveState.DAMAGED, "the files named below cannot be read"
        owner = self._owner()
        state = self.files.try_now(lambda: state_of_unfinished(self.directory, owner, changed))
        return state or (LiveState.DAMAGED, "the files named below cannot be read")

    def _owner(self) -> Owner | None:
        """The lock's process, in the folder itself; that of a command with parts may lie above."""
        return read_owner(self.directory) or read_owner(self.directory.parent)

    def _done_words(self, results: Mapping[str, Any] | None) -> str:
        updates = number_in(self.tail.last, "update")
        if updates is None:
            seeds = (results or {}).get("seeds")
            return counted(len(seeds), "seed") if seeds else ""
        epochs = [epoch for line in self.tail.other if (epoch := number_in(line, "epoch")) is not None]
        made = counted(updates, "update", written=f"{updates:,.0f}")
        return made + (f", {counted(max(epochs), 'epoch', written=f'{max(epochs):g}')}" if epochs else "")

    def _figures(self, results: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
        figures: list[tuple[str, str]] = []
        metric = str((results or {}).get("metric") or "")
        score = number_in(results or {}, f"eval_{metric}")
        if score is not None:
            figures.append((metric.replace("_", " "), f"{score:.4f}"))
        elif self.tail.other:
            figures += _scores(self.tail.other[-1])[:3]
        lines = list(self.tail.recent)[-AVERAGED_LINES:]
        if losses := [loss for line in lines if (loss := number_in(line, "loss")) is not None]:
            figures.append(("training loss", f"{statistics.fmean(losses):.4f}"))
        if (value := number_in(self.tail.last, "learning_rate")) is not None:
            figures.append(("learning rate", rate(value)))
        if (seconds := number_in(results or {}, "seconds")) is not None:
            figures.append(("time", duration(seconds)))
        model = (results or {}).get("model")
        if isinstance(model, str) and model:
            figures.append(("from", model.rstrip("/").rsplit("/", 1)[-1]))
        if self.tail.damaged:
            figures.append(("damaged lines", f"{self.tail.damaged}"))
        return tuple(figures)

    def _charts(self, results: Mapping[str, Any] | None) -> list[LiveChart]:
        charts = []
        for label, course in self.tail.courses.items():
            validation = tuple(
                (update, loss)
                for line in self.tail.other
                if (update := number_in(line, "update")) is not None
                and (loss := number_in(line, "eval_loss")) is not None
            )
            series = [ChartSeries("training", "raw", course["loss"].points(CHART_POINTS))]
            if validation:
                series.append(ChartSeries("validation", "annealed", validation))
            charts.append(LiveChart("Loss", label, tuple(series)))
            metric = str((results or {}).get("metric") or "") or self._likely_metric()
            scores = tuple(
                (update, score)
                for line in self.tail.other
                if (update := number_in(line, "update")) is not None
                and (score := number_in(line, f"eval_{metric}")) is not None
            )
            if scores:
                title = metric.replace("_", " ").capitalize()
                charts.append(LiveChart(title, label, (ChartSeries("validation", "annealed", scores),)))
            rates = ChartSeries("learning rate", "raw", course["learning_rate"].points(CHART_POINTS))
            charts.append(LiveChart("Learning rate", label, (rates,)))
        return charts

    def _likely_metric(self) -> str:
        """The first score of a validation that is not a loss."""
        names = [name for name, _ in _scores(self.tail.other[-1])] if self.tail.other else []
        return names[0].replace(" ", "_") if names else ""


def _update_of(line: Line) -> tuple[str, float] | None:
    return None if line.get("epoch") is not None else ("updates", float(line["update"]))


def _scores(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The scores of a validation's line, by name."""
    names = [name for name in line if name.startswith("eval_") and not NOT_SCORES.match(name)]
    values = [(name.removeprefix("eval_").replace("_", " "), number_in(line, name)) for name in names]
    return [(name[:60], f"{value:.4f}") for name, value in values if value is not None]


def _score_tables(results: Mapping[str, Any] | None) -> list[LiveTable]:
    if not results:
        return []
    names = [name for name in results if name.startswith(("eval_", "test_")) and not NOT_SCORES.match(name)]
    rows = []
    for name in names[:MOST_SCORES]:
        value, spread = number_in(results, name), number_in(results, f"{name}_sd")
        if value is not None:
            words = f"{value:.4f}" if spread is None else f"{value:.4f} (sd {spread:.4f})"
            rows.append((name.replace("_", " ")[:60], words))
    return [LiveTable("Scores", ("score", "value"), tuple(rows), numbers=(1,))] if rows else []
