"""A pretraining run from its files: state, share of the plan, time left, curves, checkpoints."""

import json

import pytest

from gap.watch.readers.pretraining_run import PretrainingReader, course_of
from gap.watch.view import LiveState
from runtime.files.json_lines import as_line


def view_of(folder):
    return PretrainingReader(folder, folder.name).view()


def add_lines(folder, lines):
    with (folder / "journal.jsonl").open("a") as file:
        file.writelines(map(as_line, lines))


def update(number, **changes):
    return {"update": number, "serial": number, "segment": "trunk", "tokens": 10 * number, "loss": 5.0, **changes}


def test_a_run_in_progress(written):
    view = view_of(written.pretraining("a", updates=80, exported=2))
    # The trunk has 800 of 1,000 tokens and the branch to 500 its 100; that to 1,000 has 200.
    assert view.state == LiveState.RUNNING
    assert view.share == pytest.approx(900 / 1300)
    assert view.seconds_left == pytest.approx(400 / 20)
    assert view.done == "800 of 1 k tokens"
    figures = dict(view.figures)
    assert figures["loss"] == f"{9 - 70.5 / 100:.3f}"
    assert (figures["tokens/s"], figures["learning rate"], figures["held-out loss"]) == ("20", "0.001", "8.500")
    loss, rate = view.charts
    assert loss.series[0].points[:2] == ((10.0, 8.99), (20.0, 8.98))
    assert [series.label for series in loss.series] == ["training", "held out, raw", "held out, annealed"]
    assert rate.series[0].points[0] == (10.0, 1e-3)
    assert view.tables[0].rows[0] == ("raw-500", "500", "8.5000", "25.0 %", "2.5 kB")


def test_the_share_of_the_plan_grows_with_every_line_of_a_whole_course(written):
    folder = written.pretraining("a", updates=0)
    course = course_of(folder)
    shares, spent = [], 0.0
    for segment in course.segments:
        if not segment.is_branch:
            spent = segment.start
        own = segment.start
        while own < segment.end:
            own += 10
            shares.append(course.done_at(segment.label, own) / course.total)
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(10 / 1300)
    assert shares[-1] == 1.0
    assert spent < 1000


def test_a_run_whose_series_is_whole_has_finished_whoever_holds_it(written):
    for owner in ("here", "gone", None):
        view = view_of(written.pretraining(f"of-{owner}", updates=100, exported=4, owner=owner))
        assert (view.state, view.share, view.seconds_left) == (LiveState.FINISHED, 1.0, None)
    assert view_of(written.pretraining("short", updates=100, exported=3, owner="gone")).state == LiveState.STALE


def test_a_run_that_its_watch_stopped_has_finished(written):
    folder = written.pretraining("a", owner="gone", exported=2)
    (folder / "until.json").write_text(json.dumps({"stopped": "qa 91 % closed"}))
    view = view_of(folder)
    assert (view.state, view.reason) == (LiveState.FINISHED, "qa 91 % closed")
    assert view.share < 1


def test_an_interrupted_and_a_dead_run_tell_what_to_do(written):
    folder = written.pretraining("a", owner="gone")
    assert view_of(folder).state == LiveState.STALE
    assert "run the same command again" in view_of(folder).reason
    (folder / "INTERRUPTED.json").write_text(json.dumps({"reason": "SIGTERM", "progress": {}}))
    assert view_of(folder).state == LiveState.INTERRUPTED


def test_a_budget_of_hours_and_one_of_flops(written):
    hours = {"budget_tokens": None, "budget_hours": 1.0, "series": "0"}
    folder = written.pretraining("h", updates=0, **hours)
    add_lines(folder, [update(number, seconds=9.0 * number) for number in range(1, 101)])
    view = view_of(folder)
    assert view.share == pytest.approx(0.25)
    assert view.seconds_left == pytest.approx(2700)
    assert view.done == "0.25 of 1 device-hours"
    folder = written.pretraining("f", updates=50, budget_tokens=None, budget_flops=1e8, series="0")
    assert view_of(folder).share == pytest.approx(0.5)
    assert view_of(folder).seconds_left == pytest.approx(25)


def test_losses_that_are_not_finite_and_a_run_without_updates_are_shown(written):
    folder = written.pretraining("a", updates=0)
    assert view_of(folder).reason == "it has not made an update yet"
    add_lines(folder, [update(1, loss=float("nan"))])
    view = view_of(folder)
    assert dict(view.figures)["loss"] == "not finite"
    assert view.state == LiveState.RUNNING


def test_damaged_files_are_named_and_the_rest_is_shown(written):
    folder = written.pretraining("a", exported=2)
    (folder / "series.json").write_text("{")
    (folder / "run.json").write_text("[]")
    view = view_of(folder)
    assert view.state == LiveState.RUNNING
    assert len(view.problems) == 2
    assert all(str(folder) in problem for problem in view.problems)
    assert dict(view.figures)["loss"] == "8.695"
    (folder / "journal.jsonl").write_text("")
    (folder / "run.lock").unlink()
    (folder / "INTERRUPTED.json").write_text("{}")
    assert view_of(folder).state == LiveState.DAMAGED


def test_a_reader_follows_its_run(written):
    folder = written.pretraining("a", updates=10)
    reader = PretrainingReader(folder, "a")
    assert reader.view().done == "100 of 1 k tokens"
    add_lines(folder, [update(11), update(12)])
    assert reader.view().done == "120 of 1 k tokens"
    assert not reader.view().tables
    for number in (1, 2):
        rows = [written.entry("raw", 500.0), written.entry("annealed", 500.0)][:number]
        (folder / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": rows}))
        assert len(reader.view().tables[0].rows) == number
