"""launch/watch.py as a user runs it: beside a pretraining run and the worker of a study, and in the terminal."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pretraining_runs
import pytest
from tiny_gap import tiny_jobs, write_series, write_tasks

from gap.cells.job_list import write_jobs

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, str(ROOT / "launch" / "watch.py")]
SECONDS = 240


@contextmanager
def watching(folder, *options):
    """The command and the address that it prints."""
    process = subprocess.Popen(
        [*COMMAND, str(folder), "--port", "0", "--every", "0.2", *options], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def asked(address, path="/changes"):
    with urllib.request.urlopen(address + path, timeout=60) as answer:  # noqa: S310 - our own address
        return answer.read().decode()


def stands(address, place):
    """State and the words about a run, by the page."""
    whole = "".join(part["html"] for part in json.loads(asked(address))["changed"].values())
    found = re.search(rf'data-state="(\w+)" data-place="{re.escape(place)}".*?</summary>', whole, re.DOTALL)
    return (found[1], re.sub(r"<[^>]*>|\s+", " ", found[0])) if found else None


def wait_until(condition, what):
    return pretraining_runs.wait_for(condition, what, seconds=SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pretraining_run_is_followed_from_its_first_update_to_its_end(tmp_path):
    shards = pretraining_runs.write_shards(tmp_path / "data")
    folder = tmp_path / "runs"
    folder.mkdir()
    output = folder / "mine"
    with watching(folder) as (process, address):
        assert json.loads(asked(address))["summary"] == "no runs below this folder yet"
        long = {"budget_tokens": 2_000_000, "series": "1e6"}
        job = pretraining_runs.start("python", shards, output, long, num_ranks=1)
        try:
            wait_until(lambda: len(pretraining_runs.journal(output)) > 5, "updates")
            first = wait_until(lambda: stands(address, "mine"), "the run on the page")
            assert first[0] == "running"
            share = wait_until(lambda: "of 1 M tokens" in stands(address, "mine")[1], "the budget")
            assert share
            said = stands(address, "mine")[1]
            wait_until(lambda: stands(address, "mine")[1] != said, "that the numbers move")
            assert "left" in stands(address, "mine")[1]
            job.send_signal(signal.SIGTERM)
            assert job.wait(SECONDS) == 75
        finally:
            pretraining_runs.stop_session(job)
        wait_until(lambda: stands(address, "mine")[0] == "interrupted", "the interruption")
        short = folder / "short"
        pretraining_runs.run("python", shards, short, num_ranks=1)
        wait_until(lambda: stands(address, "short"), "the second run")
        assert stands(address, "short")[0] == "finished"
        killed = pretraining_runs.start("python", shards, folder / "killed", long, num_ranks=1)
        wait_until(lambda: len(pretraining_runs.journal(folder / "killed")) > 2, "updates")
        pretraining_runs.stop_session(killed)
        wait_until(lambda: (stands(address, "killed") or "?")[0] == "stale", "that its process is gone")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (-signal.SIGINT, 128 + signal.SIGINT)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_cells_of_a_study_fill_while_a_worker_runs_them(tmp_path):
    series, tasks = write_series(tmp_path / "run", (100,)), write_tasks(tmp_path / "tasks")
    study = tmp_path / "runs" / "study"
    jobs = tiny_jobs(series, tasks)
    write_jobs(study, jobs)
    total, counts = len(jobs.plan.cells), []
    worker = [sys.executable, str(ROOT / "gap" / "cells" / "worker.py"), str(study), "1"]
    with watching(study.parent) as (_, address):
        with subprocess.Popen(worker, stdout=subprocess.DEVNULL, env=pretraining_runs.environment()) as process:
            while process.poll() is None:
                found = re.search(rf"(\d+) of {total} cells", (stands(address, "study") or "  ")[1])
                counts += [int(found[1])] if found and int(found[1]) not in counts else []
                time.sleep(0.1)
            assert process.returncode == 0
        body, said = asked(address), stands(address, "study")[1]
    assert counts == sorted(counts)
    assert len(counts) > 1
    assert f"{total} of {total} cells" in said
    assert "means so far, no intervals" in body


def test_lines_and_refusals(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").write_text('{"update": 1, "loss": 2.5}\n')
    done = subprocess.run([*COMMAND, str(tmp_path), "--line"], capture_output=True, text=True, check=True, timeout=120)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [">"]
    assert "training loss 2.5000" in done.stdout


@pytest.mark.slow
def test_in_a_terminal_the_lines_are_redrawn_until_ctrl_c(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").write_text('{"update": 1, "loss": 2.5}\n')
    mine, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, str(tmp_path), "--line", "--every", "0.2"], stdout=theirs, stderr=theirs)
    text = b""
    while text.count(b"1 running") < 3:
        text += os.read(mine, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == -signal.SIGINT
    assert b"Traceback" not in text
    assert b"\x1b[2A" in text


@pytest.fixture
def _handler_of_before():
    earlier = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.usefixtures("_handler_of_before")
def test_the_installed_command_ends_at_ctrl_c_without_a_traceback(tmp_path, monkeypatch):
    """The console script `gap-watch` calls `main`, and has no lines of its own."""
    from launch import watch

    handlers = []
    monkeypatch.setattr(watch, "run", lambda *given: handlers.append(signal.getsignal(signal.SIGINT)) or 0)
    assert watch.main([str(tmp_path), "--once"]) == 0
    assert handlers == [signal.SIG_DFL]


@pytest.mark.usefixtures("_handler_of_before")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "0 folders: name the one"),
        (["a", "b"], "2 folders: name the one"),
        (["missing"], "missing is not a folder"),
        ([".", "--once", "--port", "70000"], "--port 70000: use at least 0 and at most 65535"),
        ([".", "--every", "0"], "--every 0.0: use at least 0.2 and at most 3600.0, in seconds"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said, tmp_path, monkeypatch, capsys):
    from launch.watch import main

    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert said in capsys.readouterr().err
