"""Files of options, changed at random: parsed, or refused in words that name the file."""

import json
from dataclasses import dataclass

import pytest
import yaml
from file_mutations import few_and_many, refusals

from runtime.options.command_line import parse_options
from runtime.options.declaration import option

CONTENT = {"learning_rate": 1e-4, "model": "bert-tiny", "updates": 7, "resume": True, "lengths": [128, 512]}


@dataclass
class Options:
    """A few of each kind."""

    learning_rate: float = option(1e-3, "A rate")
    model: str | None = option(None, "A name")
    updates: int = option(1, "A number")
    resume: bool = option(False, "A choice")
    lengths: str = option("128", "Lengths", commas=True)


@few_and_many
@pytest.mark.parametrize("name", ["options.yaml", "options.json"])
def test_a_file_of_options(tmp_path, capsys, name, rounds):
    path = tmp_path / name
    path.write_text(json.dumps(CONTENT, indent=1) if name.endswith("json") else yaml.safe_dump(CONTENT))

    def read():
        capsys.readouterr()
        try:
            parse_options(Options, [str(path)])
        except SystemExit as ended:
            if ended.code != 2:
                raise AssertionError(ended.code) from ended
            raise ValueError(capsys.readouterr().err.split("error: ", 1)[1].strip()) from ended

    refusals(path, read, rounds, most_lines=12)
