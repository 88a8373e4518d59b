"""Progress, budgets in their units, and positions read from a checkpoint."""

import json

import pytest

from pretraining.checkpoints.position import Position, position_from
from pretraining.plan.budget import Budget, Progress


def test_an_update_adds_to_everything_but_the_clock():
    progress = Progress(1, 12, 380, 2.0, 7.0).after(rows=12, tokens=384, flops=3.0)
    assert progress == Progress(2, 24, 764, 5.0, 7.0)


def test_one_progress_in_each_unit():
    progress = Progress(updates=3, rows=36, tokens=1152, flops=9e9, seconds=1800)
    spent = {unit: Budget(1.0, unit).spent(progress) for unit in ("tokens", "flops", "hours")}
    assert spent == {"tokens": 1152.0, "flops": 9e9, "hours": 0.5}


@pytest.mark.parametrize(("amount", "unit"), [(0, "tokens"), (-1, "hours"), (float("inf"), "flops"), (1, "epochs")])
def test_a_budget_that_buys_nothing_is_refused(amount, unit):
    with pytest.raises(ValueError, match="budget"):
        Budget(amount, unit)


def test_a_position_survives_its_state_file():
    position = Position(3, 40, Progress(30, 360, 11520, 1e9, 12.5), "step-00000030-002")
    state = json.loads(json.dumps(position.as_dict()))
    assert position_from(state, num_segments=6) == position


def test_names_sort_as_positions_do():
    positions = [Position(0, 9), Position(0, 10), Position(1, 10), Position(2, 99_999_999)]
    names = [position.checkpoint_name for position in positions]
    assert names == sorted(names)
    assert len(set(names)) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"fork": "../../outside"},
        {"fork": "/etc"},
        {"segment": 9},
        {"segment": -1},
        {"serial": "x"},
        {"progress": None},
        {"progress": {"updates": 1}},
        {"serial": 3},
    ],
)
def test_a_position_that_cannot_be_is_refused(change):
    state = {**Position(1, 40, Progress(30, 360, 11520, 1e9, 12.5)).as_dict(), **change}
    with pytest.raises(ValueError, match=r"state\.json"):
        position_from(state, num_segments=6)
