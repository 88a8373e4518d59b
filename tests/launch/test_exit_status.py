"""The exit statuses of every command; docs/exit-status.md is the table."""

import errno
import importlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_examples import write_tiny_model

from finetuning.run.option_checks import RECIPES
from runtime.options.exit_status import DONE, FAILED, INTERRUPTED, REFUSED
from runtime.processes.collectives import PeerFailed
from runtime.processes.failures import Failed
from runtime.processes.interruption import Interrupted

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Command:
    """A command, the function that replaces its work in these tests, its arguments, and its remedy for full memory."""

    module: str
    work: str
    argv: tuple[str, ...]
    remedy: str
    marker: bool = True  # an interrupted one leaves INTERRUPTED.json


OUT = ("--output_dir", "out")
HUB = ("--hub_model_id", "lab/small")
PREDICTION = "finetuning.recipes.prediction.predict"
PREDICT = ("--model_name_or_path", "best", "--test_file", "new.json")
COMMANDS = [
    Command("launch.build_shards", "launch.build_shards.run", ("--input", "a.txt", *OUT), "--processes"),
    Command("launch.pretrain", "pretraining.run.run_pretraining", OUT, "--per_device_train_batch_size", marker=False),
    Command("launch.overfit", "pretraining.overfit.rates.try_rates", (), "--global_batch_rows", marker=False),
    Command("launch.report", "gap.report.reports.write_reports", ("run",), "--draws", marker=False),
    Command("launch.watch", "gap.watch.terminal.print_lines", (".", "--once"), "name a deeper folder", marker=False),
    Command("launch.push", "finetuning.run.pushing.push_folders", ("run", *HUB), "more memory", marker=False),
    Command("launch.sweep", "finetuning.sweep.report.run_sweep", ("--sweep_file", "a.yaml", *OUT), "--max_parallel"),
    Command("launch.gap", "gap.study.study.run_study", OUT, "--per_device_train_batch_size"),
    Command("launch.predict", PREDICTION, (*PREDICT, *OUT), "--per_device_eval_batch_size"),
    *(
        Command(f"finetuning.{name}", f"{module}.run", OUT, "--per_device_train_batch_size")
        for name, module in RECIPES.items()
    ),
    Command("gap.cells.worker", "gap.cells.worker.work", ("out",), "--per_device_train_batch_size", marker=False),
]
NAMES = [command.module for command in COMMANDS]


def of_the_system(number):
    return OSError(number, os.strerror(number), "data.json")


RAISED = [
    (ValueError("--draws 5: at least 100"), REFUSED, r"error: --draws 5: at least 100\n"),
    *(
        (of_the_system(number), REFUSED, r"error: .*'data.json': name a file or directory")
        for number in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
    ),
    *(
        (of_the_system(number), FAILED, r"error: .*'data.json': check the disk .* run the same command again")
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE)
    ),
    (ConnectionResetError(errno.ECONNRESET, "reset"), FAILED, "the network"),
    (OSError("shard x cannot be fetched: check the server"), FAILED, r"check the server\n"),
    (Failed("a worker process died: out of memory?"), FAILED, r"error: a worker process died: out of memory\?\n"),
    (PeerFailed("rank 1 failed"), FAILED, "error: rank 1 failed"),
]
MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    of_the_system(errno.ENOMEM),
]


@pytest.fixture(autouse=True)
def _handler_of_before():
    """launch/watch.py leaves Ctrl-C to the system."""
    earlier = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.fixture(params=COMMANDS, ids=NAMES)
def ends(request, tmp_path, monkeypatch, capsys):
    """Call a command whose work raises, or returns, what is given: its status and what it said on stderr."""
    command = request.param
    module = importlib.import_module(command.module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gap.cells.worker.end_or_watch", lambda parent: None)

    def call(outcome):
        def work(*_, **__):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(command.work, work)
        status = module.main(list(command.argv))
        return status, capsys.readouterr().err

    call.command = command
    return call


def test_no_command_is_missing():
    scripts = [*(ROOT / "launch").glob("*.py"), *(ROOT / "finetuning").glob("*.py"), *(ROOT / "gap").rglob("*.py")]
    found = [path for path in scripts if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")]
    assert sorted(NAMES) == sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found)
    maps = [path for path in found if re.search(r"^\s*except .*(Error|Interrupt)", path.read_text(), re.MULTILINE)]
    assert [path.name for path in maps] == ["worker.py"]  # a claim, a memory; no map of its own


@pytest.mark.parametrize(("error", "status", "said"), RAISED, ids=lambda value: re.sub(r"\W+", "-", str(value))[:30])
def test_what_is_raised_decides_the_status(ends, error, status, said):
    got, text = ends(error)
    assert got == status
    assert re.search(said, text), text
    assert "Traceback" not in text


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_full_memory_is_status_1_with_the_commands_own_remedy(ends, error):
    status, text = ends(error)
    assert status == FAILED
    assert re.match(r"error: out of memory \(.+\): (lower|push from) ", text)
    assert ends.command.remedy in text


@pytest.mark.parametrize("error", [KeyError("a"), RuntimeError("shape mismatch"), AssertionError("ours")], ids=repr)
def test_a_fault_of_ours_keeps_its_traceback(ends, error):
    with pytest.raises(type(error)):
        ends(error)


def test_done_is_0(ends):
    outcome = [] if ends.command.module == "launch.overfit" else DONE
    status, text = ends(outcome)
    # Of overfit a rate that solves the batch is what is asked for: none has.
    assert status == (FAILED if ends.command.module == "launch.overfit" else DONE)
    assert "error" not in text


def test_an_interrupted_command_is_75_and_leaves_a_marker_until_it_is_called_again(ends, tmp_path):
    marker = tmp_path / "out" / "INTERRUPTED.json"
    status, text = ends(Interrupted("SIGUSR1", {"updates": 3}))
    assert status == INTERRUPTED == 75
    assert "interrupted (SIGUSR1) and saved: run the same command again" in text
    assert marker.exists() == ends.command.marker
    if ends.command.marker:
        assert json.loads(marker.read_text()) == {"reason": "SIGUSR1", "progress": {"updates": 3}}
        assert ends(ValueError("refused"))[0] == REFUSED
        assert not marker.exists()


def test_a_marker_that_cannot_be_written_is_a_failed_write(ends, monkeypatch):
    monkeypatch.setattr("runtime.options.exit_status.write_json", lambda *_: (_ for _ in ()).throw(of_the_system(28)))
    status, text = ends(Interrupted("SIGTERM"))
    assert status == (FAILED if ends.command.marker else INTERRUPTED)
    assert "Traceback" not in text


MAIN_RANK_ALONE = ("launch.overfit", "launch.report", "launch.sweep", "launch.push")


def test_another_rank_says_nothing_of_an_interruption(ends, tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_" + "RANK": "1", "WORLD_" + "SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    status, text = ends(Interrupted("SIGTERM"))
    alone = ends.command.module in MAIN_RANK_ALONE
    assert status == (DONE if alone else INTERRUPTED)
    assert not text
    assert not (tmp_path / "out").exists()


UNREADABLE = {
    "launch.build_shards": ("--input", "{place}.txt", *OUT),
    "launch.pretrain": ("--shards", "{place}", *OUT),
    "launch.overfit": ("--shards", "{place}"),
    "launch.report": ("{place}",),
    "launch.push": ("{place}", *HUB),
    "launch.sweep": ("--sweep_file", "{place}", *OUT),
    "launch.watch": ("{place}/runs", "--once"),
    "launch.gap": ("--series", "{place}", "--tasks", "qa:{place}", *OUT),
    "launch.predict": ("--model_name_or_path", "{place}/best", "--test_file", "{place}", *OUT),
    **{
        f"finetuning.{name}": ("--model_name_or_path", "model", "--train_file", "{place}", *OUT)
        for name in RECIPES
        if name != "glue"
    },
    "finetuning.glue": ("--model_name_or_path", "model", "--task_name", "rte", "--data_dir", "{place}", *OUT),
    "gap.cells.worker": ("{place}",),
}


@pytest.mark.parametrize("kind", ["missing", "folder"])
@pytest.mark.parametrize("module", NAMES)
def test_an_input_that_is_missing_or_of_the_wrong_kind_is_status_2_with_its_name(
    module, kind, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gap.cells.worker.end_or_watch", lambda parent: None)
    write_tiny_model(tmp_path / "model")
    if kind == "folder":
        (tmp_path / "place").mkdir()
        (tmp_path / "place.txt").mkdir()
    argv = [part.format(place="place") for part in UNREADABLE[module]]
    assert importlib.import_module(module).main(argv) == REFUSED
    text = capsys.readouterr().err
    assert "place" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("processes", [1, 2])
def test_a_build_that_is_told_to_stop_ends_with_75_and_goes_on(tmp_path, processes):
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghij", k=5)) for _ in range(500)]
    text = "\n".join(" ".join(generator.choices(words, k=200)) for _ in range(1_200))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    argv = ["--input", "a.txt", *OUT, "--document", "line", "--vocab_size", "600", "--near_duplicates", "ignore"]
    argv += ["--processes", str(processes), "--block_tokens", "1024", "--blocks_per_shard", "4"]
    command = [sys.executable, str(ROOT / "launch" / "build_shards.py"), *argv]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/*.tar")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == INTERRUPTED, said
    assert "interrupted (SIGTERM) and saved" in said
    assert "Traceback" not in said
    assert json.loads((tmp_path / "out" / "INTERRUPTED.json").read_text())["reason"] == "SIGTERM"
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == DONE
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir() if path.suffix != ".tar") == ["", ".json"]
