"""Several runs side by side: paired, and honest about what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from simulated_scores import series_rows, write_study

from gap.comparison import Comparison, RunSource, compare_runs
from launch.report import main

DRAWS = 400


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for number, (name, middle) in enumerate((("slow", 9e5), ("fast", 3e5))):
        folder = tmp_path_factory.mktemp("runs") / name
        write_study(folder, middle=middle, raw=False, seed=10 * number)
        (folder / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": series_rows()}))
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def comparison(runs: list[Path]) -> Comparison:
    return compare_runs([RunSource.of(folder) for folder in runs], draws=DRAWS)


def test_the_faster_run_needs_a_third_of_the_tokens(comparison: Comparison) -> None:
    half = next(one for one in comparison.differences if one.quantity.startswith("tokens to 50 %"))
    assert half.change.value == pytest.approx(1 / 3, rel=0.3)
    assert half.change.low is not None
    assert half.change.high is not None
    assert half.change.low < 1 / 3 < half.change.high < 1
    assert half.resolved


def test_equal_scores_are_not_told_apart(comparison: Comparison) -> None:
    scratch = next(one for one in comparison.differences if (one.task, one.quantity) == ("qa", "score, scratch"))
    assert not scratch.resolved


def test_a_run_against_itself_differs_by_seeds_only(runs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.symlink_to(runs[0])
    sources = [RunSource("first", runs[0] / "scores.jsonl"), RunSource("second", copy / "scores.jsonl")]
    same = compare_runs(sources, draws=DRAWS)
    assert all(one.change.value == pytest.approx(1.0 if one.unit == "ratio" else 0.0) for one in same.differences)
    assert not any(one.resolved for one in same.differences)


def test_other_examples_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    write_study(folder, raw=False)
    for file in (folder / "predictions").glob("*.json"):
        file.write_text(file.read_text().replace("question-1", "another-1"))
    found = compare_runs([RunSource.of(runs[0]), RunSource.of(folder)], draws=DRAWS)
    assert found.differences == ()
    assert "different examples" in " ".join(found.notes)


def test_the_command_writes_one_report_of_several_runs(runs: list[Path], tmp_path: Path) -> None:
    arguments = [str(folder) for folder in runs]
    assert main([*arguments, "--output_dir", str(tmp_path), "--draws", "200"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "fast against slow" in page
    assert json.loads((tmp_path / "comparison.json").read_text())["runs"] == ["slow", "fast"]


def test_the_command_refuses_what_it_cannot_do(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder) for folder in runs]) == 2
    assert "--output_dir" in capsys.readouterr().err
    assert main([str(runs[0].parent / "nothing")]) == 2
    assert "scores.jsonl" in capsys.readouterr().err
