"""Decisions that ranks share, among real processes that meet over gloo."""

from __future__ import annotations

import pytest
import torch
from pretraining_runs import on_forked_ranks

from runtime.processes.collectives import (
    PeerFailed,
    broadcast_json,
    fail_together,
    gather_json,
    largest,
    sum_over_ranks,
)

NUM_RANKS = 3


@pytest.fixture
def on_ranks(tmp_path):
    return lambda work: on_forked_ranks(work, tmp_path, num_ranks=NUM_RANKS)


def test_every_rank_learns_the_same(on_ranks):
    def work(rank):
        return [
            broadcast_json({"from": rank, "text": "ä" * 1000} if rank == 0 else None),
            gather_json({"rank": rank, "padding": "x" * 10**rank}),
            gather_json(None if rank else "only the first"),
            largest([float(rank), -float(rank)]),
            sum_over_ranks(torch.tensor([1.0, float(rank)])).tolist(),
        ]

    expected = [
        {"from": 0, "text": "ä" * 1000},
        [{"rank": rank, "padding": "x" * 10**rank} for rank in range(NUM_RANKS)],
        ["only the first", None, None],
        [2.0, 0.0],
        [3.0, 3.0],
    ]
    assert on_ranks(work) == [expected] * NUM_RANKS


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (OSError(28, "No space left on device"), ["PeerFailed", "OSError", "PeerFailed"]),
        (ValueError("wrong --option"), ["ValueError", "ValueError", "ValueError"]),
        (FileNotFoundError(2, "No such file", "a.json"), ["ValueError", "FileNotFoundError", "ValueError"]),
        (None, ["nothing"] * 3),
    ],
)
def test_they_fail_together_and_the_others_name_the_one(on_ranks, error, kinds):
    def work(rank):
        try:
            fail_together(error if rank == 1 else None, "writing")
        except (OSError, ValueError, PeerFailed) as caught:
            return [type(caught).__name__, str(caught)]
        return ["nothing", ""]

    seen = on_ranks(work)
    assert [kind for kind, _ in seen] == kinds
    if error is not None:
        assert seen[0][1] == f"rank 1 failed while writing: {error}"


def test_a_world_of_one_agrees_with_itself():
    assert broadcast_json([1]) == [1]
    assert gather_json("a") == ["a"]
    assert largest([2.0]) == [2.0]
    fail_together(None, "anything")
    with pytest.raises(OSError, match="mine"):
        fail_together(OSError("mine"), "anything")
