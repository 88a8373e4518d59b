import argparse
import importlib
from pathlib import Path

import pytest

import benchmarks.finetuning_speed as finetuning_speed

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
