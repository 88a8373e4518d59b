"""The spin time of torch's threads is set before torch is loaded, in every command."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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
