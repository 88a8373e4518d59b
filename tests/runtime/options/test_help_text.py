"""`--help` is what most users see first."""

from dataclasses import dataclass, field

import pytest

from runtime.options.command_line import parse_options


@dataclass
class Options:
    rate: float = field(default=1e-3, metadata={"help": "Peak rate."})
    shards: str | None = field(default=None, metadata={"help": "Shard directory."})


def test_the_description_keeps_its_lines_and_empty_defaults_are_left_out(capsys):
    with pytest.raises(SystemExit):
        parse_options(Options, ["--help"], description="Trains.\n\n    one.py     first\n    two.py     then")
    shown = capsys.readouterr().out
    assert "\n    one.py     first\n    two.py     then\n" in shown
    assert "Peak rate. (default: 0.001)" in shown
    assert "None" not in shown


def test_an_error_is_not_hidden_below_all_options(capsys):
    with pytest.raises(SystemExit):
        parse_options(Options, ["--rat", "1"])
    usage, error = capsys.readouterr().err.splitlines()
    assert "--help" in usage
    assert "--rate" in error
