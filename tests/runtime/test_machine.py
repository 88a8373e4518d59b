"""How many cores a process takes for itself, and how long its threads spin: set before torch is loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.machine import usable_cores

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    path.relative_to(ROOT).as_posix()
    for folder in ("launch", "finetuning", "gap")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
]
OURS = ("runtime", "shards", "pretraining", "finetuning", "gap")
LOAD_TORCH = ("torch", "transformers", "deepspeed", "accelerate", "sklearn", "datasets")


def test_every_package_sets_the_spin_before_torch_is_loaded():
    code = "import os, sys; import {0}; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    for package in OURS:
        printed = subprocess.run(
            [sys.executable, "-c", code.format(package)], capture_output=True, text=True, check=True
        )
        assert int(printed.stdout) <= 100_000


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_imports_ours_before_what_loads_torch(script):
    """Only what the file itself imports, wherever in it: a first import of ours sets the spin."""
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = []
    for node in sorted(imports, key=lambda node: node.lineno):
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
    packages = [name.split(".")[0] for name in names]
    loads_torch = [place for place, name in enumerate(packages) if name in LOAD_TORCH]
    ours = [place for place, name in enumerate(packages) if name in OURS]
    assert ours
    assert not loads_torch or ours[0] < loads_torch[0], packages


def test_every_launcher_is_looked_at():
    assert {"launch/pretrain.py", "launch/overfit.py", "finetuning/qa.py", "gap/cells/worker.py"} <= set(SCRIPTS)


@pytest.mark.parametrize(("given", "cores"), [(None, 8), ("3", 3), ("16", 8), ("", 8), ("0", 8), ("two", 8)])
def test_a_slurm_task_takes_the_cores_it_was_given_also_where_the_cluster_binds_none(monkeypatch, given, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if given is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert usable_cores() == cores


def test_a_system_that_does_not_tell_the_cores_of_a_process_has_all_of_them(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert usable_cores() == 6
