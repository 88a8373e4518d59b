"""Where the time went: the parts add up, and a clock of the process counts its imports."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gap.study import clock
from gap.study.clock import Clock

ROOT = Path(__file__).resolve().parents[3]


def test_the_parts_add_up(monkeypatch):
    now = iter([110.0, 150.0, 200.0])
    one = Clock(started=100.0)
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    with one.pretraining():
        pass
    said = "100 s in total: 40 s shards and pretraining, 50 s cells (on 2 workers), 10 s (10.0%) everything else"
    assert one.line(100.0, 2) == said


def test_a_clock_of_the_process_counts_from_its_start(monkeypatch, tmp_path):
    program = (
        "import time; time.sleep(0.5)\n"
        "from gap.study.clock import Clock\n"
        "print(time.perf_counter() - Clock.of_process().started)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 0.5 <= float(run.stdout) < 60
    monkeypatch.setattr(clock, "PROCESS", tmp_path / "none")
    assert Clock.of_process().started == pytest.approx(time.perf_counter(), abs=1)
