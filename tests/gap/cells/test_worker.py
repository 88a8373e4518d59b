"""Cells in one process: resumed, extended, shared by workers, and the same score wherever they are run."""

import inspect
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_gap import tiny_jobs, write_series, write_tasks

from finetuning.loop.training import finetune
from gap.cells import worker
from gap.cells.code_identity import deciding_modules
from gap.cells.executor import run_local, submit_slurm, waiting_workers, worker_command, worker_environment
from gap.cells.job_list import SCORES_NAME, SEARCHES_NAME, read_jobs, write_jobs
from gap.cells.plan import Controls
from gap.cells.running import Workbench, run_cell, run_search
from gap.cells.search.choice import choose, read_searches
from gap.cells.search.grid import Grid
from gap.cells.search.notes import same_arguments_notes
from gap.cells.store import read_predictions, read_scores
from gap.cells.worker import claim, remaining, work
from gap.study.from_options import slurm_of
from gap.study.options import GapOptions
from pretraining.engines.engine import EngineOptions
from pretraining.engines.updating.optimizers import build_optimizer
from runtime.processes.failures import Failed


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_series(folder / "run", (100,)), write_tasks(folder / "tasks")


def silent(*words):
    pass


def test_a_list_survives_its_file(world, tmp_path):
    series, tasks = world
    jobs = tiny_jobs(series, tasks, grid=Grid((1e-3, 1e-2), (1.0,)), controls=Controls((2.0,), (0.5,)))
    write_jobs(tmp_path, jobs)
    assert read_jobs(tmp_path) == jobs
    content = json.loads((tmp_path / "cells.json").read_text())
    del content["plan"]["reference_grid"], content["plan"]["grid"]["extensions"]
    for job in (*content["plan"]["searches"], *content["plan"]["cells"]):
        for later in {"seed", "search_seed", "arguments_of"} & set(job):
            del job[later]
    (tmp_path / "cells.json").write_text(json.dumps(content))
    assert read_jobs(tmp_path) == jobs  # as earlier versions wrote it
    content["plan"]["grid"]["learning_rates"] = []
    (tmp_path / "cells.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="a grid without learning rates"):
        read_jobs(tmp_path)
    (tmp_path / "cells.json").write_text('{"schema_version": 1}')
    with pytest.raises(ValueError, match=r"cells\.json: the content lacks plan, options"):
        read_jobs(tmp_path)


def test_the_fingerprint_follows_what_decides_a_cell_and_nothing_else(world):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[:1])
    cell = jobs.plan.cells[0]
    own = jobs.fingerprint(cell)
    free = replace(jobs.options, per_device_eval_batch_size=3, per_device_train_batch_size=2)
    assert replace(jobs, options=free).fingerprint(cell) == own
    others = [
        replace(jobs, options=replace(jobs.options, weight_decay=0.5)),
        replace(jobs, code="other"),
        replace(jobs, task_digests={"questions": "other"}),
        replace(jobs, model_digests=dict.fromkeys(jobs.model_digests, "other")),
        replace(jobs, plan=replace(jobs.plan, grid=Grid((1e-2, 1e-3), (1.0,)))),
    ]
    names = {one.fingerprint(cell) for one in others} | {jobs.fingerprint(one) for one in jobs.plan.cells}
    assert len(names) == len(others) + len(jobs.plan.cells)
    assert own in names


def test_the_modules_that_a_cell_is_trained_with_are_part_of_the_fingerprint(world, monkeypatch):
    jobs, used = tiny_jobs(world[0], world[1][1:2]), []

    def record(recipe, model, options, *, engine):
        used.extend([type(recipe), type(model), type(engine), type(options)])
        raise InterruptedError

    monkeypatch.setattr("gap.cells.running.finetune", record)
    with pytest.raises(InterruptedError):
        run_cell(Workbench(jobs, torch.device("cpu")), jobs.plan.cells[0], (1e-3, 1.0), Path("nowhere"))
    files = {Path(inspect.getfile(one)) for one in (*used, finetune, build_optimizer, EngineOptions)}
    assert len(files) > 5
    root = Path(__file__).resolve().parents[3]
    counted = {".".join(file.relative_to(root).with_suffix("").parts) for file in files}
    assert counted <= set(deciding_modules(root))


def test_cells_are_run_once_and_later_ones_are_added(world, tmp_path):
    series, tasks = world
    grid = Grid((1e-3, 1e-2), (1.0,))
    write_jobs(tmp_path, tiny_jobs(series, tasks[:1], grid=grid, finetuning_seeds=2, intervals=False))
    assert work(tmp_path, say=silent) > 0
    cells = read_scores(tmp_path / SCORES_NAME)
    assert [(cell.budget_tokens, cell.finetuning_seed) for cell in cells] == [(0, 0), (0, 1), (100, 0), (100, 1)]
    assert len(read_searches(tmp_path / SEARCHES_NAME)) == 4
    assert work(tmp_path, say=silent) == 0.0
    before = (tmp_path / SCORES_NAME).read_bytes()
    more = tiny_jobs(series, tasks[:2], grid=grid)
    write_jobs(tmp_path, more)
    assert len([job for job in remaining(more, tmp_path) if job.setting.task == "questions"]) == 2
    work(tmp_path, say=silent)
    assert (tmp_path / SCORES_NAME).read_bytes().startswith(before)
    found = read_scores(tmp_path / SCORES_NAME)
    assert len(found) == 2 * 2 * 3
    for cell in found:
        records = read_predictions(tmp_path / cell.predictions)
        assert len(records) == 10
        assert np.mean([one["score"] for one in records.values()]) == pytest.approx(cell.score)
        assert cell.details["peeked_score"] >= cell.score
        assert cell.details["learning_rate"] in grid.learning_rates
        assert cell.details["training_examples"] == 24
    assert not list((tmp_path / "claims").iterdir())
    assert [note.split(":")[0] for note in same_arguments_notes(more, read_searches(tmp_path / SEARCHES_NAME))] == [
        "questions", "texts",
    ]  # fmt: skip


def test_a_cell_does_not_depend_on_what_was_run_before_it(world, tmp_path):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:], controls=Controls((2.0,), (0.5,), shuffled_labels=True))
    bench, device = Workbench(jobs, torch.device("cpu")), torch.device("cpu")
    cells = [cell for cell in jobs.plan.cells if cell.finetuning_seed == 1 and cell.setting.source.is_scratch]
    forward = [run_cell(bench, cell, (1e-2, 1.0), tmp_path) for cell in cells]
    alone = [run_cell(Workbench(jobs, device), cell, (1e-2, 1.0), tmp_path) for cell in reversed(cells)]
    for one, other in zip(forward, reversed(alone), strict=True):
        when = {"finished": one.details["finished"]}
        assert one == replace(other, seconds=one.seconds, details={**other.details, **when})
    by_control = {cell.control: cell for cell in forward if cell.task == "texts"}
    assert by_control["scratch_longer"].details["updates"] == 2 * by_control[None].details["updates"]
    assert by_control["fewer_labels"].details["training_examples"] == 12
    losses = [by_control[name].metrics["loss"] for name in (None, "shuffled_labels")]
    assert losses[0] != losses[1]


def test_frozen_token_embeddings_stay(world, tmp_path, monkeypatch):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:2])
    kept = {}

    def spy(recipe, model, options, **more):
        kept["before"] = model.transformer.get_input_embeddings().weight.detach().clone()
        result = finetune(recipe, model, options, **more)
        kept["after"] = model.transformer.get_input_embeddings().weight.detach().clone()
        return result

    from gap.cells.running import finetune

    monkeypatch.setattr("gap.cells.running.finetune", spy)
    for frozen in (True, False):
        own = replace(jobs, options=replace(jobs.options, freeze_embeddings=frozen))
        run_cell(Workbench(own, torch.device("cpu")), own.plan.cells[0], (1e-2, 1.0), tmp_path)
        assert torch.equal(kept["before"], kept["after"]) is frozen


def test_the_search_takes_the_best_held_out_score_and_counts_what_peeking_would_gain(world):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[:1], grid=Grid((1e-3, 2e-3, 3e-3), (1.0,)))
    tries = list(jobs.plan.searches[:3])
    scores = ((0.2, 0.9), (0.5, 0.6), (0.5, 0.7))
    records = [{"held_out_score": held, "scored_score": scored} for held, scored in scores]
    choice = choose(tries, records, jobs.plan.grid.tries[0])
    assert choice.learning_rate == 2e-3  # the first of equals
    assert choice.peeking_gain == pytest.approx(0.3)
    assert choose([], [], (5e-5, 3.0)).learning_rate == 5e-5
    for record, loss in zip(records, (0.1, 0.8, 0.7), strict=True):
        record["held_out_loss"] = loss
    assert choose(tries, records, jobs.plan.grid.tries[0]).learning_rate == 3e-3  # of equal scores, the lower loss
    records[2]["held_out_loss"] = None
    assert choose(tries, records, jobs.plan.grid.tries[0]).learning_rate == 2e-3


def test_a_search_records_its_held_out_loss(world):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[:1], grid=Grid((1e-3, 2e-3), (1.0,)))
    result = run_search(Workbench(jobs, torch.device("cpu")), jobs.plan.searches[0])
    assert result.held_out_loss is not None
    assert 0 < result.held_out_loss < 20


def test_changed_data_is_noticed(world):
    series, tasks = world
    jobs = replace(tiny_jobs(series, tasks[:1]), task_digests={"questions": "other"})
    with pytest.raises(ValueError, match="changed since"):
        run_search(Workbench(jobs, torch.device("cpu")), replace_job(jobs))


def replace_job(jobs):
    from gap.cells.plan import Search

    return Search(jobs.plan.cells[0].setting, 1e-3, 1.0)


def test_a_job_that_is_claimed_elsewhere_is_left_alone_and_a_dead_owners_claim_is_free(tmp_path):
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(60)"
    )
    (tmp_path / "claims").mkdir()
    path = tmp_path / "claims" / ("a" * 24)
    owner = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    try:
        owner.stdout.readline()
        with claim(tmp_path, "a" * 64) as mine:
            assert not mine
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    with claim(tmp_path, "a" * 64) as mine:
        assert mine
    assert not path.exists()


def test_long_cells_come_first_and_those_of_few_labels_last(world, tmp_path):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[:1], controls=Controls((2.0, 4.0), (0.25, 0.5)))
    left = remaining(jobs, tmp_path)
    sizes = [job.setting.epochs_factor * job.setting.label_fraction for job in left]
    assert sizes == sorted(sizes, reverse=True)
    assert set(sizes) == {4.0, 2.0, 1.0, 0.5, 0.25}
    assert len(left) == len(jobs.plan.cells)


def test_a_torn_last_line_of_the_searches_is_run_again(world, tmp_path):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:2], grid=Grid((1e-3, 1e-2), (1.0,)), finetuning_seeds=1, intervals=False)
    write_jobs(tmp_path, jobs)
    work(tmp_path, say=silent)
    whole = (tmp_path / SEARCHES_NAME).read_bytes()
    (tmp_path / SEARCHES_NAME).write_bytes(whole[:-20])
    (tmp_path / SCORES_NAME).unlink()
    assert len(remaining(jobs, tmp_path)) == 3
    work(tmp_path, say=silent)
    assert len(read_searches(tmp_path / SEARCHES_NAME)) == 4
    assert not remaining(jobs, tmp_path)
    (tmp_path / SEARCHES_NAME).write_bytes(b"{}\n" + whole)
    with pytest.raises(ValueError, match="line 1"):
        remaining(jobs, tmp_path)


def test_a_worker_ends_with_its_parent(world, tmp_path):
    series, tasks = world
    write_jobs(tmp_path, tiny_jobs(series, tasks[:1]))
    assert work(tmp_path, say=silent, alive=lambda: False) == 0.0
    assert not (tmp_path / SCORES_NAME).exists()


def test_workers_get_one_device_and_no_launcher_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "1")
    for name in ("LOCAL_" + "RANK", "WORLD_" + "SIZE"):
        monkeypatch.setenv(name, "2")
    environment = worker_environment("3")
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert not {"LOCAL_" + "RANK", "WORLD_" + "SIZE"} & set(environment)
    assert worker_command(tmp_path, 2)[1:] == [worker.__file__, str(tmp_path), "2"]
    assert worker_command(tmp_path, None)[1:] == [worker.__file__, str(tmp_path), "wait"]


def test_a_waiting_worker_leaves_when_whoever_started_it_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from gap.cells.executor import Workers;"
        "workers = Workers(Path(sys.argv[1]), [None]); print(workers._waiting[0].pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        waiting = int(starter.stdout.readline())
        assert is_alive(waiting)
    finally:
        starter.kill()
        starter.communicate()
    deadline = time.monotonic() + 60
    while is_alive(waiting) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(waiting)
    assert not list(tmp_path.iterdir())


def is_alive(number):
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_no_more_workers_begin_than_there_are_jobs(world, tmp_path):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:2], finetuning_seeds=1, intervals=False)
    write_jobs(tmp_path, jobs)
    said = []
    with waiting_workers(tmp_path, [None, None, None]) as workers:
        run_local(tmp_path, workers, say=said.append)
        assert [len(workers._begun), len(workers)] == [len(jobs.plan.cells) - 1, 3] == [1, 3]
        run_local(tmp_path, workers, say=said.append)  # nothing is left
    assert not remaining(jobs, tmp_path)
    assert not [one for one in said if "failed" in one]
    assert all(one.returncode is not None for one in workers._waiting)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_cell_without_memory_is_named_with_what_to_lower(world, tmp_path, monkeypatch, error):
    series, tasks = world
    write_jobs(tmp_path, tiny_jobs(series, tasks[1:2]))

    def run_cell(*arguments, **more):
        raise error

    monkeypatch.setattr(worker, "run_cell", run_cell)
    with pytest.raises(
        Failed,
        match=r"texts, scratch, run 0, seed 0: out of memory .* --per_device_train_batch_size.*_length .*run again",
    ):
        work(tmp_path, say=silent)


class FakeExecutor:
    """Has submitit's batch() and submit(), and keeps what it is given."""

    def __init__(self):
        self.submitted = []

    def batch(self):
        import contextlib

        return contextlib.nullcontext()

    def submit(self, function):
        self.submitted.append(function)
        self.variables = dict(os.environ)
        return type("Job", (), {"job_id": f"7_{len(self.submitted)}"})


def test_slurm_gets_an_array_of_plain_commands_over_the_same_list(world, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    from gap.cells.executor import Slurm

    series, tasks = world
    write_jobs(tmp_path, tiny_jobs(series, tasks[1:2]))
    executor = FakeExecutor()
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1000")  # as inside a job
    site = {"SLURM_CONF": "/opt/slurm/etc/slurm.conf", "SBATCH_ACCOUNT": "physics"}
    for name, text in site.items():
        monkeypatch.setenv(name, text)
    assert submit_slurm(tmp_path, Slurm(workers=4), executor=executor) == ["7_1", "7_2", "7_3", "7_4"]
    assert "SLURM_MEM_PER_CPU" not in executor.variables
    assert {name: executor.variables.get(name) for name in site} == site
    submit_slurm(tmp_path, Slurm(workers=4, named={"slurm_account": "chemistry"}), executor=executor)
    assert "SBATCH_ACCOUNT" not in executor.variables, "sbatch would prefer it to the option"
    assert os.environ["SLURM_MEM_PER_CPU"] == "1000"
    assert {tuple(one.command) for one in executor.submitted} == {tuple(worker_command(tmp_path.resolve(), 1))}
    assert all(one.env is None for one in executor.submitted)  # no environment is stored, the job has its own


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("named", [{}, {"slurm_partition": "cpu"}, {"slurm_account": "us", "slurm_qos": "low"}])
def test_the_array_job_asks_for_what_the_options_say(world, tmp_path, monkeypatch, gpus, named):
    submitit = pytest.importorskip("submitit")
    asked = {}

    class Recorder(FakeExecutor):
        def __init__(self, **place):
            super().__init__()
            asked.update(place)

        def update_parameters(self, **parameters):
            asked.update(parameters)

    monkeypatch.setattr(submitit, "AutoExecutor", Recorder)
    series, tasks = world
    write_jobs(tmp_path, tiny_jobs(series, tasks[1:2]))
    more = {"slurm_workers": 2, "slurm_gpus": gpus, "slurm_minutes": 5, "slurm_cpus": 3, "slurm_memory_gb": 7}
    options = GapOptions(**more, **named)
    assert len(submit_slurm(tmp_path, slurm_of(options))) == 2
    assert (asked["cluster"], asked["timeout_min"], asked["slurm_array_parallelism"]) == ("slurm", 5, 2)
    assert (asked["cpus_per_task"], asked["mem_gb"]) == (3, 7)
    assert asked.get("gpus_per_node", 0) == gpus
    assert {name: value for name, value in asked.items() if name in slurm_of(options).named} == named
    assert slurm_of(options).named == named


@pytest.mark.slow
def test_submitits_local_executor_runs_the_list(world, tmp_path):
    submitit = pytest.importorskip("submitit")
    from gap.cells.executor import Slurm

    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:2])
    write_jobs(tmp_path, jobs)
    executor = submitit.LocalExecutor(folder=str(tmp_path / "logs"))
    executor.update_parameters(timeout_min=5)
    assert len(submit_slurm(tmp_path, Slurm(workers=2), executor=executor)) == 2
    deadline = time.monotonic() + 240
    while remaining(jobs, tmp_path) and time.monotonic() < deadline:
        time.sleep(1)
    assert not remaining(jobs, tmp_path), [path.read_text() for path in (tmp_path / "logs").glob("*.err")]
    assert submit_slurm(tmp_path, Slurm(workers=2), executor=executor) == []


@pytest.mark.slow
def test_a_killed_run_continues_and_two_workers_give_the_same_scores_as_one(world, tmp_path):
    series, tasks = world
    jobs = tiny_jobs(series, tasks, grid=Grid((1e-3, 1e-2), (1.0,)))
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        write_jobs(folder, jobs)
    work(alone, say=silent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(worker_command(shared, 2), env=environment, stdout=subprocess.PIPE, text=True)
    for line in first.stdout:
        if line.startswith("cell 3/"):
            first.kill()  # in the middle of whatever it does
    first.wait()
    done = len(read_scores(shared / SCORES_NAME))
    assert 3 <= done < len(jobs.plan.cells)
    with waiting_workers(shared, [None]) as workers:
        run_local(shared, workers, say=silent)
    assert not remaining(jobs, shared)

    def lines(folder):
        cells = {cell.fingerprint: cell for cell in read_scores(folder / SCORES_NAME)}
        records = {name: json.loads((folder / cell.predictions).read_text()) for name, cell in cells.items()}
        told = {name: {**cell.details, "finished": None, "search_seconds": None} for name, cell in cells.items()}
        return {name: (cell.score, told[name], records[name]) for name, cell in cells.items()}

    assert lines(alone) == lines(shared)
