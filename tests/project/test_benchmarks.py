import argparse
import importlib
import sys
from pathlib import Path

import pytest
from pretraining_runs import in_process, write_shards

import benchmarks.finetuning_speed as finetuning_speed
from benchmarks import optimizers

SCRIPTS = sorted(path.stem for path in Path(finetuning_speed.__file__).parent.glob("*.py"))


class Parsed(Exception):
    """The command line was accepted."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_needs_no_argument(name, monkeypatch):
    module = importlib.import_module(f"benchmarks.{name}")
    if not hasattr(module, "argparse"):
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_nothing(parser, *_):
        parse(parser, [])
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_nothing)
    with pytest.raises(Parsed):
        module.main()


def test_half_a_corpus_is_refused_by_the_build_benchmark(capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("benchmarks.build_shards").main(["--input", "text.txt"])
    assert "belong together" in capsys.readouterr().err


def test_the_fine_tuning_table_holds_wall_and_cpu_time_over_ours():
    runs = {"this project": [(2.0, 4.0, 0.5)], "Trainer": [(1.0, 2.0, 0.4), (3.0, 6.0, 0.6), (3.0, 9.0, 0.5)]}
    found = {"qa": {way: [finetuning_speed.Measured(*one) for one in listed] for way, listed in runs.items()}}
    options = argparse.Namespace(
        threads=1, layers=2, hidden_size=128, train_rows=8, epochs=1, batch_rows=4, repetitions=3
    )
    lines = finetuning_speed.table(found, options).splitlines()
    assert lines[2] == "| task | way | wall s | wall time over ours | CPU s | CPU time over ours | score |"
    assert lines[4:] == [
        "| qa | this project | 2.0 | 1.00 | 4.0 | 1.00 | 0.500 |",
        "| qa | Trainer | 3.0 | 1.50 | 6.0 | 1.50 | 0.500 |",
    ]


def test_the_optimizers_benchmark_runs_tiny_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    shards, runs = write_shards(tmp_path / "data"), []

    def train(command, *, stdout, **_):
        options = dict(zip(command[2::2], command[3::2], strict=True))
        runs.append((options["--optimizer"], options["--learning_rate"], options.get("--muon_learning_rate")))
        if options["--learning_rate"] == "0.5":
            stdout.write("11 updates in a row had a loss or gradient that is not finite, up to update 11")
            return argparse.Namespace(returncode=1)
        names = {name.removeprefix("--"): value for name, value in options.items()}
        in_process(shards, Path(names.pop("output_dir")), {**names, "bf16": "false"})
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(optimizers.subprocess, "run", train)
    monkeypatch.setattr(optimizers, "RATES", {"adamw": (1e-3, 0.5), "muon": (1e-2, 2e-2)})
    monkeypatch.setattr(optimizers, "SEEDS", (0, 1))
    given = ["optimizers.py", "--size", "tiny", "--shards", str(shards), "--output_dir", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", given)
    (tmp_path / "runs" / "adamw-0.5-seed0").mkdir(parents=True)
    optimizers.main()
    first = capsys.readouterr().out.split("| optimizer |", 1)[1]
    assert len(runs) == 6
    assert runs[:4] == [
        *(("adamw", "0.001", None), ("muon", "0.002", "0.01")),
        *(("adamw", "0.5", None), ("muon", "0.002", "0.02")),
    ]
    assert "| adamw | 0.5 | inf |" in first
    assert first.count("\n| muon |") == 3
    optimizers.main()
    assert capsys.readouterr().out.split("| optimizer |", 1)[1] == first
    assert len(runs) == 6
    runs_log = tmp_path / "runs" / "adamw-0.001-seed0" / optimizers.FINISHED
    runs_log.unlink()
    monkeypatch.setattr(optimizers.subprocess, "run", lambda *_, **__: argparse.Namespace(returncode=3))
    with pytest.raises(SystemExit, match=r"adamw-0\.001-seed0 ended with 3: see"):
        optimizers.main()


def test_the_loss_at_a_time_lies_between_two_budgets():
    curve = optimizers.Curve((1e6, 2e6), (100.0, 400.0), (5.0, 4.0))
    assert [curve.loss_at(seconds) for seconds in (50, 100, 200, 400, 800)] == pytest.approx([5, 5, 4.5, 4, 4])
