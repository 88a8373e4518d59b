"""Stopping a run when enough of the gap is closed: the condition, the looks, and what is written and said."""

import json
import sys
import time
from types import SimpleNamespace

import pytest
from pretraining_runs import on_forked_ranks
from tiny_gap import tiny_experiment, write_series, write_tasks

from gap.analysis.tables.task_table import CheckpointKey
from gap.cells.plan import Controls
from gap.intervals.interval import Estimate
from gap.intervals.spending import look_confidence
from gap.study import until
from gap.study.until import GapWatch, parse_condition
from runtime.processes import ranks
from runtime.processes.interruption import arm_watchdog, disarm_watchdog
from runtime.processes.ranks import Ranks


def watch(tmp_path, **more):
    tasks = write_tasks(tmp_path / "tasks")
    defaults = {"reference": "ref", "budgets": [100.0, 200.0]}
    experiment = tiny_experiment(tasks[:1], tasks_at_ends=tasks[1:2], controls=Controls((2.0,)))
    return GapWatch(tmp_path / "run", "gap_closed>=0.9", experiment, **{**defaults, **more})


def entry(budget, kind="annealed"):
    return {"kind": kind, "budget_tokens": budget, "budget": budget, "seconds": 36.0 * budget, "tokens_seen": budget}


def fake_study(task, closed, gap_low=0.1):
    """A study whose gap closed has this interval at every budget."""

    def estimate(statistic, columns, bounds=None):
        return Estimate(closed[0], closed[1], closed[2])

    return SimpleNamespace(
        table=SimpleNamespace(task=task, find=lambda checkpoint: 1 if isinstance(checkpoint, CheckpointKey) else None),
        in_series=False,
        reference=2,
        scratch=0,
        difference=lambda column, other: Estimate(0.5, gap_low, 0.9),
        closed=lambda columns: None,
        estimate=estimate,
    )


def test_conditions():
    assert parse_condition("gap_closed>=0.9") == 0.9
    assert parse_condition(" gap_closed >= .95 ") == 0.95
    assert parse_condition("gap_closed>=1") == 1.0
    for wrong in ("gap_closed>0.9", "score>=0.9", "gap_closed>=90", "gap_closed>=0.0", "__import__('os')"):
        with pytest.raises(ValueError, match="--until"):
            parse_condition(wrong)


def test_a_reference_and_three_seeds_are_required(tmp_path):
    with pytest.raises(ValueError, match="--reference"):
        watch(tmp_path, reference=None)
    tasks = write_tasks(tmp_path / "tasks")
    with pytest.raises(ValueError, match="3 or more"):
        GapWatch(tmp_path, "gap_closed>=0.9", tiny_experiment(tasks[:1], finetuning_seeds=2), "ref", [1.0])


def judged(monkeypatch, tmp_path, *studies):
    confidences = []

    def read(path, *, confidence, planned, **more):
        assert planned == {"planned"}  # cells of an earlier call with other options lie in the same file
        confidences.append(confidence)
        return list(studies), []

    monkeypatch.setattr(until, "read_studies", read)
    monkeypatch.setattr(until, "read_jobs", lambda folder: SimpleNamespace(cell_names=lambda: frozenset({"planned"})))
    one = watch(tmp_path)
    one.run.mkdir(exist_ok=True)
    monkeypatch.setattr(GapWatch, "_write_list", lambda self: None)
    monkeypatch.setattr(GapWatch, "_run_cells", lambda self: None)
    return one, confidences


def test_only_annealed_checkpoints_are_looked_at(monkeypatch, tmp_path):
    one, confidences = judged(monkeypatch, tmp_path, fake_study("a", (0.99, 0.98, 1.0)))
    assert one(entry(100.0, "raw")) is None
    assert not confidences


def test_the_run_stops_when_the_lower_end_passes_and_says_what_it_saved(monkeypatch, tmp_path, capsys):
    one, confidences = judged(monkeypatch, tmp_path, fake_study("a", (0.95, 0.91, 0.99)))
    reason = one(entry(100.0))
    assert "Saved 50 % of the budget".replace(" %", "%") in reason
    assert "about 1.00 hours" in reason
    assert confidences == [look_confidence(1, 2)]
    sure = f"{100 * look_confidence(1, 2):.6g} % intervals"
    assert f"gap closed ({sure}): a 95.0% [91.0%, 99.0%]" in capsys.readouterr().out
    assert one.reached == reason
    content = json.loads((one.run / "until.json").read_text())
    assert content["looks"][0]["gap_closed"] == {"a": [0.95, 0.91, 0.99]}
    other = watch(tmp_path)
    other.condition = "gap_closed>=0.99"
    assert other.reached is None
    other = watch(tmp_path)
    assert other.reached == reason
    other.reference = "another"  # another question, whose answer is not known yet
    assert other.reached is None


def test_looks_of_a_version_without_a_later_option_are_this_runs_own(monkeypatch, tmp_path):
    one, _ = judged(monkeypatch, tmp_path, fake_study("a", (0.95, 0.91, 0.99)))
    reason, path = one(entry(100.0)), one.run / "until.json"
    content = json.loads(path.read_text())
    for part, name in ((content["asked"], "linear_probe"), (content["asked"]["controls"], "same_arguments")):
        del part[name]
    path.write_text(json.dumps(content))
    assert watch(tmp_path).reached == reason
    content["asked"]["controls"]["label_fractions"] = [0.5]
    path.write_text(json.dumps(content))
    assert watch(tmp_path).reached is None


@pytest.mark.parametrize(
    "studies",
    [
        [fake_study("a", (0.95, 0.89, 0.99))],  # the value passes, its lower end does not
        [fake_study("a", (0.95, 0.91, 0.99)), fake_study("b", (0.5, 0.4, 0.6))],  # one task of two
        [fake_study("a", (0.95, 0.91, 0.99), gap_low=-0.1)],  # there is no gap to close
    ],
)
def test_the_run_goes_on(monkeypatch, tmp_path, studies):
    one, confidences = judged(monkeypatch, tmp_path, *studies)
    assert one(entry(100.0)) is None
    assert one(entry(200.0)) is None
    assert confidences == [look_confidence(1, 2), look_confidence(2, 2)]
    assert one.reached is None
    assert [look["look"] for look in json.loads((one.run / "until.json").read_text())["looks"]] == [1, 2]


def test_a_look_may_take_longer_than_the_watchdog_and_the_collectives_wait(monkeypatch, tmp_path):
    one = watch(tmp_path, hang_timeout_seconds=3.0)
    one.run.mkdir()
    monkeypatch.setattr(ranks, "COLLECTIVE_TIMEOUT_SECONDS", 3.0)
    seconds = {0: 4.0, 1: 0.0}

    def look(rank):
        one.ranks = Ranks(rank, rank, 2, 2)
        command = [sys.executable, "-c", f"import time; time.sleep({seconds[rank]})"]
        monkeypatch.setattr(until, "worker_command", lambda directory, count: command)
        monkeypatch.setattr(one, "_write_list", lambda: time.sleep(4.0))
        monkeypatch.setattr(one, "_judge", lambda entry: "enough")
        arm_watchdog(3.0)
        reason = one(entry(100.0))
        disarm_watchdog()
        return reason

    assert on_forked_ranks(look, tmp_path, num_ranks=2) == ["enough", None]


def test_what_the_main_rank_cannot_do_fails_on_every_rank(monkeypatch, tmp_path):
    one = watch(tmp_path)

    def fails():
        raise ValueError("no such task")

    def look(rank):
        one.ranks = Ranks(rank, rank, 2, 2)
        monkeypatch.setattr(one, "_write_list", fails)
        with pytest.raises(ValueError, match="no such task"):
            one(entry(100.0))

    assert on_forked_ranks(look, tmp_path, num_ranks=2) == [None, None]


@pytest.mark.slow
def test_real_cells_are_run_by_a_worker_and_judged(tmp_path):
    run = write_series(tmp_path / "run", (100,)).parent
    reference = write_series(tmp_path / "other", (300,)).parent / "series" / "annealed-300"
    one = watch(tmp_path, reference=str(reference), draws=200)
    assert one(entry(100.0)) is None  # random weights close nothing
    scores = [json.loads(line) for line in (run / "until" / "scores.jsonl").read_text().splitlines()]
    assert {(score["kind"], score["task"]) for score in scores} == {
        ("raw", "questions"), ("annealed", "questions"), ("reference", "questions"),
    }  # fmt: skip
    assert len(scores) == 9


def test_a_search_that_cannot_be_is_refused_before_training(tmp_path):
    """It was an error at the first look, after the budget before it had been trained."""
    reference = write_series(tmp_path / "other").parent / "series" / "annealed-200"
    experiment = tiny_experiment(write_tasks(tmp_path / "tasks")[:1], resample_split=True)
    found = GapWatch(tmp_path / "run", "gap_closed>=0.9", experiment, str(reference), [100.0, 200.0], width=16)
    with pytest.raises(ValueError, match="--resample_split"):
        found.check()
