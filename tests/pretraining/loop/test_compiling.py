from dataclasses import replace

import pytest

from pretraining.checkpoints.position import Position
from pretraining.loop.compiling import LEAST_SECONDS_LEFT, Compiling
from pretraining.loop.loop import COMPILATION_SECONDS
from tests.pretraining.loop.test_loop import loop

LONG = 10 * LEAST_SECONDS_LEFT


class Recorded:
    def __init__(self):
        self.calls = []

    def start(self, *, must=False):
        self.calls.append("must start" if must else "start")

    def stop(self):
        self.calls.append("stop")


def decision(mode="auto", compiled=None):
    compilation = Recorded()
    return Compiling(compilation, mode=mode, compiled=compiled), compilation.calls


def test_a_long_run_is_compiled_and_the_gain_measured():
    made, calls = decision()
    assert made.after_exchange(1, 0.1, LONG) == {}  # the first interval does not count
    assert made.after_exchange(6, 3.0, LONG) == {}
    assert (calls, made.compiled) == ([], None)
    assert made.after_exchange(1, 1.0, LONG) == {}
    assert (calls, made.compiled, made.interval) == (["start"], True, 1)
    assert made.after_exchange(1, 41.0, LONG) == {"compile_seconds": 40.0}
    assert made.interval is None
    assert made.after_exchange(2, 21.0, LONG) == {}  # a second shape is compiled
    assert made.after_exchange(2, 0.6, LONG) == {}
    assert made.after_exchange(2, 0.5, LONG) == {"compile_gain": 2.0}
    assert (calls, made.compiled) == (["start"], True)
    assert made.after_exchange(2, 0.5, LONG) == {}


def test_a_run_that_gains_nothing_goes_back():
    made, calls = decision()
    for seconds in (5.0, 1.0, 30.0, 1.01, 0.99, 1.2):
        figures = made.after_exchange(4, seconds, LONG)
    assert figures == {"compile_gain": 1.01}
    assert (calls, made.compiled) == (["start", "stop"], False)


def test_a_short_run_is_not_compiled():
    made, calls = decision()
    for _ in range(5):
        made.after_exchange(10, 1.0, LEAST_SECONDS_LEFT - 1)
    assert (calls, made.compiled) == ([], None)


@pytest.mark.parametrize(
    ("mode", "compiled", "started"),
    [
        ("true", None, ["must start"]),
        ("true", False, ["must start"]),
        ("false", True, []),
        ("auto", True, ["start"]),
        ("auto", False, []),
    ],
)
def test_what_is_given_holds_for_this_start_and_what_auto_settled_for_all(mode, compiled, started):
    made, calls = decision(mode, compiled)
    assert calls == started
    made.after_exchange(9, 1.0, LONG)
    assert calls == started
    assert made.settled is compiled  # what the next start reads
    assert not made.is_deciding


def test_what_auto_settles_is_recorded():
    made, _ = decision()
    seen = []
    for seconds in (5.0, 1.0, 30.0, 0.5, 0.5, 0.5, 0.5):
        seen.append((made.is_deciding, made.settled))
        made.after_exchange(4, seconds, LONG)
    assert seen == [(True, None)] * 2 + [(True, True)] * 4 + [(False, True)]


def test_an_update_that_compiles_does_not_count_as_hanging(monkeypatch):
    armed = []
    monkeypatch.setattr("pretraining.loop.loop.arm_watchdog", armed.append)
    for mode, longest in (("true", 5 + COMPILATION_SECONDS), ("false", 5)):
        training, diary = loop()
        training.options = replace(training.options, hang_timeout_seconds=5)
        training.compiling, _ = decision(mode)
        diary.seconds_left = lambda position, seconds: 0.0
        training.run(Position())
        assert set(armed) == {longest}
        armed.clear()
