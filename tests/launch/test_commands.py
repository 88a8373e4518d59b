"""Every command of docs/options.md starts as a script, from any folder, without an installed package."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetuning.run.option_checks import RECIPES

ROOT = Path(__file__).resolve().parents[2]
LAUNCHED = ("build_shards", "pretrain", "overfit", "sweep", "gap", "report", "predict", "push", "watch")
COMMANDS = [
    *(f"launch/{name}.py" for name in LAUNCHED),
    *(f"finetuning/{name}.py" for name in RECIPES),
]


def test_the_list_is_whole():
    launchers = {f"launch/{path.name}" for path in (ROOT / "launch").glob("*.py")} - {"launch/__init__.py"}
    assert launchers == {command for command in COMMANDS if command.startswith("launch/")}
    commands = {f"finetuning/{path.name}" for path in (ROOT / "finetuning").glob("*.py")} - {"finetuning/__init__.py"}
    assert commands == {command for command in COMMANDS if command.startswith("finetuning/")}
    assert not [command for command in COMMANDS if command not in (ROOT / "docs" / "options.md").read_text()]


# -S leaves .pth files out, the editable install among them; the path brings the packages themselves back.
@pytest.mark.parametrize("command", COMMANDS)
def test_it_prints_its_help(command, tmp_path):
    site = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / command), "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage:" in done.stdout


HEAVY = ("torch", "datasets", "deepspeed", "tokenizers", "scipy")
FOREIGN = ["--do_train", "--tag_column", "x", "--chain", "true"]  # each command lacks some, and looks for their meaning


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_wrong_options_are_answered_without_the_libraries_of_a_run(command):
    """They take a second and a half then; torch, datasets and scipy take five more."""
    code = f"""
import importlib, sys
main = importlib.import_module({command.removesuffix(".py").replace("/", ".")!r}).main
for argv in (["--help"], {FOREIGN!r}):
    try:
        main(argv)
    except SystemExit as ended:
        print("status", ended.code)
print("imported", sorted({set(HEAVY)!r} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    said = [line for line in ended.stdout.splitlines() if line.startswith(("usage", "status", "imported"))]
    assert [line.split(":")[0] for line in said] == ["usage", "status 0", "status 2", "imported []"]
