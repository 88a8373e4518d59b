"""launch/sweep.py: the command line, and two real cells of a tiny model from beginning to table."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from tiny_examples import reviews, write_reviews, write_tiny_model

from finetuning.sweep import runner
from finetuning.sweep.runner import Runner, cell_directory
from finetuning.sweep.sweep import make_sweep, read_sweep
from launch import sweep
from runtime.processes.liveness import is_alive, start_time


def test_refusals_end_with_status_2(tmp_path, capsys):
    assert sweep.main(["--sweep_file", str(tmp_path / "none.yaml"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "a.yaml").write_text("recipe: glue\ngrid: {poling: [cls]}\n")
    assert sweep.main(["--sweep_file", str(tmp_path / "a.yaml"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "did you mean pooling" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        sweep.main(["--output_dir", "x"])


def test_a_folder_that_cannot_be_made_is_named_without_a_traceback(tmp_path, capsys):
    model = write_tiny_model(tmp_path / "model")
    (tmp_path / "a.yaml").write_text(f"recipe: classification\nbase: {{model_name_or_path: {model}}}\n")
    (tmp_path / "file").write_text("")
    assert sweep.main(["--sweep_file", str(tmp_path / "a.yaml"), "--output_dir", str(tmp_path / "file" / "out")]) == 2
    assert str(tmp_path / "file" / "out") in capsys.readouterr().err


def test_under_a_launcher_the_main_rank_alone_starts_cells(tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert sweep.main(["--sweep_file", str(tmp_path / "none.yaml"), "--output_dir", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out").exists()


def test_a_cell_is_a_world_of_its_own_under_a_launcher(tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    script = "import os, sys; print('world', os.environ.get('WORLD_SIZE', 'alone')); sys.exit(1)"
    monkeypatch.setattr(runner, "command", lambda *_: [sys.executable, "-c", script])
    found = make_sweep({"recipe": "classification", "base": {"model_name_or_path": "hub/model"}})
    Runner(found, [None], lambda text: None).run(found.cells, lambda cell: tmp_path)
    assert "world alone" in (tmp_path / "log.txt").read_text()


def test_the_log_of_a_killed_cell_has_what_it_said(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    script = "import os; print('400 training rows'); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(runner, "command", lambda *_: [sys.executable, "-c", script])
    found = make_sweep({"recipe": "classification", "base": {"model_name_or_path": "hub/model"}})
    Runner(found, [None], lambda text: None).run(found.cells, lambda cell: tmp_path)
    assert "400 training rows" in (tmp_path / "log.txt").read_text()


def test_the_command_is_an_argument_list(tmp_path):
    from finetuning.sweep.runner import command

    found = command("classification", {"pooling": "mean; rm -rf /", "from_scratch": True, "seeds": [1, 2]}, tmp_path)
    assert found[1].endswith("finetuning/classification.py")
    assert found[2:] == [
        "--pooling", "mean; rm -rf /", "--from_scratch", "True", "--seeds", "1", "2", "--output_dir", str(tmp_path),
    ]  # fmt: skip


@pytest.mark.slow
def test_real_cells_from_file_to_table(tmp_path):
    content = {
        "recipe": "classification",
        "base": {
            "model_name_or_path": write_tiny_model(tmp_path / "model"),
            "train_file": write_reviews(tmp_path / "train.json", reviews(96, seed=1)),
            "validation_file": write_reviews(tmp_path / "validation.json", reviews(30, seed=2)),
            "num_train_epochs": 1,
            "learning_rate": 0.01,
            "save_model": False,
            "report_to": "none",
        },
        "grid": {"pooling": ["cls", "mean"]},
        "seeds": [0],
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    out = tmp_path / "out"
    assert sweep.main(["--sweep_file", str(tmp_path / "sweep.yaml"), "--output_dir", str(out)]) == 0
    with (out / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["pooling"] for row in rows} == {"cls", "mean"}
    scores = [json.loads(path.read_text())["eval_accuracy"] for path in out.glob("cells/*/all_results.json")]
    assert sorted(float(row["mean"]) for row in rows) == sorted(scores)
    assert (out / "curves.png").is_file()


def kill_group(pid):
    """SIGKILL to the process and all that belongs to its group."""
    os.killpg(os.getpgid(pid), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("with_its_cell", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_sweep_killed_in_its_second_cell_ends_like_one_that_was_not(tmp_path, project_root, with_its_cell):
    """kill -9 of the sweep, and of its running cell or not: the first cell stays as it is, the second goes on.

    A cell that is left saves and ends; the same command, given at once, waits for that.
    """
    content = {
        "recipe": "classification",
        "base": {
            "model_name_or_path": write_tiny_model(tmp_path / "model"),
            "train_file": write_reviews(tmp_path / "train.json", reviews(400, seed=1)),
            "validation_file": write_reviews(tmp_path / "validation.json", reviews(30, seed=2)),
            "num_train_epochs": 6,
            "global_batch_rows": 8,
            "save_steps": 20,
            "learning_rate": 0.003,
            "save_model": False,
            "report_to": "none",
        },
        "grid": {"pooling": ["cls", "mean"]},
        "seeds": [0],
    }
    file, out, whole = tmp_path / "sweep.yaml", tmp_path / "out", tmp_path / "whole"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    script = str(project_root / "launch" / "sweep.py")
    command = [sys.executable, script, "--sweep_file", str(file), "--max_parallel", "1"]
    first, second = (cell_directory(out, cell) for cell in read_sweep(file).cells)

    process = subprocess.Popen([*command, "--output_dir", str(out)], start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 800
    while not list(second.glob("state/step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    cell = json.loads((second / "cell.json").read_text())["pid"]
    kill_group(process.pid)
    process.wait(20)
    if with_its_cell:
        kill_group(cell)
        while is_alive(cell, start_time(cell) or ""):
            time.sleep(0.01)
    assert not (second / "all_results.json").exists()
    assert list(second.glob("state/step-*"))
    before = [((first / name).stat().st_mtime_ns, (first / name).stat().st_ino) for name in ONCE]

    subprocess.run([*command, "--output_dir", str(out)], check=True, stdout=subprocess.DEVNULL)
    assert [((first / name).stat().st_mtime_ns, (first / name).stat().st_ino) for name in ONCE] == before
    assert (first / "log.txt").read_text().count("training rows") == 1
    log = (second / "log.txt").read_text()
    assert log.count("training rows") == 2
    assert "continuing after update " in log

    subprocess.run([*command, "--output_dir", str(whole)], check=True, stdout=subprocess.DEVNULL)
    assert scores_of(out) == scores_of(whole)
    assert (second / "journal.jsonl").read_text() == (whole / "cells" / second.name / "journal.jsonl").read_text()


ONCE = ("all_results.json", "cell.json", "log.txt", "journal.jsonl")


def scores_of(directory):
    """The table without what a clock measured."""
    with (directory / "sweep.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
