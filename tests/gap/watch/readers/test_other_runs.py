"""Fine-tuning runs, sweeps and builds from their files."""

import json
from pathlib import Path

import pytest

from gap.watch.readers.finetuning_run import FinetuningReader
from gap.watch.readers.shard_build import BuildReader
from gap.watch.readers.sweep_run import SIZE_LINE, SweepReader
from gap.watch.view import CellState, LiveState

ROOT = Path(__file__).resolve().parents[4]
RESULTS = {"status": "done", "metric": "exact_match", "eval_exact_match": 0.75, "test_f1": 0.5, "seconds": 12.0}


def test_a_fine_tuning_run_in_progress(written):
    view = FinetuningReader(written.finetuning("a"), "a").view()
    assert (view.state, view.done, view.share) == (LiveState.RUNNING, "10 updates, 1 epoch", None)
    assert dict(view.figures)["exact match"] == "0.7500"
    assert [chart.title for chart in view.charts] == ["Loss", "Exact match", "Learning rate"]
    assert view.charts[0].series[0].points[0] == (1.0, 1.0)
    assert view.charts[0].series[1].points == ((10.0, 0.4),)


@pytest.mark.parametrize(
    ("results", "owner", "state"),
    [
        (RESULTS, "gone", LiveState.FINISHED),
        ({**RESULTS, "status": "collapsed", "reason": "one class"}, "gone", LiveState.FAILED),
        (None, "gone", LiveState.STALE),
    ],
)
def test_how_a_fine_tuning_run_ended(written, results, owner, state):
    view = FinetuningReader(written.finetuning("a", owner=owner, results=results), "a").view()
    assert view.state == state
    assert ("one class" in view.reason) == (state == LiveState.FAILED)
    assert bool(view.tables) == (results is not None)


def test_a_task_of_a_longer_command_has_the_lock_above(written):
    folder = written.finetuning("glue/sst2", owner=None)
    written.lock(written.root / "glue", "gone")
    assert FinetuningReader(folder, "a").view().state == LiveState.STALE


def test_a_sweep_in_progress(written):
    statuses = ["finished", "finished", "running", "failed"]
    view = SweepReader(written.sweep("a", statuses, total=8), "a").view()
    assert (view.state, view.done, view.share) == (LiveState.RUNNING, "3 of 8 cells", 3 / 8)
    assert view.seconds_left == pytest.approx(30 * 5)
    (grid,) = view.grids
    counts = {CellState.DONE: 2, CellState.FAILED: 1, CellState.RUNNING: 1, CellState.TO_COME: 4}
    assert grid.counts() == counts
    assert view.tables[1].rows[0] == ("learning_rate 0.1, seed 0", "f1", "0.6000")


def test_a_sweep_with_failed_cells_says_why_the_first_failed(written):
    view = SweepReader(written.sweep("a", ["finished", "failed"], total=2, owner="gone"), "a").view()
    assert (view.state, view.reason) == (
        LiveState.FAILED,
        "1 of 2 cells failed; the first: ValueError: no <b>such</b> file",
    )
    assert (
        SweepReader(written.sweep("b", ["finished"] * 2, total=2, owner="gone"), "b").view().state == LiveState.FINISHED
    )
    assert SweepReader(written.sweep("c", ["running"], total=2, owner="gone"), "c").view().state == LiveState.STALE


def test_a_sweep_s_size_is_read_as_the_sweep_writes_it():
    source = (ROOT / "finetuning" / "sweep" / "report.py").read_text()
    (line,) = (text for text in source.splitlines() if "settings x" in text)
    said = line.split('f"')[1].split('"')[0].replace("{sweep.recipe}", "qa")
    for part, number in (("cells", 12), ("rows", 4), ("seeds", 3)):
        said = said.replace(f"{{len(sweep.{part})}}", str(number))
    assert SIZE_LINE.findall(said) == [("12", "qa")]


def test_a_build_of_shards(written):
    view = BuildReader(written.build("a"), "a").view()
    assert (view.state, view.done) == (LiveState.FINISHED, "2 shards, 3 kB")
    assert dict(view.figures)["tokens"] == "3.46 k"
    assert view.tables[0].rows == (("train", "12", "3,456", "2"),)
    assert BuildReader(written.build("b", owner="here"), "b").view().state == LiveState.RUNNING
    assert BuildReader(written.build("c", owner="gone"), "c").view().state == LiveState.STALE
    (written.root / "a" / "manifest.json").write_text(json.dumps({"splits": 1}))
    damaged = BuildReader(written.root / "a", "a").view()
    assert damaged.state == LiveState.DAMAGED
    assert "manifest.json" in damaged.problems[0]
