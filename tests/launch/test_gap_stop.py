"""launch/gap.py: what is refused before pretraining, one run per folder, and requests to stop."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gap.study import study
from launch import gap
from runtime.files.lock import Ownership
from runtime.processes.interruption import EXIT_CODE, Interruption
from runtime.processes.liveness import is_alive, start_time
from tests.launch.test_gap import arguments

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--finetuning_seeds", "2"], "an interval needs 3"),
        (["--tasks", "qa:nowhere.json"], "nowhere.json"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_pretraining(tiny_small_world, monkeypatch, capsys, options, said):
    monkeypatch.setattr("gap.study.small_world.pretrain", lambda *_: pytest.fail("pretraining began"))
    assert gap.main(["--output_dir", "out", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_reference_that_is_not_to_be_had_is_an_error_in_words(tmp_path, monkeypatch, capsys):
    def unreachable(path, *_, **__):
        raise OSError("We couldn't connect to the hub\nand more")

    monkeypatch.setattr("pretraining.model.source.config.cached_file", unreachable)
    monkeypatch.setattr("finetuning.model.checkpoint_files.hub_is_reachable", lambda: True)
    for more in ([], ["--dry_run", "true"]):
        assert gap.main([*arguments(tmp_path), "--reference", "somebody/model", *more]) == 2
        said = capsys.readouterr().err
        assert "somebody/model is not a local directory, and the hub did not deliver it" in said
        assert "--reference" in said
        assert "Traceback" not in said


def test_an_unreachable_hub_is_not_asked_for_a_reference_again_and_again(tmp_path, monkeypatch, capsys):
    """The hub's own client retries for most of a minute; what is cached is enough, and a directory needs no hub."""
    asked = []
    monkeypatch.setattr("finetuning.model.checkpoint_files.hub_is_reachable", lambda: asked.append(1))
    argv = [*arguments(tmp_path), "--dry_run", "true", "--reference"]
    assert gap.main([*argv, str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such directory" in capsys.readouterr().err
    assert not asked
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert gap.main([*argv, "somebody/no-such-model"]) == 2
    assert "the hub did not deliver it" in capsys.readouterr().err
    assert asked


def test_a_folder_belongs_to_one_run_until_its_report_is_written(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def cells(directory, workers):
        with pytest.raises(ValueError, match="belongs to a running job"):
            Ownership(out).take()

    monkeypatch.setattr(study, "run_local", cells)
    gap.main(arguments(tmp_path))
    owner = Ownership(out)
    owner.take()  # free again afterwards
    owner.release()


@pytest.mark.parametrize("refused", [False, True])
def test_the_other_workers_import_while_the_list_is_made_and_none_is_left(tmp_path, monkeypatch, capsys, refused):
    prepare, waiting = study.prepare, []
    before = set(children())  # of other tests: a process that tracks resources, say

    def watched(*given):
        (child,) = set(children()) - before
        waiting.append(child)
        if refused:
            raise ValueError("this cannot be answered")
        return prepare(*given)

    monkeypatch.setattr("os.sched_getaffinity", lambda number: {0, 1})
    monkeypatch.setattr(study, "prepare", watched)
    assert gap.main(arguments(tmp_path, learning_rates="1e-3", max_parallel=2)) == (2 if refused else 0)
    assert waiting
    assert set(children()) <= before
    assert ("this cannot be answered" in capsys.readouterr().err) == refused
    assert (tmp_path / "out" / "report.html").exists() != refused


def children(process="self"):
    """Processes that this one, or another, started, by number."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [number for task in tasks for number in task.read_text().split()]


def test_the_signals_go_back_to_whoever_had_them():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    interruption = Interruption()
    interruption.install()
    assert signal.getsignal(signal.SIGTERM) == interruption._on_signal
    interruption.restore()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_cells_that_are_told_to_stop_end_with_75_and_go_on_later(tmp_path):
    argv = arguments(tmp_path, max_parallel=2)
    command = [sys.executable, str(ROOT / "launch" / "gap.py"), *argv]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    scores = tmp_path / "out" / "scores.jsonl"
    deadline = time.monotonic() + 240
    while not scores.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == EXIT_CODE, said
    assert "interrupted (SIGTERM) and saved: run the same command again" in said
    assert json.loads((tmp_path / "out" / "INTERRUPTED.json").read_text()) == {"reason": "SIGTERM", "progress": {}}
    assert "Traceback" not in said
    before = scores.read_bytes()
    assert 0 < len(before.splitlines()) < 9
    assert gap.main(argv) == 0
    assert not (tmp_path / "out" / "INTERRUPTED.json").exists()
    assert scores.read_bytes().startswith(before)
    assert len(scores.read_bytes().splitlines()) == 9


def test_a_killed_study_leaves_no_worker_and_goes_on_at_once(tmp_path):
    argv = arguments(tmp_path, max_parallel=2)
    command = [sys.executable, str(ROOT / "launch" / "gap.py"), *argv]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scores = tmp_path / "out" / "scores.jsonl"
    deadline = time.monotonic() + 240
    while not scores.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = [(int(pid), start_time(int(pid)) or "") for pid in children(process.pid)]
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(is_alive(*worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    alive = [Path(f"/proc/{pid}/cmdline").read_text() for pid, start in workers if is_alive(pid, start)]
    assert not alive
    before = scores.read_bytes()
    assert gap.main(argv) == 0
    assert scores.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert len(scores.read_bytes().splitlines()) == 9
