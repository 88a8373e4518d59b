"""A study from its files: cells done, running and to come, the curve so far, the time left."""

import fcntl
import json
import os

import pytest

from gap.cells.job_list import read_jobs
from gap.watch import owners
from gap.watch.readers.study_run import StudyReader
from gap.watch.view import CellState, LiveState

DONE, RUNNING, TO_COME = CellState.DONE, CellState.RUNNING, CellState.TO_COME


def view_of(folder):
    return StudyReader(folder, folder.name).view()


def claim(folder, job):
    path = folder / "claims" / read_jobs(folder).fingerprint(job)[:24]
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def test_cells_fill_as_they_are_done(written):
    folder = written.study("a", done=4)
    claim(folder, read_jobs(folder).plan.cells[4])
    view = view_of(folder)
    assert (view.state, view.done, view.share) == (LiveState.RUNNING, "4 of 6 cells", pytest.approx(4 / 6))
    (grid,) = view.grids
    assert grid.rows == (("scratch", (DONE, DONE, DONE)), ("annealed 1 k", (DONE, RUNNING, TO_COME)))
    # A cell takes 60 s, the running one has just begun, the two tries of the unfinished setting as long as a cell.
    assert view.seconds_left == pytest.approx(240, abs=5)
    assert dict(view.figures)["search tries"] == "0 done, 2 to come"
    assert view.tables[0].rows[0][0] == "qa, annealed 1 k, seed 1"
    assert view.tables[1].rows[0][:2] == ("qa, annealed 1 k, seed 0", "0.5300")


def test_the_curve_says_how_many_cells_it_has_and_draws_no_interval(written):
    (chart,) = view_of(written.study("a", done=5)).charts
    assert chart.title == "qa: exact match, 5 of 6 cells, means so far, no intervals"
    assert chart.series[0].points == ((1000.0, pytest.approx(0.535)),)
    assert not chart.series[0].band
    assert chart.levels == (("scratch", "scratch", pytest.approx(0.51)),)


def test_without_a_finished_cell_no_time_is_named(written):
    folder = written.study("a")
    claim(folder, read_jobs(folder).plan.searches[0])
    view = view_of(folder)
    assert (view.state, view.seconds_left, view.charts) == (LiveState.RUNNING, None, ())
    assert view.tables[0].rows[0][0] == "search for qa, scratch: rate 0.0001, epochs 3"


def test_a_search_beyond_its_grid_is_work_too(written):
    folder = written.study("a", done=3)
    (folder / "claims").mkdir()
    (folder / "claims" / ("f" * 24)).touch()
    view = view_of(folder)
    assert dict(view.figures)["running now"] == "1"
    assert view.seconds_left == pytest.approx(5 * 60)


def test_a_finished_study_has_its_answer_and_intervals(written):
    folder = written.study("a", done=6, owner="gone")
    assert view_of(folder).state == LiveState.STALE
    assert "report is not written" in view_of(folder).reason
    point = {"kind": "annealed", "budget_tokens": 1000, "score": {"value": 0.54, "low": 0.5, "high": 0.6}}
    curve = {"tasks": [{"task": "qa", "answer": "90 % is closed.", "checkpoints": [point]}], "confidence": 0.9}
    (folder / "curve.json").write_text(json.dumps(curve))
    (folder / "report.html").write_text("<html>")
    view = view_of(folder)
    assert (view.state, view.answers) == (LiveState.FINISHED, ("90 % is closed.",))
    assert view.charts[0].series[0].band == ((0.5, 0.6),)
    assert view.charts[0].title.endswith("90 % intervals of the report")


def test_more_seeds_make_a_finished_study_unfinished_again(written):
    folder = written.study("a", done=6, owner="gone")
    (folder / "report.html").write_text("<html>")
    assert view_of(folder).state == LiveState.FINISHED
    lines = (folder / "scores.jsonl").read_text().splitlines(keepends=True)
    (folder / "scores.jsonl").write_text("".join(lines[:5]))
    assert view_of(folder).state == LiveState.STALE
    (folder / "report.html").write_text("<html>")
    assert view_of(folder).state == LiveState.STALE


def test_a_claim_that_a_killed_worker_left_is_not_a_running_cell(written):
    folder = written.study("a")
    cells = read_jobs(folder).plan.cells
    old, live = claim(folder, cells[0]), claim(folder, cells[1])
    with (folder / "run.lock").open("a") as lock, live.open("a") as mine:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(mine, fcntl.LOCK_EX)
        if os.fstat(lock.fileno()).st_ino not in (owners.held_inodes() or ()):
            pytest.skip("this system does not tell which files are locked")
        assert view_of(folder).grids[0].rows[0][1] == (TO_COME, RUNNING, TO_COME)
    assert old.is_file()
    written.lock(folder, "gone")
    assert view_of(folder).grids[0].rows[0][1] == (TO_COME, TO_COME, TO_COME)


def test_an_array_job_runs_though_the_command_that_sent_it_has_ended(written):
    folder = written.study("a", done=1, owner="gone")
    (folder / "slurm").mkdir()
    assert view_of(folder).state == LiveState.RUNNING  # its files have just changed
    for name in ("cells.json", "scores.jsonl"):
        os.utime(folder / name, (1e9, 1e9))
    assert view_of(folder).state == LiveState.STALE
    path = claim(folder, read_jobs(folder).plan.cells[1])
    os.utime(path, (1e9, 1e9))
    assert view_of(folder).state == LiveState.RUNNING
    assert view_of(folder).grids[0].rows[0][1] == (DONE, RUNNING, TO_COME)


def test_scores_of_other_code_do_not_count(written):
    folder = written.study("a", done=2)
    text = (folder / "cells.json").read_text().replace("c" * 64, "b" * 64)
    (folder / "cells.json").write_text(text)
    assert view_of(folder).done == "0 of 6 cells"


def test_a_damaged_list_or_scores_are_named(written):
    folder = written.study("a", done=2)
    with (folder / "scores.jsonl").open("a") as file:
        file.write('{"torn')
    assert view_of(folder).done == "2 of 6 cells"
    with (folder / "scores.jsonl").open("a") as file:
        file.write("\n")
    view = view_of(folder)
    assert view.state == LiveState.DAMAGED
    assert "scores.jsonl, line 3" in view.problems[0]
    (folder / "cells.json").write_text("{}")
    assert view_of(folder).state == LiveState.DAMAGED
