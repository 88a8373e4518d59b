"""A compilation that was killed does not block the next start."""

import os
import subprocess
import time

import pytest

from pretraining.engines import compiled_ops
from pretraining.engines.compiled_ops import clear_abandoned_lock, compiled_operators


def old_lock(folder, age=60.0):
    lock = folder / "lock"
    lock.touch()
    os.utime(lock, (time.time() - age, time.time() - age))
    return lock


def test_an_abandoned_lock_is_removed(tmp_path):
    lock = old_lock(tmp_path)
    clear_abandoned_lock(tmp_path)
    assert not lock.exists()
    clear_abandoned_lock(tmp_path)


def test_the_lock_of_a_compiler_at_work_stays(tmp_path):
    lock = old_lock(tmp_path)
    compiler = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    try:
        clear_abandoned_lock(tmp_path)
        assert lock.exists()
    finally:
        compiler.kill()
        compiler.wait()


def test_a_builder_that_has_just_begun_is_given_time(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled_ops, "START_SECONDS", 1.0)
    lock = old_lock(tmp_path, age=0.0)
    before = time.monotonic()
    clear_abandoned_lock(tmp_path)
    assert not lock.exists()
    assert time.monotonic() - before > 0.5


@pytest.mark.parametrize(
    ("optimizer", "device", "on_cpu", "names"),
    [
        (None, "none", True, []),
        ({"type": "AdamW", "params": {}}, "cpu", False, ["cpu_adam"]),
        ({"type": "AdamW", "params": {}}, "none", True, ["cpu_adam"]),
        ({"type": "AdamW", "params": {"torch_adam": True}}, "cpu", True, []),
    ],
)
def test_which_operators_are_compiled(optimizer, device, on_cpu, names):
    config = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": device}}}
    if optimizer is not None:
        config["optimizer"] = optimizer
    assert compiled_operators(config, on_cpu=on_cpu) == names
