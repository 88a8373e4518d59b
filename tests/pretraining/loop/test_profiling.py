import json
import time

import pytest
import torch
from pretraining_runs import assert_same_course, in_process, write_shards

from pretraining.loop.profiling import OTHER, STAGES, TABLE_NAME, TRACE_NAME, WARM_UPDATES, Profiler, stage_table
from runtime.processes.ranks import Ranks


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


def test_a_profiled_run_writes_a_table_and_a_trace_and_computes_the_same(shards, tmp_path, capsys):
    in_process(shards, tmp_path / "plain")
    capsys.readouterr()
    in_process(shards, tmp_path / "profiled", {"profile": 3})
    table = (tmp_path / "profiled" / TABLE_NAME).read_text()
    assert table.strip() in capsys.readouterr().out
    shares = {line[:20].strip(): float(line[33:].split("%")[0]) for line in table.splitlines()[1:]}
    assert list(shares) == [*STAGES, OTHER, "sum"]
    assert shares["forward"] > 1
    assert shares["backward"] > 1
    assert sum(shares[name] for name in (*STAGES, OTHER)) == pytest.approx(100, abs=0.5)
    events = json.loads((tmp_path / "profiled" / TRACE_NAME).read_text())["traceEvents"]
    assert sum(event.get("name") == "stage: optimizer" and event.get("ph") == "X" for event in events) >= 3
    assert_same_course(tmp_path / "plain", tmp_path / "profiled", tolerance=0.0)


class Engine:
    """Sleeps in each stage."""

    def __call__(self, **inputs):
        time.sleep(0.002)

    def backward(self, loss, *, last):
        time.sleep(0.004)

    def step(self, rate):
        time.sleep(0.001)
        return torch.zeros(())


class Stream:
    def batches(self, first_row, num_workers=0):
        while True:
            time.sleep(0.003)
            yield first_row


def test_time_is_counted_towards_the_stage_that_took_it(tmp_path):
    profiler = Profiler(4, tmp_path, Ranks(), torch.device("cpu"))
    engine, stream = profiler.wrapped(Engine(), Stream())
    batches = stream.batches(0)
    for _ in range(WARM_UPDATES + 4):
        next(batches)
        engine()
        engine.backward(torch.zeros(()), last=True)
        engine.step(0.1)
        time.sleep(0.002)
    assert profiler.missed() is None
    least = {"data": 12, "forward": 8, "backward": 16, "optimizer": 4, OTHER: 8}
    for name, milliseconds in least.items():
        assert milliseconds <= profiler.seconds[name] * 1e3 < 20 * milliseconds, name


def test_it_waits_while_a_compilation_is_decided_on(tmp_path):
    settling = iter([True] * 6 + [False] * 99)
    profiler = Profiler(2, tmp_path, Ranks(), torch.device("cpu"), is_settling=lambda: next(settling))
    engine, _ = profiler.wrapped(Engine(), Stream())
    for _ in range(WARM_UPDATES + 6):
        assert profiler._trace is None
        engine.step(0.1)
    assert profiler._trace is not None
    engine.step(0.1)
    assert profiler.table is None
    engine.step(0.1)
    assert "2 updates" in profiler.table


def test_a_run_that_is_too_short_is_told(tmp_path):
    profiler = Profiler(4, tmp_path, Ranks(), torch.device("cpu"))
    engine, _ = profiler.wrapped(Engine(), Stream())
    for _ in range(WARM_UPDATES + 3):
        engine.step(0.1)
    assert "this start made 13 updates and 14 are needed" in profiler.missed()
    profiler.close()
    assert list(tmp_path.iterdir()) == []
    assert not torch.autograd.profiler._is_profiler_enabled


def test_without_the_option_nothing_is_wrapped(tmp_path):
    engine, stream = Engine(), Stream()
    profiler = Profiler(0, tmp_path, Ranks(), torch.device("cpu"))
    assert profiler.wrapped(engine, stream) == (engine, stream)
    assert profiler.missed() is None


def test_the_table_gives_seconds_an_update_and_shares():
    rows = stage_table({"forward": 1.0, "backward": 3.0}, 2).splitlines()
    assert [row.split() for row in rows[1:]] == [
        ["forward", "0.5000", "25.0%"],
        ["backward", "1.5000", "75.0%"],
        ["sum", "2.0000", "100.0%"],
    ]
