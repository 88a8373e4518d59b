"""The loop over a plan's segments, with an engine that only counts: order, forks, saves, clock, skips and stops."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pretraining.checkpoints.position import Position
from pretraining.loop.loop import LoopOptions, NotFinite, TrainingLoop, exchange_interval, seed_update
from pretraining.plan.budget import Budget, Progress
from pretraining.plan.segments import plan_segments
from runtime.processes.interruption import Interrupted
from runtime.processes.ranks import Ranks

ROWS, TOKENS_PER_ROW = 4, 10


class CountingEngine:
    """Its weights are a count of updates; `losses` gives the loss of a row's update."""

    loss_scaling = None

    def __init__(self, losses=lambda row: 1.0):
        self.ranks, self.device, self.losses = Ranks(), torch.device("cpu"), losses
        self.weights, self.rates = 0, []

    def __call__(self, input_ids, **inputs):
        loss = torch.tensor(float(self.losses(int(input_ids[0, 0]))), requires_grad=True)
        return {"loss_sum": loss, "mask_count": torch.tensor(1.0), "correct": torch.tensor(0.0)}

    def backward(self, loss, *, last):
        self.norm = loss.detach()

    def step(self, learning_rate):
        self.rates.append(learning_rate)
        self.weights += bool(torch.isfinite(self.norm))
        return self.norm

    def train(self):
        pass


class Rows:
    """One micro-batch an update, which holds its first row."""

    def batches(self, first_row, num_workers=0):
        while True:
            yield SimpleNamespace(
                input_ids=np.full((1, 2), first_row),
                attention_mask=None,
                token_type_ids=None,
                mask_positions=np.zeros((1, 1), np.int64),
                mask_labels=np.zeros((1, 1), np.int64),
                mask_weights=np.ones((1, 1), np.float32),
                next_sentence_labels=None,
                next_sentence_weights=None,
            )
            first_row += ROWS

    def tokens_between(self, first_row, last_row):
        return (last_row - first_row) * TOKENS_PER_ROW


class Diary:
    """The run's side: writes down every call, keeps checkpoints in memory."""

    def __init__(self, engine, stop_at=None):
        self.engine, self.stop_at, self.calls, self.lines, self.kept = engine, stop_at, [], [], {}
        self.full_from = None  # the update from which on a save in the background has failed

    def stop_requested(self):
        return "SIGTERM" if self.stop_at is not None and self.lines[-1]["serial"] >= self.stop_at else None

    def record(self, lines):
        self.lines += lines

    def poll(self):
        if self.full_from is not None and self.lines[-1]["serial"] >= self.full_from:
            raise OSError("No space left")

    def save(self, position):
        self.calls.append(("save", position.segment, position.serial))
        self.kept[position.checkpoint_name] = (position, self.engine.weights)
        return position.checkpoint_name

    def export(self, segment, progress):
        self.calls.append((segment.kind, segment.budget, progress.tokens, self.engine.weights))

    def restore(self, name):
        self.calls.append(("restore", name))
        position, self.engine.weights = self.kept[name]
        return position.progress


def loop(engine=None, *, budgets=(200.0, 400.0), decay=0.2, stop_at=None, **options):
    engine = engine or CountingEngine()
    diary = Diary(engine, stop_at)
    settings = LoopOptions(ROWS, 1, peak_learning_rate=1.0, warmup=20.0, hang_timeout_seconds=0, **options)
    segments = plan_segments(budgets, decay_fraction=decay, raw=True)
    built = TrainingLoop(
        engine, Rows(), segments, Budget(400.0), settings, flops_of_update=lambda row: 7.0, callbacks=diary
    )
    return built, diary


def test_branches_leave_the_trunk_as_it_was():
    training, diary = loop()
    training.run(Position())
    published = [call for call in diary.calls if call[0] in ("raw", "annealed")]
    # 40 tokens an update: 200 is the fifth, 400 the tenth; weights count the updates that led to each model.
    assert published == [
        ("annealed", 200.0, 200, 5),
        ("raw", 200.0, 200, 5),
        ("annealed", 400.0, 400, 10),
        ("raw", 400.0, 400, 10),
    ]
    rows = {label: [] for label in ("trunk", "branch to 200", "branch to 400")}
    for line in diary.lines:
        rows[line["segment"]].append(line["rows"][0])
    assert rows["trunk"] == list(range(0, 40, ROWS))
    assert rows["branch to 200"] == [16]
    assert rows["branch to 400"] == [32, 36]
    assert [line["serial"] for line in diary.lines] == list(range(1, 14))
    assert training.position.progress.tokens == 400
    assert training.position.progress.flops == 70.0


def test_only_branches_decay():
    training, diary = loop(decay=0.4)
    training.run(Position())
    for line in diary.lines:
        warm = line["tokens"] > 40
        if line["segment"] == "trunk":
            assert line["learning_rate"] == (1.0 if warm else pytest.approx(1.0))
    branch = [line["learning_rate"] for line in diary.lines if line["segment"] == "branch to 400"]
    assert branch == sorted(branch, reverse=True)
    assert 0 < branch[-1] < branch[0] < 1


@pytest.mark.parametrize("stop_at", range(1, 13))
def test_stopped_anywhere_and_continued_it_is_the_same_run(stop_at):
    whole, expected = loop()
    whole.run(Position())
    first, diary = loop(stop_at=stop_at, save_every_updates=1)
    with pytest.raises(Interrupted, match="SIGTERM"):
        first.run(Position())
    position, weights = list(diary.kept.values())[-1]
    engine = CountingEngine()
    engine.weights = weights
    second, later = loop(engine)
    later.kept = diary.kept
    second.run(position)
    lines = [*diary.lines, *later.lines]
    assert [(line["serial"], line["segment"], line["rows"]) for line in lines] == [
        (line["serial"], line["segment"], line["rows"]) for line in expected.lines
    ]
    published = [call for call in [*diary.calls, *later.calls] if call[0] in ("raw", "annealed")]
    assert published == [call for call in expected.calls if call[0] in ("raw", "annealed")]


def test_saved_every_so_many_updates():
    training, diary = loop(save_every_updates=3)
    training.run(Position())
    assert {3, 6, 9, 12} <= {call[2] for call in diary.calls if call[0] == "save"}


@pytest.mark.parametrize("every", [1, 2])
def test_a_save_that_fails_in_the_background_ends_the_run_at_the_next_exchange_before_another_save(every):
    training, diary = loop(save_every_updates=every)
    diary.full_from = 3
    with pytest.raises(OSError, match="No space left"):
        training.run(Position())
    assert diary.lines[-1]["serial"] == 3 + (3 % every)
    assert max(serial for name, _, serial in diary.calls if name == "save") < diary.lines[-1]["serial"]


def test_an_update_that_is_not_finite_is_skipped_and_counted():
    training, diary = loop(CountingEngine(lambda row: float("nan") if row == 4 else 1.0))
    training.run(Position())
    skipped = [line for line in diary.lines if line.get("skipped")]
    assert [line["rows"] for line in skipped] == [[4, 7]]
    assert training.engine.weights == 9
    assert training.position.progress.updates == 10


def test_too_many_in_a_row_end_the_run_and_nothing_is_saved_in_between():
    poisoned = CountingEngine(lambda row: float("inf") if row >= 8 else 1.0)
    training, diary = loop(poisoned, budgets=(4000.0,), max_skipped_updates=3, save_every_updates=1)
    with pytest.raises(NotFinite, match=r"3 updates in a row .* update 5 \(rows \[16, 19\]\)"):
        training.run(Position())
    assert [call for call in diary.calls if call[0] == "save"] == [("save", 0, 1), ("save", 0, 2)]
    assert poisoned.weights == 2


def test_a_spike_is_marked_with_its_rows():
    training, diary = loop(CountingEngine(lambda row: 50.0 if row == 160 else 2.0 + row % 8 / 100), budgets=(4000.0,))
    training.run(Position())
    marked = {(line["segment"], tuple(line["rows"])) for line in diary.lines if line.get("spike")}
    assert marked == {("trunk", (160, 163))}


def test_the_clock_stands_still_while_saving_and_exporting(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    engine = CountingEngine()
    training, diary = loop(engine)
    step, save, export = engine.step, diary.save, diary.export
    engine.step = lambda rate: (now.__setitem__(0, now[0] + 1.0), step(rate))[1]
    diary.save = lambda position: (now.__setitem__(0, now[0] + 100.0), save(position))[1]
    diary.export = lambda *arguments: (now.__setitem__(0, now[0] + 1000.0), export(*arguments))[1]
    training.run(Position())
    # Ten updates on the trunk; the branches' seconds are theirs.
    assert training.position.progress.seconds == pytest.approx(10.0)
    assert all(line["tokens_per_second"] == pytest.approx(40.0) for line in diary.lines)


def test_a_budget_in_hours_ends_by_the_clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    engine = CountingEngine()
    diary = Diary(engine)
    step = engine.step
    engine.step = lambda rate: (now.__setitem__(0, now[0] + 36.0), step(rate))[1]
    segments = plan_segments((0.1,), decay_fraction=0.2, raw=True)
    options = LoopOptions(ROWS, 1, peak_learning_rate=1.0, warmup=0.0, hang_timeout_seconds=0)
    training = TrainingLoop(
        engine, Rows(), segments, Budget(0.1, "hours"), options, flops_of_update=lambda row: 7.0, callbacks=diary
    )
    training.run(Position())
    assert training.position.progress.seconds / 3600 == pytest.approx(0.1, abs=0.011)


def test_exchanges_are_about_a_second_apart_and_never_miss_a_save():
    assert exchange_interval(0.0, 0, 7) == 50
    assert exchange_interval(0.1, 0, 7) == 10
    assert exchange_interval(60.0, 0, 7) == 1
    assert exchange_interval(0.01, 8, 13) == 3


def test_dropout_depends_on_update_rank_and_branch_only():
    def drawn(*place, **kind):
        seed_update(0, *place, **kind)
        return torch.rand(4).tolist()

    first = drawn(3, 1, is_branch=False)
    assert drawn(3, 1, is_branch=False) == first
    others = [drawn(4, 1, is_branch=False), drawn(3, 0, is_branch=False), drawn(3, 1, is_branch=True)]
    assert first not in others


def test_a_progress_of_another_kind_of_run_is_not_shared():
    assert Position().progress == Progress()


class ScaledEngine(CountingEngine):
    """fp16 whose every gradient overflows, at the scale given."""

    def __init__(self, scale):
        super().__init__()
        self.loss_scaling = SimpleNamespace(scale=torch.tensor(scale), smallest=4.0)

    def step(self, learning_rate):
        return torch.tensor(math.inf)


@pytest.mark.parametrize(("scale", "ends"), [(8.0, False), (4.0, True), (1.0, True)])
def test_a_loss_scale_that_cannot_be_halved_is_no_excuse(scale, ends):
    """The smallest scale is the engine's: a DeepSpeed JSON may name another."""
    training, diary = loop(ScaledEngine(scale), max_skipped_updates=3, save_every_updates=1)
    if ends:
        with pytest.raises(NotFinite, match="3 updates in a row"):
            training.run(Position())
        assert [line["skipped"] for line in diary.lines] == [True] * 3
    else:
        training.run(Position())
        assert {line["skipped"] for line in diary.lines} == {"loss scale"}
