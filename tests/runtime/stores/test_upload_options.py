"""--upload and an address as --output_dir: what every command accepts of them, and what it refuses before it works."""

import importlib
import os
from dataclasses import MISSING, fields

import pytest

from finetuning.recipes.options.classification import ClassificationOptions
from finetuning.recipes.options.prediction import PredictionOptions
from finetuning.sweep.sweep_options import SweepOptions
from gap.report_options import ReportOptions
from runtime.options.declaration import default_of
from runtime.stores.options import in_local_folder, upload_problems
from shards.building.options import BuildOptions

APART = "must not lie in each other"


@pytest.mark.parametrize(
    ("upload", "output_dir", "said"),
    [
        (None, "runs/a", ""),
        ("copies/a", "runs/a", ""),
        ("runs/ab", "runs/a", ""),
        ("s3://bucket/a", "runs/a", ""),
        (None, "s3://bucket/a", ""),
        ("s3://bucket/a", "s3://bucket/a", ""),
        (" ", "runs/a", "--upload is empty"),
        ("ftp://bucket/a", "runs/a", "--upload: 'ftp://bucket/a' is no address"),
        ("runs/a", "runs/a", APART),
        ("runs/a/copy", "runs/a", APART),
        ("runs", "runs/a", APART),
        ("runs/b/../a", "runs/a", APART),
        (os.path.abspath("runs/a"), "runs/a", APART),
        ("link/a", "runs/a", APART),
        (None, "ftp://bucket/a", "--output_dir: 'ftp://bucket/a' is no address"),
        ("s3://bucket/b", "s3://bucket/a", "are two places"),
    ],
)
def test_the_copy_and_the_folder_are_two_places_and_an_address_is_one(tmp_path, monkeypatch, upload, output_dir, said):
    if upload == os.path.abspath("runs/a"):
        upload = str(tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to("runs")
    problems = upload_problems(upload, output_dir)
    assert len(problems) == bool(said)
    assert said in "".join(problems)


def test_an_address_as_output_dir_is_a_folder_of_runs_and_its_copy():
    options = in_local_folder(BuildOptions(input=["a.txt"], output_dir="s3://bucket/shards/a"))
    assert (options.output_dir, options.upload) == ("runs/bucket/shards/a", "s3://bucket/shards/a")


COMMANDS = {"launch.gap": (), "launch.pretrain": (), "launch.build_shards": ("--input", "a.txt")}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("wrong", [("s3://b", None), ("s3://bucket/a", "s3://bucket/b"), ("runs/a", "runs/a")])
def test_a_command_refuses_a_wrong_place_with_status_2(command, wrong, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    output_dir, upload = wrong
    given = ["--output_dir", output_dir, *(() if upload is None else ("--upload", upload))]
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(command).main([*COMMANDS[command], *given])
    assert ended.value.code == 2
    assert "error: --" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cls", [ClassificationOptions, PredictionOptions, SweepOptions, ReportOptions])
def test_a_command_that_does_not_upload_refuses_an_address(cls):
    required = {item.name: "x" for item in fields(cls) if default_of(item) is MISSING}
    with pytest.raises(ValueError, match=r"--output_dir s3://\.{3}: this command does not upload: name a local folder"):
        cls(**{**required, "output_dir": "s3://key:secret@bucket/a"})
