"""The options of launch/gap.py: what no cell can be trained with is refused before anything is."""

import json
from dataclasses import replace

import pytest
from tiny_gap import tiny_experiment, tiny_jobs, write_series, write_tasks

from gap.cells.consistency import model_types_of, settled_bf16
from gap.cells.executor import Slurm, submit_slurm
from gap.cells.job_list import CellOptions, read_jobs, write_jobs
from gap.study.from_options import experiment_of
from gap.study.options import GapOptions
from gap.study.sources import families_of
from gap.study.until import GapWatch, make_watch
from launch import gap
from runtime.options.declaration import numbers
from runtime.processes.ranks import Ranks
from tests.launch.test_gap import arguments


def test_a_real_series_is_trained_by_the_defaults_of_the_cells_and_help_shows_them(capsys, monkeypatch):
    options = GapOptions(series="series.json", tasks="qa:there")
    assert experiment_of(options).options == CellOptions()
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        gap.main(["--help"])
    shown = capsys.readouterr().out
    for value in (CellOptions.warmup_ratio, 30, CellOptions.global_batch_rows, "cls", 384, 128):
        assert f", {value} with --series)" in shown


@pytest.mark.parametrize("kinds", ["", ",", "final", "annealed,final"])
def test_a_kind_of_checkpoint_that_no_series_has_is_refused(kinds):
    with pytest.raises(ValueError, match=r"--kinds .*: use one of annealed, raw"):
        GapOptions(kinds=kinds)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("max_seq_length", 0, "at least 8"),
        ("doc_stride", -1, "at least 0"),
        ("max_answer_length", 0, "at least 1"),
        ("global_batch_rows", 0, "at least 1"),
        ("per_device_train_batch_size", 0, "at least 1"),
        ("per_device_eval_batch_size", -8, "at least 1"),
        ("max_parallel", 0, "at least 1"),
        ("slurm_workers", 0, "at least 1"),
        ("slurm_minutes", -5, "at least 1"),
        ("price_per_hour", -1.0, "at least 0"),
        ("devices", 0, "at least 1"),
        ("draws", 5, "at least 100"),
        ("dropout", 1.0, "below 1"),
        ("warmup_ratio", 1.5, "below 1"),
        ("resolve", 2.0, "above 0 and below 1"),
        ("pooling", "first", "cls, mean, max"),
        ("bf16", "maybe", "auto, true, false"),
    ],
)
def test_a_value_outside_its_range_is_refused_with_the_range(name, value, rule):
    with pytest.raises(ValueError, match=f"--{name} {value}: .*{rule}"):
        GapOptions(**{name: value})


def test_lists_of_numbers_hold_each_once_and_nothing_that_is_no_number():
    assert numbers("1e-3, 2,0.001,2.0") == (1e-3, 2.0)
    for wrong in ("nan", "inf", "1,-inf", "two"):
        with pytest.raises(ValueError, match="such as 1e-4,3e-4"):
            numbers(wrong)


@pytest.mark.parametrize("missing", ["series", "independent"])
def test_a_plan_of_a_series_that_is_not_there_is_refused(tmp_path, capsys, missing):
    argv = [*arguments(tmp_path), f"--{missing}", str(tmp_path / "nowhere"), "--dry_run", "true"]
    assert gap.main(argv) == 2
    assert f"{tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_a_family_that_needs_fp32_settles_the_precision(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    places = [tmp_path / "bert", tmp_path / "mra"]
    for place in places:
        place.mkdir()
        (place / "config.json").write_text(json.dumps({"model_type": place.name}))
    families = model_types_of([*map(str, places), "some/hub-name"])
    assert families == {"bert", "mra"}
    assert settled_bf16("auto", tmp_path / "out", model_types=families) == "false"
    assert settled_bf16("auto", tmp_path / "out", model_types={"bert"}) == "true"
    with pytest.raises(ValueError, match=r"--bf16 true: mra computes in fp32 only"):
        settled_bf16("true", tmp_path / "out", model_types=families)


def test_the_families_of_a_study_are_those_of_its_series_and_its_reference(tmp_path):
    series = write_series(tmp_path / "run")
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "config.json").write_text(json.dumps({"model_type": "mra"}))
    options = GapOptions(series=str(series), tasks="qa:x", reference=str(tmp_path / "reference"))
    assert families_of(options) == {"bert", "mra"}


@pytest.mark.parametrize(("budget", "seed", "said"), [(200, 0, "another --seed"), (150, 9, "no annealed checkpoint")])
def test_a_control_run_that_says_nothing_is_refused(tmp_path, capsys, budget, seed, said):
    own = write_series(tmp_path / "alone", (budget,), seed=seed)
    assert gap.main([*arguments(tmp_path), "--independent", str(own), "--dry_run", "true"]) == 2
    assert said in capsys.readouterr().err


def test_auto_precision_is_settled_by_the_cells_that_are_there(tmp_path, monkeypatch):
    """Else cells added on a machine of another kind would be trained otherwise under the same fingerprint."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    jobs = tiny_jobs(write_series(tmp_path / "run"), write_tasks(tmp_path / "tasks")[1:2])
    folder = tmp_path / "out"
    assert settled_bf16("auto", folder) == "false"
    assert jobs.options.bf16 == "false"
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    assert settled_bf16("auto", folder) == "true"
    write_jobs(folder, jobs)
    assert settled_bf16("auto", folder) == "false"  # as its cells were
    write_jobs(folder, replace(jobs, options=replace(jobs.options, bf16="auto")))
    assert settled_bf16("auto", folder) == "false"  # what auto meant where it was kept
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    write_jobs(folder, replace(jobs, options=replace(jobs.options, bf16="true")))
    assert settled_bf16("auto", folder, elsewhere=True) == "true"
    assert settled_bf16("false", folder) == "false"
    (folder / "cells.json").write_text("{}")  # to be written anew
    assert settled_bf16("auto", folder) == "false"
    with pytest.raises(ValueError, match="give --bf16 true or false"):
        settled_bf16("auto", folder, elsewhere=True)


def test_a_list_never_leaves_the_precision_open(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    argv = [*arguments(tmp_path, executor="slurm"), "--slurm_gpus"]
    monkeypatch.setattr("gap.study.study.submit_slurm", lambda directory, slurm: ["7_1"])
    assert gap.main([*argv, "1"]) == 2
    assert "--bf16 auto" in capsys.readouterr().err
    assert gap.main([*argv, "1", "--bf16", "--slurm_workers", "3"]) == 0
    assert "on 3 devices at a time" in capsys.readouterr().out
    assert read_jobs(tmp_path / "out").options.bf16 == "true"
    before = (tmp_path / "out" / "cells.json").read_bytes()
    assert gap.main([*argv, "0"]) == 0  # auto, here: as it was begun
    assert (tmp_path / "out" / "cells.json").read_bytes() == before
    watch = GapWatch(tmp_path, "gap_closed>=0.5", tiny_experiment((), options=CellOptions()), "reference", [1.0])
    assert watch.experiment.options.bf16 == "false"


def test_a_search_with_nothing_to_hold_out_is_refused_with_the_plan(tmp_path, capsys):
    argv = [*arguments(tmp_path), "--max_train_samples", "1", "--dry_run", "true"]
    assert gap.main(argv) == 2
    assert "only one learning rate" in capsys.readouterr().err
    assert gap.main([*argv, "--learning_rates", "1e-3"]) == 0


def test_a_look_takes_no_option_that_it_has_no_use_for(tmp_path):
    values = {
        "tasks": None, "reference": "ref", "finetuning_seeds": 3, "on_small_world": True, "run": tmp_path,
        "shards": "shards", "budgets": [1.0], "ranks": Ranks(),
    }  # fmt: skip
    watch = make_watch("gap_closed>=0.5", more=GapOptions(num_train_epochs="2", contamination=False), **values)
    assert (watch.experiment.grid.epochs, watch.shards) == ((2.0,), None)
    assert watch.experiment.options.warmup_ratio == 0.5  # the small world's, as in launch/gap.py
    gentle = make_watch("gap_closed>=0.5", more=GapOptions(warmup_ratio=0.0), **values)
    assert gentle.experiment.options.warmup_ratio == 0.0
    for more in ({"reference": "other"}, {"kinds": "raw", "pooling": "max"}, {"dry_run": True}):
        with pytest.raises(ValueError, match=f"no use of --{next(iter(more))};.*--learning_rates"):
            make_watch("gap_closed>=0.5", more=GapOptions(**more), **values)


def test_an_array_job_without_slurm_is_refused_with_what_to_do(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")

    def missing(**_):
        raise RuntimeError("no srun.")

    jobs = tiny_jobs(write_series(tmp_path / "run"), write_tasks(tmp_path / "tasks")[1:2])
    write_jobs(tmp_path, jobs)
    monkeypatch.setattr(submitit, "AutoExecutor", missing)
    with pytest.raises(ValueError, match=r"no srun\..*--executor local"):
        submit_slurm(tmp_path, Slurm())
