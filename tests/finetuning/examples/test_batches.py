"""Each row once, the same batches at every world size, little padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuning.examples.batches import BatchShape, batch_shape, evaluation_batches, rank_micro_batches, training_order
from finetuning.examples.recipe import FinetuningOptions
from finetuning.loop.schedule import make_schedule

sizes = st.integers(1, 300)


@given(sizes, st.integers(1, 40), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_has_each_row_once(num_rows, batch_rows, seed, epoch):
    lengths = np.random.default_rng(0).integers(1, 100, num_rows)
    batches = training_order(lengths, batch_rows=batch_rows, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(num_rows))
    assert sorted(len(batch) == batch_rows for batch in batches).count(False) <= 1


def test_order_depends_on_seed_and_epoch_and_groups_lengths():
    lengths = np.random.default_rng(0).integers(1, 400, 2000)
    batches = training_order(lengths, batch_rows=16, seed=0, epoch=0)
    for other in ({"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}):
        assert any(
            (a != b).any() for a, b in zip(batches, training_order(lengths, batch_rows=16, **other), strict=True)
        )
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert padded < 1.1 * lengths.sum()  # random batches of 16 would pad to about twice the sum
    assert np.corrcoef(range(len(batches)), [lengths[batch].mean() for batch in batches])[0, 1] < 0.5  # no curriculum


@given(sizes, st.integers(1, 5), st.integers(1, 8), st.integers(1, 4))
def test_ranks_and_micro_batches_share_a_batch(num_rows, world_size, micro_rows, accumulation):
    shape = BatchShape(world_size * micro_rows * accumulation, micro_rows, accumulation)
    batch = np.arange(min(num_rows, shape.global_rows))
    parts = [rank_micro_batches(batch, shape, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {accumulation}  # engines count micro-batches
    assert sorted(i for part in parts for rows in part for i in rows if i >= 0) == batch.tolist()
    for step in range(accumulation):
        assert len({len(part[step]) for part in parts}) == 1
        assert all(1 <= len(part[step]) <= micro_rows for part in parts)


@given(sizes, st.integers(1, 5), st.integers(1, 70))
def test_evaluation_has_each_row_once_in_equal_steps(num_rows, world_size, batch_rows):
    lengths = np.random.default_rng(1).integers(1, 100, num_rows)
    parts = [
        evaluation_batches(lengths, batch_rows=batch_rows, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert len({len(part) for part in parts}) == 1
    assert sorted(i for part in parts for rows in part for i in rows if i >= 0) == list(range(num_rows))
    for part in parts:
        for rows in part:
            real = [i >= 0 for i in rows]
            assert real == sorted(real, reverse=True)  # fillers come last


@pytest.mark.parametrize(
    ("options", "world_size", "expected"),
    [
        ({}, 1, BatchShape(32, 32, 1)),
        ({}, 2, BatchShape(32, 16, 1)),
        ({}, 3, BatchShape(32, 11, 1)),
        ({"per_device_train_batch_size": 4}, 2, BatchShape(8, 4, 1)),
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}, 1, BatchShape(2, 1, 2)),
        ({"global_batch_rows": 48, "per_device_train_batch_size": 8}, 2, BatchShape(48, 8, 3)),
        ({"global_batch_rows": 48, "gradient_accumulation_steps": 3}, 2, BatchShape(48, 8, 3)),
        ({"global_batch_rows": 7, "per_device_train_batch_size": 2}, 2, BatchShape(7, 2, 2)),
    ],
)
def test_batch_options_complete_each_other(options, world_size, expected):
    assert batch_shape(FinetuningOptions(**options), world_size) == expected


def test_contradictory_batch_options_are_refused():
    options = FinetuningOptions(global_batch_rows=48, per_device_train_batch_size=8, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match=r"takes 6 micro-batches, but --gradient_accumulation_steps is 2"):
        batch_shape(options, 1)
    with pytest.raises(ValueError, match="--global_batch_rows 0"):
        batch_shape(FinetuningOptions(global_batch_rows=0), 1)


def test_schedules():
    shape = BatchShape(10, 10, 1)
    linear = make_schedule(FinetuningOptions(num_train_epochs=2, learning_rate=1.0, warmup_ratio=0.1), 95, shape)
    rates = [linear.learning_rate(update) for update in range(linear.total_updates)]
    assert (linear.updates_per_epoch, linear.total_updates, linear.warmup_updates) == (10, 20, 2)
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert np.diff(rates[2:]) == pytest.approx(-1 / 18)
    assert rates[-1] == pytest.approx(1 / 18)
    constant = make_schedule(FinetuningOptions(lr_scheduler_type="constant", learning_rate=1.0, max_steps=7), 95, shape)
    assert [constant.learning_rate(update) for update in range(7)] == pytest.approx([0.5, *[1.0] * 6])
    for wrong in (
        {"lr_scheduler_type": "cosine"},
        {"warmup_ratio": 1.0},
        {"learning_rate": float("nan")},
        {"early_stopping_patience": -1},
        {"save_steps": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            make_schedule(FinetuningOptions(**wrong), 95, shape)
