import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.streaming.order import Order, lanes_for, lanes_of, rows_per_rank

block_rows = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def rank_rows(order, first_row, count, rank, world_size):
    return order.locate(first_row, count, lanes_of(rank, world_size, order.num_lanes))


@settings(max_examples=60, deadline=None)
@given(
    rows=block_rows,
    batch=st.integers(1, 96),
    world=st.integers(1, 64),
    seed=st.integers(0, 5),
    window=st.integers(1, 8),
)
def test_every_row_is_read_once_per_epoch_whatever_the_world_size(rows, batch, world, seed, window):
    lanes = lanes_for(batch)
    world = min(world, lanes)
    order = Order(np.array(rows), seed, lanes, window_rows=window)
    epochs = 3
    count = order.rows_per_epoch * epochs
    parts = [rank_rows(order, 0, count, rank, world) for rank in range(world)]
    numbers, blocks, inside = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert sorted(numbers.tolist()) == list(range(count))
    every = sorted((block, row) for block, total in enumerate(rows) for row in range(total))
    for epoch in range(epochs):
        chosen = numbers // order.rows_per_epoch == epoch
        assert sorted(zip(blocks[chosen].tolist(), inside[chosen].tolist(), strict=True)) == every


@settings(max_examples=40, deadline=None)
@given(rows=block_rows, batch=st.integers(1, 64), world=st.integers(1, 64), updates=st.integers(1, 6))
def test_each_rank_has_the_same_number_of_rows_after_padding(rows, batch, world, updates):
    lanes = lanes_for(batch)
    world = min(world, lanes)
    order = Order(np.array(rows), 1, lanes)
    padded = rows_per_rank(world, lanes, batch)
    for update in range(updates):
        sizes = [len(rank_rows(order, update * batch, batch, rank, world)[0]) for rank in range(world)]
        assert sum(sizes) == batch
        assert max(sizes) == padded


@settings(max_examples=60, deadline=None)
@given(
    rows=block_rows,
    lanes=st.integers(1, 12),
    start=st.integers(0, 300),
    pieces=st.lists(st.integers(1, 40), max_size=6),
)
def test_any_resume_point_and_any_piece_size_give_the_same_rows(rows, lanes, start, pieces):
    whole = Order(np.array(rows), 7, lanes, window_rows=4)
    expected = whole.locate(0, start + sum(pieces), range(lanes))
    resumed = Order(np.array(rows), 7, lanes, window_rows=4)
    position = start
    for piece in pieces:
        part = resumed.locate(position, piece, range(lanes))
        for got, want in zip(part, expected, strict=True):
            np.testing.assert_array_equal(got, want[position : position + piece])
        position += piece


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 48])
def test_a_rank_reads_the_blocks_of_its_lanes_only(world_size):
    order = Order(np.full(480, 10), 0, 48)
    counts = [len(set(rank_rows(order, 0, 4800, rank, world_size)[1].tolist())) for rank in range(world_size)]
    assert max(counts) <= 480 // world_size + 48 // world_size + 2


def test_a_lane_reads_one_shard_after_another():
    order = Order(np.full(64, 4), 3, 4, blocks_per_shard=np.full(8, 8), window_rows=4)
    _, blocks, _ = order.locate(0, order.rows_per_epoch, range(1))
    shards = blocks // 8
    assert len(set(shards.tolist())) == 2
    assert (np.diff(shards) != 0).sum() == 1


def test_fewer_shards_and_rows_than_ranks_and_workers_work():
    order = Order(np.array([2]), 0, 64, blocks_per_shard=np.array([1]))
    rows = [rank_rows(order, 0, 128, rank, 64)[0] for rank in range(64)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(128))


def test_epochs_and_seeds_differ():
    order, other = (Order(np.full(40, 5), seed, 8) for seed in (0, 1))
    first, second = (list(zip(*order.locate(start, 200, range(8))[1:], strict=True)) for start in (0, 200))
    assert first != second
    assert first != list(zip(*other.locate(0, 200, range(8))[1:], strict=True))


def test_more_ranks_than_lanes_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"64 ranks for 48 lanes.*global_batch_rows"):
        lanes_of(0, 64, 48)


@pytest.mark.parametrize("lanes", [48, 256])
def test_more_ranks_than_any_stream_has_lanes_are_refused_without_a_remedy_that_cannot_work(lanes):
    with pytest.raises(ValueError, match=r"257 ranks: .* at most 256 ranks; use fewer ranks") as refusal:
        lanes_of(0, 257, lanes)
    assert "global_batch_rows" not in str(refusal.value)


@pytest.mark.parametrize(("batch", "lanes"), [(1, 1), (48, 48), (256, 256), (257, 1), (512, 256), (384, 192)])
def test_lanes_are_the_largest_divisor_up_to_256(batch, lanes):
    assert lanes_for(batch) == lanes


def test_the_order_of_a_seed_never_changes():
    _, blocks, inside = Order(np.array([3, 2, 4]), 5, 3, blocks_per_shard=np.array([2, 1])).locate(0, 18, range(3))
    assert list(zip(blocks.tolist(), inside.tolist(), strict=True)) == [
        (1, 1),
        (2, 0),
        (2, 1),
        (1, 0),
        (0, 1),
        (2, 3),
        (0, 0),
        (0, 2),
        (2, 2),
        (2, 2),
        (1, 1),
        (0, 2),
        (2, 1),
        (1, 0),
        (0, 1),
        (2, 0),
        (2, 3),
        (0, 0),
    ]
