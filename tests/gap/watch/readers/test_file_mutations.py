"""The files of runs, changed at random: a view that names the file or shows what it can, never another error."""

from pathlib import Path

import pytest
from file_mutations import few_and_many, refusals

from gap.watch.board import Board
from gap.watch.page.cards import Cards
from gap.watch.terminal import lines_of
from gap.watch.view import LiveState

FILES = {
    "run.json": 0.1,
    "series.json": 0.2,
    "journal.jsonl": 0.0,
    "until.json": 0.1,
    "INTERRUPTED.json": 0.1,
    "run.lock": 0.0,
}
OF_STUDIES = {"cells.json": 0.2, "scores.jsonl": 0.2, "searches.jsonl": 0.1, "curve.json": 0.1, "run.lock": 0.0}
OF_SWEEPS = {"sweep.log": 0.0, "cells/0000000000000000/cell.json": 0.2, "cells/0000000000000000/all_results.json": 0.1}
TRY = '{"schema_version": 1, "fingerprint": "' + "a" * 64 + '", "seconds": 3.0, "task": "qa"}\n'
CURVE = '{"tasks": [{"task": "qa", "checkpoints": [{"kind": "raw", "budget_tokens": 1, "score": {"value": 0.5}}]}]}'


def refuse_what_is_shown_as_damaged(folder: Path):
    """A function that looks at the only run and draws it; ValueError with what its view says cannot be read."""

    def read():
        state = Board(folder, every=0.0).look()
        Cards().fragments(state)
        assert lines_of(state)
        for run in state.runs:
            Cards().body(run)
            assert run.view.state in LiveState
            if run.view.problems:
                raise ValueError(run.view.problems[0])

    return read


@few_and_many
@pytest.mark.parametrize("name", FILES)
def test_a_pretraining_run(written, name, rounds):
    folder = written.pretraining("a", exported=2, owner=None if name == "INTERRUPTED.json" else "gone")
    (folder / "until.json").write_text('{"stopped": null}')
    (folder / "INTERRUPTED.json").write_text('{"reason": "SIGTERM"}')
    refusals(folder / name, refuse_what_is_shown_as_damaged(folder), rounds, least=FILES[name], longest=1500)


@few_and_many
@pytest.mark.parametrize("name", OF_STUDIES)
def test_a_study(written, name, rounds):
    folder = written.study("a", done=6)
    (folder / "searches.jsonl").write_text(TRY + TRY.replace("a" * 64, "b" * 64))
    (folder / "curve.json").write_text(CURVE)
    (folder / "report.html").touch()
    refusals(folder / name, refuse_what_is_shown_as_damaged(folder), rounds, least=OF_STUDIES[name], longest=1500)


@few_and_many
@pytest.mark.parametrize("name", ["journal.jsonl", "all_results.json"])
def test_a_fine_tuning_run(written, name, rounds):
    folder = written.finetuning("a", results={"metric": "f1", "eval_f1": 0.5, "seconds": 3.0})
    least = 0.0 if name == "journal.jsonl" else 0.1
    refusals(folder / name, refuse_what_is_shown_as_damaged(folder), rounds, least=least, longest=1500)


@few_and_many
@pytest.mark.parametrize("name", OF_SWEEPS)
def test_a_sweep(written, name, rounds):
    folder = written.sweep("a", ["finished", "running", "failed"], total=3)
    refusals(folder / name, refuse_what_is_shown_as_damaged(folder), rounds, least=OF_SWEEPS[name], longest=1500)


@few_and_many
def test_a_build(written, rounds):
    folder = written.build("a")
    refusals(folder / "manifest.json", refuse_what_is_shown_as_damaged(folder), rounds, least=0.1, longest=1500)
