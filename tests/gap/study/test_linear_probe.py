"""`--linear_probe`: which cells it adds, what it leaves as it was, and what it refuses before any cell runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_gap import tiny_experiment, tiny_jobs, wider, write_series, write_tasks

from gap.cells.code_identity import PROBE_MODULES, deciding_modules, probe_digest
from gap.cells.estimate import Speed, Work, estimated_seconds
from gap.cells.job_list import is_probe, read_jobs, write_jobs
from gap.cells.plan import SEARCH_SEED, Controls, reference_sources, sources_of
from gap.cells.running import Workbench
from gap.cells.search.grid import Grid
from gap.cells.store import LINEAR_PROBE, read_scores
from gap.cells.worker import remaining, run_probe, work
from gap.probe.probed_task import probe_task
from gap.study import experiment as experiment_module
from gap.study.from_options import experiment_of
from gap.study.options import GapOptions
from gap.tasks.kinds.task_data import TaskSpec
from pretraining.checkpoints.series import read_series

ROOT = Path(__file__).resolve().parents[3]
SEARCHED = Grid((1e-3, 1e-2), (1.0,))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_series(folder / "run"), write_tasks(folder / "tasks")


def places(cells):
    return sorted(
        (cell.setting.source.kind, cell.setting.source.budget_tokens or -1, cell.finetuning_seed) for cell in cells
    )


def test_the_plan_has_exactly_the_further_cells(world, tmp_path):
    series, tasks = world
    outside = tuple(reference_sources(str(wider(series, tmp_path / "wide"))))
    more = {"grid": SEARCHED, "tasks_at_ends": tasks[:1], "controls": Controls((2.0,), (0.5,), True, True)}
    without = tiny_jobs(series, tasks[1:2], outside, **more).plan
    plan = tiny_jobs(series, tasks[1:2], outside, linear_probe=True, **more).plan
    assert plan.cells[: len(without.cells)] == without.cells
    assert plan.searches == without.searches
    assert plan.decisions == without.decisions
    probes = plan.cells[len(without.cells) :]
    random = [(kind, budget, seed) for kind, budget in (("raw", -1), ("reference_scratch", -1)) for seed in range(3)]
    pretrained = [("annealed", 100, 0), ("annealed", 200, 0), ("reference", -1, 0)]
    assert places(probes) == sorted([*random, *pretrained])
    assert {(cell.control, cell.setting.task, cell.setting.epochs_factor) for cell in probes} == {
        (LINEAR_PROBE, "texts", 1.0)
    }


def test_without_it_nothing_changes_and_with_it_the_other_cells_keep_their_names(world):
    series, tasks = world
    without, jobs = (tiny_jobs(series, tasks[1:2], grid=SEARCHED, linear_probe=on) for on in (False, True))
    assert without.probe_code is None
    names = [without.fingerprint(job) for job in without.plan.jobs()]
    own = [jobs.fingerprint(job) for job in jobs.plan.jobs() if not is_probe(job)]
    assert sorted(own) == sorted(names)
    assert len(jobs.cell_names()) == len(jobs.plan.cells)


def test_a_probe_without_a_fine_tuned_curve_is_refused(world, tmp_path):
    series, tasks = world
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"sentence_good": "a", "sentence_bad": "b"}\n')
    experiment = tiny_experiment(
        (TaskSpec("pairs", "pairs", str(pairs)),), tasks_at_ends=tasks[1:2], linear_probe=True, intervals=False
    )
    sources = sources_of(read_series(series), ["annealed"])
    with pytest.raises(ValueError, match="--linear_probe probes the curves of the fine-tuned --tasks, and there is"):
        experiment.plan(sources)
    assert replace(experiment, linear_probe=False).plan(sources).cells


def test_what_is_searched_for_fine_tuning_is_no_part_of_a_probes_name_and_its_code_is(world):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:2], linear_probe=True)
    other = tiny_jobs(series, tasks[1:2], grid=SEARCHED, linear_probe=True, resample_split=True)
    probe, same = (next(filter(is_probe, one.plan.cells)) for one in (jobs, other))
    assert (probe.search_seed, same.search_seed) == (SEARCH_SEED, SEARCH_SEED + 1)
    assert jobs.fingerprint(probe) == other.fingerprint(same)
    assert replace(jobs, probe_code="other").fingerprint(probe) != jobs.fingerprint(probe)
    assert replace(jobs, code="other").fingerprint(probe) != jobs.fingerprint(probe)


@pytest.mark.parametrize(
    ("old", "new"),
    [("PATIENCE = 2", "PATIENCE = 3"), ("held_out(data, ids)", "held_out(data, ids, 1)")],
    ids=["the fit", "what chooses the strength"],
)
def test_all_code_of_a_probe_is_in_one_of_its_two_digests(tmp_path, old, new):
    own = set(deciding_modules(ROOT, PROBE_MODULES)) - {"gap.probe"}
    assert own - set(PROBE_MODULES) <= set(deciding_modules(ROOT))
    assert probe_task.__module__ in PROBE_MODULES
    (tmp_path / "gap" / "probe").mkdir(parents=True)
    for name in PROBE_MODULES:
        path = Path(*name.split(".")).with_suffix(".py")
        (tmp_path / path).write_text((ROOT / path).read_text().replace(old, new))
    assert probe_digest(tmp_path) != probe_digest(ROOT)


def test_the_list_is_read_as_it_was_written_and_old_lists_have_no_probe(world, tmp_path):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:2], linear_probe=True)
    write_jobs(tmp_path, jobs)
    assert read_jobs(tmp_path) == jobs
    content = json.loads((tmp_path / "cells.json").read_text())
    del content["probe_code"]
    (tmp_path / "cells.json").write_text(json.dumps(content))
    assert read_jobs(tmp_path).probe_code is None


def test_a_list_of_other_probe_code_is_not_worked_on(world, tmp_path):
    series, tasks = world
    write_jobs(tmp_path, replace(tiny_jobs(series, tasks[1:2], linear_probe=True), probe_code="other"))
    with pytest.raises(ValueError, match="planned with other code"):
        work(tmp_path)


def test_a_pilot_has_no_probes(world):
    series, tasks = world
    pilot = tiny_experiment(tasks[1:2], linear_probe=True).as_pilot()
    jobs = pilot.jobs(sources_of(read_series(series), ["annealed"]), pilot.read())
    assert not any(map(is_probe, jobs.plan.cells))
    assert experiment_of(GapOptions(linear_probe=True)).linear_probe
    assert not experiment_of(GapOptions(linear_probe=True, pilot=True)).linear_probe
    assert not experiment_of(GapOptions()).linear_probe


def test_states_of_every_token_that_would_not_fit_are_refused_by_the_tasks_name(world, monkeypatch):
    series, tasks = world
    monkeypatch.setattr(experiment_module, "MOST_STATE_BYTES", 40_000)
    with pytest.raises(ValueError, match=r"--linear_probe: the hidden states of task questions .*max_train_samples"):
        tiny_jobs(series, tasks[:1], linear_probe=True)
    tiny_jobs(series, tasks[:1])
    tiny_jobs(series, tasks[1:2], linear_probe=True)  # one vector for each text


def test_the_estimate_of_a_probe_is_the_encoder_once_over_all_rows_or_what_probes_took(world):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:2], linear_probe=True)
    probes = [cell for cell in jobs.plan.cells if is_probe(cell)]
    work_, speed = {"texts": Work(100.0, 50.0, 8)}, {("texts", ""): Speed(train=3.0, evaluate=1.0)}
    epochs = {cell.search: 2.0 for cell in jobs.plan.cells}
    assert estimated_seconds(probes, [], work_, speed, {}) == len(probes) * 150.0
    tuned = [cell for cell in jobs.plan.cells if not is_probe(cell)]
    assert estimated_seconds(tuned, [], work_, speed, epochs) == len(tuned) * 650.0


@pytest.mark.slow
def test_probes_run_beside_the_cells_and_wait_for_no_search(world, tmp_path):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:2], grid=SEARCHED, linear_probe=True)
    write_jobs(tmp_path, jobs)
    said = []
    work(tmp_path, say=said.append)
    cells = read_scores(tmp_path / "scores.jsonl")
    probes = [cell for cell in cells if cell.control == LINEAR_PROBE]
    assert len(cells) == len(jobs.plan.cells)
    assert any("scratch, run 0, linear probe, seed 2" in line for line in said)
    assert all(set(cell.details) >= {"strength", "converged", "model"} for cell in probes)
    assert not any("search_seconds" in cell.details or "learning_rate" in cell.details for cell in probes)
    records = json.loads((tmp_path / probes[0].predictions).read_text())["examples"]
    assert set(records[0]) >= {"id", "score", "cluster", "gold_log_probability", "confidence"}
    searched = sum(json.loads(line)["seconds"] for line in (tmp_path / "searches.jsonl").read_text().splitlines())
    shares = sum(cell.details["search_seconds"] for cell in cells if cell.control is None)
    assert shares == pytest.approx(searched)
    # The searches' lines are gone: cells that are done need none, and neither do probes that are not.
    lines = (tmp_path / "scores.jsonl").read_text().splitlines()
    (tmp_path / "scores.jsonl").write_text("".join(f"{line}\n" for line in lines if LINEAR_PROBE not in line))
    (tmp_path / "searches.jsonl").unlink()
    assert [is_probe(job) for job in remaining(jobs, tmp_path)] == [True] * len(probes)
    bench = Workbench(jobs, torch.device("cpu"))
    again = run_probe(bench, next(filter(is_probe, jobs.plan.cells)), tmp_path)
    assert again.score == next(cell.score for cell in probes if cell.fingerprint == again.fingerprint)


@pytest.mark.slow
def test_scratchs_seeds_have_weights_of_their_own_as_in_fine_tuning(world, tmp_path):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[1:2], linear_probe=True)
    bench = Workbench(jobs, torch.device("cpu"))
    probes = [cell for cell in jobs.plan.cells if is_probe(cell) and cell.setting.source.is_scratch]
    losses = {run_probe(bench, cell, tmp_path).metrics["loss"] for cell in probes}
    assert len(losses) == len(probes) == 3
