"""A named place, where a test lets a process die, fail or hang."""

from __future__ import annotations

import pytest

from runtime.processes import fault_points
from runtime.processes.fault_points import fault_point


@pytest.fixture
def fault(monkeypatch):
    def switch_on(specification):
        monkeypatch.setattr(fault_points, "_specification", specification)
        monkeypatch.setattr(fault_points, "_passed", fault_points.Counter())

    return switch_on


def test_a_fault_happens_at_its_place_and_time_only(fault, monkeypatch):
    fault("here:2:fail")
    assert not fault_point("elsewhere")
    assert not fault_point("here")
    with pytest.raises(OSError, match="here"):
        fault_point("here")
    assert not fault_point("here")
    fault("here:1:fail")
    monkeypatch.setenv("FAULT_RANK", "1")
    assert not fault_point("here", rank=0)
    with pytest.raises(OSError, match="here"):
        fault_point("here", rank=1)


def test_not_a_number_once_or_from_then_on(fault):
    fault("loss:2:nan")
    assert [fault_point("loss") for _ in range(4)] == [False, True, False, False]
    fault("loss:2:nan_on")
    assert [fault_point("loss") for _ in range(4)] == [False, True, True, True]


def test_a_misspelt_action_is_refused(fault):
    fault("here:1:explode")
    with pytest.raises(ValueError, match="explode"):
        fault_point("here")
