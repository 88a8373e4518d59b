"""torch must find how long its threads may spin when it is loaded, whatever is started."""

import ast
import subprocess
import sys

import pytest

SCRIPTS = [f"launch/{name}.py" for name in ("pretrain", "gap", "sweep")]
SCRIPTS += [f"finetuning/{name}.py" for name in ("qa", "multiple_choice", "glue", "classification")]
OURS = ("shards", "pretraining", "finetuning", "gap")


def test_every_package_sets_the_spin_before_torch_is_loaded():
    code = "import os, sys; import {0}; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    for package in OURS:
        printed = subprocess.run(
            [sys.executable, "-c", code.format(package)], capture_output=True, text=True, check=True
        )
        assert int(printed.stdout) <= 100_000


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_imports_ours_before_what_loads_torch(script, project_root):
    body = ast.parse((project_root / script).read_text(encoding="utf-8")).body
    modules = [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
    modules += [name.name for node in body if isinstance(node, ast.Import) for name in node.names]
    assert not {module.split(".")[0] for module in modules} & {"torch", "transformers", "deepspeed", "sklearn"}
    assert any(module.split(".")[0] in OURS for module in modules)
