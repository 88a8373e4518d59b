"""`--help` is what most users see first."""

import re
from dataclasses import dataclass, field

import pytest

from finetuning.examples.recipe import FinetuningOptions
from finetuning.recipes.options.prediction import PredictionOptions
from pretraining.overfit.options import OverfitOptions
from runtime.options.command_line import parse_options
from shards.building.options import BuildOptions


@dataclass
class Options:
    rate: float = field(default=1e-3, metadata={"help": "Peak rate."})
    shards: str | None = field(default=None, metadata={"help": "Shard directory."})


def options_shown(cls, capsys, monkeypatch):
    """What --help says of each option, each on a line of its own."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        parse_options(cls, ["--help"])
    lines = re.sub(r"\n {10,}", "  ", capsys.readouterr().out).splitlines()
    return [line.strip() for line in lines if line.startswith("  --")]


def test_the_description_keeps_its_lines_and_empty_defaults_are_left_out(capsys):
    with pytest.raises(SystemExit):
        parse_options(Options, ["--help"], description="Trains.\n\n    one.py     first\n    two.py     then")
    shown = capsys.readouterr().out
    assert "\n    one.py     first\n    two.py     then\n" in shown
    assert "Peak rate. (default: 0.001)" in shown
    assert "None" not in shown


def test_the_negated_form_of_an_option_is_its_false():
    assert parse_options(FinetuningOptions, []).save_model is True
    for written in (["--no_save_model"], ["--no-save-model"], ["--save_model", "false"]):
        assert parse_options(FinetuningOptions, written).save_model is False


@pytest.mark.parametrize(
    ("cls", "names"),
    [(BuildOptions, ("--input", "--output_dir")), (PredictionOptions, ("--model_name_or_path", "--test_file"))],
)
def test_what_a_command_cannot_do_without_is_required(cls, names, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(cls, [])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "required" in error
    assert all(name in error for name in names)


@pytest.mark.parametrize(
    ("cls", "option", "default"),
    [
        (BuildOptions, "--vocab_size", "(default: 16384 without --tokenizer)"),
        (OverfitOptions, "--model ", "(default: bert-tiny if none is named)"),
        (FinetuningOptions, "--global_batch_rows", "(default: 16 on the small world, 32 otherwise)"),
    ],
)
def test_a_default_that_depends_on_another_option_is_shown(cls, option, default, capsys, monkeypatch):
    lines = [line for line in options_shown(cls, capsys, monkeypatch) if line.startswith(option)]
    assert len(lines) == 1
    assert lines[0].endswith(default)


def test_an_error_is_not_hidden_below_all_options(capsys):
    with pytest.raises(SystemExit):
        parse_options(Options, ["--rat", "1"])
    usage, error = capsys.readouterr().err.splitlines()
    assert "--help" in usage
    assert "--rate" in error
