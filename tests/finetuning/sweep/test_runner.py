"""Running a sweep: what is finished stays, what failed or was cut off comes again, and two do not share a folder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from finetuning.sweep import runner as sweep_run
from finetuning.sweep.report import run_sweep
from finetuning.sweep.runner import Runner, cell_directory, outcome, smoke_cell, visible_devices
from finetuning.sweep.sweep import make_sweep
from runtime.processes.interruption import Interrupted

CONTENT = {
    "recipe": "classification",
    "base": {"model_name_or_path": "hub/model"},
    "grid": {"pooling": ["cls", "mean"], "learning_rate": [0.1, 0.2]},
    "seeds": [0, 1],
}

# Stands for a recipe: writes what a recipe writes, and logs that it ran.
STAND_IN = """
import json, os, signal, sys, time
options = json.loads(sys.argv[1]); directory = sys.argv[2]
with open(os.path.join(directory, "runs.txt"), "a") as log:
    log.write(json.dumps([options, time.time()]) + "\\n")
if os.environ.get("STAND_IN_EXIT"):
    sys.exit(int(os.environ["STAND_IN_EXIT"]))
if options.get("weight_decay") == 9:
    sys.exit("weight decay of 9")
time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
learning_rate = options.get("learning_rate", 0.1)
score = 0.5 + 0.1 * (options.get("pooling") == "mean") + learning_rate + 0.01 * options["seed"]
metric = os.environ.get("STAND_IN_METRIC", "accuracy")
results = {"status": "done", "metric": metric, f"eval_{metric}": score, "seconds": 1.5}
with open(os.path.join(directory, "all_results.json"), "w") as file:
    json.dump(results, file)
"""


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch, tmp_path):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)

    def command(recipe, options, directory):
        return [sys.executable, str(script), json.dumps(dict(options)), str(directory)]

    monkeypatch.setattr(sweep_run, "command", command)
    monkeypatch.setattr(sweep_run, "POLL_SECONDS", 0.01)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def write(tmp_path: Path, **changes) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}, sort_keys=False))
    return path


def times_run(directory: Path) -> int:
    file = directory / "runs.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_every_cell_runs_once_and_a_second_call_runs_none(tmp_path):
    file, out = write(tmp_path), tmp_path / "out"
    assert run_sweep(file, out) == 0
    sweep = make_sweep(CONTENT)
    directories = [cell_directory(out, cell) for cell in sweep.cells]
    assert [times_run(one) for one in directories] == [1] * 8
    table = (out / "sweep.csv").read_text()
    assert table.splitlines()[1].startswith("mean,0.2,2,0.805,")
    assert run_sweep(file, out) == 0
    assert [times_run(one) for one in directories] == [1] * 8
    assert (out / "sweep.csv").read_text() == table


def test_the_table_is_sorted_by_the_metric_that_the_recipe_names(tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_METRIC", "f1")
    file = write(tmp_path, recipe="qa", grid={"learning_rate": [0.1, 0.2]}, seeds=[0])
    assert run_sweep(file, tmp_path / "out") == 0
    assert "by the mean of eval_f1" in (tmp_path / "out" / "sweep.md").read_text()
    assert (tmp_path / "out" / "sweep.csv").read_text().splitlines()[1].startswith("0.2,1,0.7,")


def test_new_rows_join_the_finished_ones(tmp_path):
    out = tmp_path / "out"
    assert run_sweep(write(tmp_path, seeds=[0]), out) == 0
    assert run_sweep(write(tmp_path), out) == 0
    assert all(times_run(cell_directory(out, cell)) == 1 for cell in make_sweep(CONTENT).cells)


def test_a_failed_cell_is_named_and_tried_again(tmp_path, capsys):
    rows = [{"pooling": "cls", "learning_rate": 0.1}, {"pooling": "cls", "learning_rate": 0.1, "weight_decay": 9}]
    file, out = write(tmp_path, grid={}, list=rows), tmp_path / "out"
    assert run_sweep(file, out) == 1
    said = capsys.readouterr().out
    assert "FAILED with exit code 1" in said
    assert "weight decay of 9" in said
    assert "- failed: weight_decay=9.0, seed=0" in (out / "sweep.md").read_text()
    assert run_sweep(file, out) == 1
    runs = [times_run(cell_directory(out, cell)) for cell in make_sweep({**CONTENT, "grid": {}, "list": rows}).cells]
    assert runs == [1, 1, 2, 2]


def test_an_interrupted_cell_runs_again_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "0.2")
    sweep, out = make_sweep(CONTENT), tmp_path / "out"
    runner = Runner(sweep, [None, None], lambda text: None)
    threading.Timer(0.5, runner.stop).start()
    runner.run(sweep.cells, lambda cell: cell_directory(out, cell))
    states = [outcome(cell_directory(out, cell), cell).status for cell in sweep.cells]
    assert "waiting" in states
    monkeypatch.setenv("STAND_IN_SECONDS", "0")
    finished = [cell for cell, state in zip(sweep.cells, states, strict=True) if state == "done"]
    assert run_sweep(write(tmp_path), out) == 0
    assert all(times_run(cell_directory(out, cell)) == 1 for cell in finished)
    assert all(outcome(cell_directory(out, cell), cell).status == "done" for cell in sweep.cells)


def test_a_cell_that_was_asked_to_stop_has_not_failed_and_stops_the_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_EXIT", "75")
    file, out = write(tmp_path), tmp_path / "out"
    with pytest.raises(Interrupted):
        run_sweep(file, out)
    directories = [cell_directory(out, cell) for cell in make_sweep(CONTENT).cells]
    assert [times_run(one) for one in directories] == [1] + [0] * 7
    monkeypatch.delenv("STAND_IN_EXIT")
    assert run_sweep(file, out) == 0
    assert [times_run(one) for one in directories] == [2] + [1] * 7


def test_no_more_cells_at_once_than_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "0.1")
    sweep, out = make_sweep(CONTENT), tmp_path / "out"
    devices = ["0", "1", "2"]
    runner = Runner(sweep, devices, lambda text: None)
    most = []
    start = runner._start

    def counting(cell, directory):
        running = start(cell, directory)
        most.append(len(runner.running) + 1)
        return running

    monkeypatch.setattr(runner, "_start", counting)
    runner.run(sweep.cells, lambda cell: cell_directory(out, cell))
    assert max(most) == 3
    assert sorted(runner.free) == devices


def test_the_smoke_run_comes_first_and_stops_a_sweep_with_a_bad_cell(tmp_path, capsys):
    rows = [{"pooling": "cls", "learning_rate": 0.1}, {"pooling": "cls", "learning_rate": 0.1, "weight_decay": 9}]
    file, out = write(tmp_path, grid={}, list=rows), tmp_path / "out"
    assert run_sweep(file, out, smoke=True) == 1
    assert "2 of 4 cells failed the smoke run" in capsys.readouterr().out
    assert not list(out.glob("cells/*/all_results.json"))
    good = write(tmp_path)
    assert run_sweep(good, tmp_path / "good", smoke=True) == 0
    smoke = json.loads(next((tmp_path / "good").glob("cells/*/smoke/runs.txt")).read_text().splitlines()[0])[0]
    assert (smoke["num_train_epochs"], smoke["max_train_samples"]) == (1, 256)
    assert "max_train_samples" not in smoke_cell(make_sweep(CONTENT).cells[0], 0).options


def test_a_smoke_run_is_never_longer_than_the_run_itself():
    base = {"max_train_samples": 16, "max_eval_samples": 999, **CONTENT["base"]}
    options = smoke_cell(make_sweep({**CONTENT, "base": base}).cells[0], 256).options
    assert (options["max_train_samples"], options["max_eval_samples"]) == (16, 256)


@pytest.mark.parametrize(("given", "expected"), [(None, "2"), ("3", "3")])
def test_cells_at_once_share_the_cores(tmp_path, monkeypatch, given, expected):
    """Two processes with a thread a core each slow each other down."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(5)))
    script = "import os, sys; print('threads', os.environ.get('OMP_NUM_THREADS')); sys.exit(1)"
    monkeypatch.setattr(sweep_run, "command", lambda *_: [sys.executable, "-c", script])
    sweep = make_sweep(CONTENT)
    Runner(sweep, [None, None], lambda text: None).run(sweep.cells[:1], lambda cell: tmp_path)
    assert f"threads {expected}" in (tmp_path / "log.txt").read_text()


def test_two_sweeps_cannot_share_a_directory(tmp_path):
    file, out = write(tmp_path), tmp_path / "out"
    out.mkdir()
    holder = "import sys, time; from pathlib import Path; from runtime.files.lock import Ownership\n"
    holder += "owner = Ownership(Path(sys.argv[1])); owner.take(); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"belongs to a running job .*pid {process.pid}"):
        run_sweep(file, out)
    process.kill()
    process.wait()
    assert run_sweep(file, out) == 0


def test_a_cell_whose_process_outlived_its_sweep_is_not_started_twice(tmp_path, monkeypatch):
    sweep, out = make_sweep(CONTENT), tmp_path / "out"
    directory = cell_directory(out, sweep.cells[0])
    directory.mkdir(parents=True)
    survivor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    record = {"fingerprint": sweep.cells[0].fingerprint, "status": "running", "pid": survivor.pid}
    record["start"] = sweep_run.start_time(survivor.pid)
    (directory / "cell.json").write_text(json.dumps(record))
    monkeypatch.setattr(sweep_run, "GRACE_SECONDS", 0.5)
    with pytest.raises(ValueError, match=f"process {survivor.pid} of an earlier sweep"):
        run_sweep(write(tmp_path), out)
    survivor.kill()
    survivor.wait()
    assert run_sweep(write(tmp_path), out) == 0


def test_results_of_another_cell_are_not_taken(tmp_path):
    sweep = make_sweep(CONTENT)
    directory = tmp_path / "cell"
    directory.mkdir()
    (directory / "cell.json").write_text(json.dumps({"fingerprint": "other", "status": "finished"}))
    with pytest.raises(ValueError, match="belongs to another cell"):
        outcome(directory, sweep.cells[0])


def test_devices(monkeypatch):
    assert visible_devices(None) in ([None], visible_devices(99))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices(None) == ["0", "1", "2", "3"]
    assert visible_devices(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    assert visible_devices(None) == ["5", "GPU-7"]


def test_a_hang_up_does_not_stop_a_sweep_and_a_kill_loses_no_finished_cell(tmp_path):
    script = (
        "import sys; from pathlib import Path; from finetuning.sweep import runner as sweep_run\n"
        "from finetuning.sweep.report import run_sweep\n"
        "import json\n"
        "sweep_run.command = lambda recipe, options, directory: "
        "[sys.executable, sys.argv[1], json.dumps(dict(options)), str(directory)]\n"
        "sys.exit(run_sweep(Path(sys.argv[2]), Path(sys.argv[3])))\n"
    )
    file, out = write(tmp_path), tmp_path / "out"
    arguments = [sys.executable, "-c", script, str(tmp_path / "stand_in.py"), str(file), str(out)]
    process = subprocess.Popen(arguments, env={**os.environ, "STAND_IN_SECONDS": "0.3"}, stdout=subprocess.DEVNULL)
    wait_for(lambda: len(list(out.glob("cells/*/all_results.json"))) >= 1)
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(list(out.glob("cells/*/all_results.json"))) >= 3)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    wait_for(lambda: no_cell_alive(out))
    finished = [
        path.parent for path in out.glob("cells/*/all_results.json")
        if json.loads((path.parent / "cell.json").read_text())["status"] == "finished"
    ]  # fmt: skip
    assert len(finished) >= 2
    assert run_sweep(file, out) == 0
    assert all(times_run(one) == 1 for one in finished)
    assert len(list(out.glob("cells/*/all_results.json"))) == 8


def no_cell_alive(out: Path) -> bool:
    records = [json.loads(path.read_text()) for path in out.glob("cells/*/cell.json")]
    return not any("start" in one and sweep_run.is_alive(one["pid"], one["start"]) for one in records)


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_metric_that_the_first_cell_has_not_stops_the_sweep(tmp_path):
    """It gave a table of empty means and exit status 0."""
    file, out = write(tmp_path, metric="eval_f1"), tmp_path / "out"
    with pytest.raises(ValueError, match=r"has no eval_f1.*eval_accuracy.*; correct `metric`"):
        run_sweep(file, out)
    directories = [cell_directory(out, cell) for cell in make_sweep(CONTENT).cells]
    assert [times_run(one) for one in directories] == [1] + [0] * 7
    with pytest.raises(ValueError, match="has no eval_f1"):
        run_sweep(file, out)
    assert [times_run(one) for one in directories] == [1] + [0] * 7
    assert run_sweep(write(tmp_path, metric="eval_accuracy"), out) == 0


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_file_that_changes_between_two_cells_stops_the_sweep(tmp_path, change):
    """The later cells would be stored under the fingerprint of the file that was there when the sweep was read."""
    data, out = tmp_path / "train.json", tmp_path / "out"
    data.write_text("[]")
    base = {"model_name_or_path": "hub/model", "train_file": str(data)}
    sweep = make_sweep({**CONTENT, "base": base, "seeds": [0]})
    alter = data.unlink if change == "deleted" else lambda: data.write_text("[1]")
    runner = Runner(sweep, [None], lambda text: alter())
    with pytest.raises(ValueError, match=r"train\.json changed or disappeared since the sweep began: restore it"):
        runner.run(sweep.cells, lambda cell: cell_directory(out, cell))
    assert [outcome(cell_directory(out, cell), cell).status for cell in sweep.cells] == ["done", *["waiting"] * 3]
    assert not runner.running


def test_what_readers_leave_in_a_folder_of_data_does_not_stop_the_sweep(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "train.json").write_text("[]")
    sweep = make_sweep({**CONTENT, "base": {"model_name_or_path": "hub/model", "data": str(data)}, "seeds": [0]})
    runner = Runner(sweep, [None], lambda text: (data / "cache").write_text("new"))
    assert runner.run(sweep.cells, lambda cell: cell_directory(out, cell)) == []
    assert {outcome(cell_directory(out, cell), cell).status for cell in sweep.cells} == {"done"}
