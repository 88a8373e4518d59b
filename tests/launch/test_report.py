"""launch/report.py: runs and options on its command line, from a file, and under a launcher."""

import json

import pytest
from simulated_scores import write_study

from launch import report


@pytest.fixture
def run(tmp_path):
    return write_study(tmp_path / "run", raw=False).parent


def draws_of(folder):
    return json.loads((folder / "curve.json").read_text())["draws"]


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_options_come_from_a_file_when_that_is_the_first_argument(run, tmp_path, suffix):
    options = tmp_path / f"options.{suffix}"
    options.write_text(json.dumps({"draws": 150, "output_dir": str(tmp_path / "out")}))
    assert report.main([str(options), str(run)]) == 0
    assert draws_of(tmp_path / "out") == 150
    assert report.main([str(options), str(run), "--draws", "200"]) == 0  # what is given later counts
    assert draws_of(tmp_path / "out") == 200


def test_no_run_and_an_unknown_option_are_said(run, tmp_path, capsys):
    options = tmp_path / "options.yaml"
    options.write_text("drawn: 150")
    with pytest.raises(SystemExit):
        report.main([str(options), str(run)])
    assert "did you mean draws" in capsys.readouterr().err
    assert report.main([]) == 2
    assert "no run named" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["resolve", "2"], ["draws", "5"], ["devices", "0"], ["seed", "-1"], ["confidence", "95"]]
)
def test_a_value_outside_its_range_is_refused_by_its_option(run, capsys, wrong):
    with pytest.raises(SystemExit) as stop:
        report.main([str(run), f"--{wrong[0]}", wrong[1]])
    assert stop.value.code == 2
    assert f"--{wrong[0]} {wrong[1]}" in capsys.readouterr().err
    assert not (run / "report.html").exists()


def test_folders_of_one_name_are_told_apart_and_no_run_loses_its_own_report(tmp_path, capsys):
    folders = [str(write_study(tmp_path / name / "gap", raw=False, seed=n).parent) for n, name in enumerate("ab")]
    more = ["--draws", "150", "--output_dir"]
    assert report.main([*folders, *more, folders[1]]) == 2
    assert "is one of the runs" in capsys.readouterr().err
    assert report.main([*folders, *more, str(tmp_path / "both")]) == 0
    assert json.loads((tmp_path / "both" / "comparison.json").read_text())["runs"] == ["a/gap", "b/gap"]
    assert report.main([folders[0], folders[0], *more, str(tmp_path / "both")]) == 2
    assert "each run once" in capsys.readouterr().err


def test_under_a_launcher_one_process_writes(run, monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_" + "RANK": "1", "WORLD_" + "SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert report.main(["--local_rank=1", str(run), "--draws", "150"]) == 0
    assert not (run / "report.html").exists()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_" + "RANK", "0")
    assert report.main(["--local_rank=0", str(run), "--draws", "150"]) == 0
    assert draws_of(run) == 150
