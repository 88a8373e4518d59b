import argparse
import importlib
import os
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from pretraining_runs import in_process, write_shards

import benchmarks.finetuning_speed as finetuning_speed
from benchmarks import gpu, growth, optimizers, scaling, throughput
from benchmarks.throughput import Way

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

    def train(command, *, stdout, env, **_):
        assert int(env["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2)
        options = dict(zip(command[2::2], command[3::2], strict=True))
        runs.append((options["--optimizer"], options["--learning_rate"], options.get("--muon_learning_rate")))
        if options["--learning_rate"] == "0.5":
            stdout.write("11 updates in a row had a loss or gradient that is not finite, up to update 11")
            return argparse.Namespace(wait=lambda: 1)
        names = {name.removeprefix("--"): value for name, value in options.items()}
        in_process(shards, Path(names.pop("output_dir")), {**names, "bf16": "false", "torch_compile": "false"})
        return argparse.Namespace(wait=lambda: 0)

    monkeypatch.setattr(optimizers.subprocess, "Popen", train)
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
    monkeypatch.setattr(optimizers.subprocess, "Popen", lambda *_, **__: argparse.Namespace(wait=lambda: 3))
    with pytest.raises(SystemExit, match=r"adamw-0\.001-seed0 ended with 3: see"):
        optimizers.main()


def test_the_loss_at_a_time_lies_between_two_budgets():
    curve = optimizers.Curve((1e6, 2e6), (100.0, 400.0), (5.0, 4.0))
    assert [curve.loss_at(seconds) for seconds in (50, 100, 200, 400, 800)] == pytest.approx([5, 5, 4.5, 4, 4])


TINY_THROUGHPUT = "--models bert-tiny --rounds 1 --updates 2 --warm_updates 1 --rows 4 --length 32 --vocab_size 200"


@pytest.fixture
def on_one_thread(monkeypatch):
    """A script that sets threads changes nothing for the tests after it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.long
def test_the_throughput_benchmark_measures_every_way(on_one_thread, capsys):
    throughput.main([*TINY_THROUGHPUT.split(), "--threads", "1"])
    printed = capsys.readouterr().out
    assert "losses agree to" in printed
    for way in ("Trainer, fp32, its dropout", "Trainer, bf16, no dropout", "launch/pretrain.py, bf16"):
        assert f"| {way} |" in printed
    assert "| default against default |" in printed
    assert "| bf16 both, the Trainer without dropout |" in printed


def test_throughput_is_not_measured_where_the_losses_differ(on_one_thread, monkeypatch):
    right = throughput.our_losses
    monkeypatch.setattr(throughput, "our_losses", lambda *given: [1.01 * loss for loss in right(*given)])
    monkeypatch.setattr(throughput, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit, match=r"differ by 0\.01 of the loss"):
        throughput.main([*TINY_THROUGHPUT.split(), "--threads", "1"])


def test_the_defaults_are_compared_in_the_precision_that_the_processor_computes():
    ways = [Way(False, bf16, dropout) for bf16 in (False, True) for dropout in (True, False)]
    ways += [Way(True, False), Way(True, True)]
    rows = {title: (ours.bf16, peer) for title, ours, peer in throughput.comparisons(ways, auto_bf16=True)}
    assert rows["default against default"] == (True, Way(False, False, True))
    assert rows["fp32 both, the Trainer without dropout"] == (False, Way(False, False, False))
    assert rows["bf16 both"] == (True, Way(False, True, True))
    rows = {title: (ours.bf16, peer) for title, ours, peer in throughput.comparisons(ways, auto_bf16=False)}
    assert rows["default against default"] == (False, Way(False, False, True))
    assert "fp32 both" not in rows


def test_the_throughput_tables_hold_medians_spreads_and_ratios_within_a_round():
    rates = {Way(False, True): [100.0, 200.0, 400.0], Way(True, True): [400.0, 400.0, 400.0]}
    found = throughput.tables(
        "m", rates, {False: [1e3], True: [8e3, 8e3, 9e3]}, flops_per_token=10.0, auto_bf16=True
    ).splitlines()
    assert found[2:4] == [
        "| Trainer, bf16, no dropout | 200 (100 to 400) | 25% |",
        "| launch/pretrain.py, bf16 | 400 (400 to 400) | 50% |",
    ]
    assert found[-1] == "| bf16 both | 2.00 (1.00 to 4.00) |"


def test_warm_updates_are_not_in_the_rate():
    lines = [{"tokens": 10.0 * number, "seconds": seconds} for number, seconds in enumerate((9.0, 10.0, 11.0), start=1)]
    assert throughput.journal_rate(lines, warm=1) == 10.0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_path_of_the_gpu_benchmark_runs_at_tiny_sizes(monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert gpu.main(["--tiny", "--minutes", "14"]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith(("| pretraining", "| fine-tuning"))]
    assert len(rows) == len(gpu.cells(gpu.TINY))
    missing = [row for row in rows if "not measured" in row and "flash-attn is not installed" not in row]
    assert missing == []


def test_a_batch_that_does_not_fit_the_gpu_is_halved(monkeypatch, tmp_path):
    tried = []

    def measure(bench, cell, rows):
        tried.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"rows": rows}

    monkeypatch.setattr(gpu.Bench, "_measure", measure)
    assert gpu.Bench(gpu.TINY, tmp_path).measure(gpu.Cell("bert-tiny", 4)) == {"rows": 2}
    assert tried == [16, 8, 4, 2]


def test_the_gpu_table_holds_every_cell_and_says_what_was_not_measured():
    sizes = gpu.Sizes(models=("bert-tiny",), lengths=(16,), middle=16)
    ours, peer = gpu.Cell("bert-tiny", 16), gpu.Cell("bert-tiny", 16, gpu.TRAINER)
    figures = {"flops_per_token": 1e9, "rows": 4, "memory": 1.5}
    lines = [
        {"precision": "bf16", "peak": 1e12},
        *({"cell": vars(ours), "rate": rate, **figures} for rate in (500.0, 700.0)),
        {"cell": vars(peer), "rate": 300.0, **figures},
        {"cell": vars(gpu.Cell("bert-tiny", 16, "zero1")), "error": "broken"},
    ]
    rows = gpu.table(sizes, lines).splitlines()[4:]
    assert len(rows) == len(gpu.cells(sizes))
    assert rows[0] == (
        "| pretraining | bert-tiny | 16 | plain | sdpa | bf16 | 600 (500 to 700) | 60% | 2.00 | 4 | 1.5 |"
    )
    assert "| pretraining | bert-tiny | 16 | zero1 | sdpa | bf16 | not measured: broken | | | | |" in rows
    assert "| pretraining | bert-tiny | 16 | fsdp2 | sdpa | bf16 | not measured | | | | |" in rows


def test_gpu_cells_take_turns_and_what_compiles_comes_last():
    a, b, compiled = gpu.Cell("a", 1), gpu.Cell("b", 1), gpu.Cell("a", 1, compiled=True)
    assert list(gpu.in_turn([a, compiled, b], rounds=2)) == [a, b, b, a, compiled]


def test_the_bytes_of_an_update_are_those_of_the_published_formulas():
    sent = {mode: scaling.sent_bytes(1000, mode, 8) for mode in ("zero1", "zero2", "zero3", "full_shard")}
    assert sent == {"zero1": 3500, "zero2": 3500, "zero3": 5250, "full_shard": 7000}


def test_the_page_on_scaling_holds_the_table_that_the_script_prints():
    page = (Path(finetuning_speed.__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
    table = scaling.table(["bert-base"], [8, 512], rows=32, length=512).splitlines()
    assert len(table) == 2 + 2 * 4
    assert [row for row in table if row not in page.splitlines()] == []
    assert all("512 (refused)" in row for row in table[6:])


def test_every_benchmark_has_a_target_of_make_and_a_line_in_the_readme():
    root = Path(finetuning_speed.__file__).parents[1]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^BENCHMARKS := (.*)$", makefile, re.MULTILINE)[1].split()
    own = re.findall(r"bench-(\w+)", re.search(r"^(bench-coverage .*): bench-%", makefile, re.MULTILINE)[1])
    modules = {name for name in SCRIPTS if hasattr(importlib.import_module(f"benchmarks.{name}"), "main")}
    assert sorted([*listed, *own]) == sorted(modules)
    readme = (root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    rows = {row[1]: row[2] for row in re.finditer(r"^\| `(\w+)\.py` .*\| `(bench[-\w]*)` \|", readme, re.MULTILINE)}
    assert rows == {**dict.fromkeys(listed, "bench"), **{name: f"bench-{name}" for name in own}}


@pytest.mark.parametrize("name", ["throughput", "attention"])
def test_the_arguments_of_make_bench_are_the_scripts(name, monkeypatch):
    makefile = (Path(finetuning_speed.__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    given = re.search(rf"^ARGUMENTS_{name} := (.*)$", makefile, re.MULTILINE)[1].split()
    parse = argparse.ArgumentParser.parse_args

    def parse_given(parser, *_):
        parse(parser, given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_given)
    with pytest.raises(Parsed):
        importlib.import_module(f"benchmarks.{name}").main()


def test_the_order_of_a_large_corpus_takes_memory_for_its_blocks_and_not_for_its_rows():
    few, many = growth.corpus(10_000_000, 100), growth.corpus(1_000_000_000, 100)
    places = np.linspace(0, 2 * many.rows_per_epoch - 4096, 20).astype(np.int64)
    held = []
    for order in (few, many):
        tracemalloc.start()
        for first in (places // (many.rows_per_epoch // order.rows_per_epoch)).tolist():
            rows, blocks, inside = order.locate(first, 4096, range(3, 7))
            assert np.all(inside < order.rows_per_block[blocks])
            assert len(rows) == 4096 // order.num_lanes * 4
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert held[1] < 1.5 * held[0] < 20e6


def test_the_simulation_reads_manifest_and_order(tmp_path):
    found = growth.simulate(1_000_000, 50, reads=5)
    assert found["rows"] == 5 * 4096 / growth.RANKS
    manifest = growth.simulate_manifest(20, tmp_path / "manifest")
    assert 0.05 < manifest["written"] < 1
    assert manifest["MB"] < 50
