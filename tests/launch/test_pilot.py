"""launch/gap.py --pilot and --seeds_until_resolved: which cells run, what is said, and the error of the looks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_gap import write_series, write_tasks

from gap.analysis.tables.run_folder import RunSource
from gap.intervals.spending import ERROR
from gap.study import study
from launch import gap, report

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def arguments(tmp_path, **more):
    series = write_series(tmp_path / "run", (100, 200))
    tasks = write_tasks(tmp_path / "tasks")
    values = {
        "series": series, "tasks": ",".join(f"{one.name}={one.kind}:{one.place}" for one in tasks[:2]),
        "output_dir": tmp_path / "out", "learning_rates": "1e-3", "num_train_epochs": 1, "grid_extensions": 0,
        "scratch_longer": 2, "max_seq_length": 32, "doc_stride": 8, "draws": 2000, "max_parallel": 1, **more,
    }  # fmt: skip
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def cells(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]


def test_a_pilot_runs_both_ends_and_its_cells_and_error_are_the_studys(tmp_path, capsys):
    argv = arguments(tmp_path, finetuning_seeds=5)
    assert gap.main([*argv, "--pilot", "true"]) == 0
    said = capsys.readouterr().out
    pilot = cells(tmp_path)
    names = {line["task"] for line in pilot}
    assert len(names) == 2
    places = {(line["budget_tokens"], line["finetuning_seed"]) for line in pilot}
    assert places == {(budget, seed) for budget in (0, 200) for seed in range(3)}
    for name in names:
        assert f"{name}: annealed at 200 tokens minus scratch" in said
    assert "% confidence)" in said
    assert "what is left of the study takes about" in said
    assert "the same command without --pilot goes on" in said
    verdicts = json.loads((tmp_path / "out" / "pilot.json").read_text())["verdicts"]
    assert {one["task"] for one in verdicts} == names
    notes = json.loads((tmp_path / "out" / "study.json").read_text())["notes"]
    assert [note for note in notes if note.removeprefix("Pilot: ") in said.splitlines()] == notes
    assert len(notes) == len(names)
    assert not (tmp_path / "out" / "report.html").exists()
    (look,) = RunSource.of(tmp_path / "out").looks
    assert (look.pilot, look.finetuning_seeds) == (True, 3)
    assert look.error == pytest.approx(ERROR * (3 / 6) ** 2)  # as of a study of twice its seeds

    assert gap.main(argv) == 0
    assert cells(tmp_path)[: len(pilot)] == pilot  # kept, and not run again
    assert len(cells(tmp_path)) == 2 * 4 * 5  # scratch, two budgets and scratch with twice the epochs
    run = RunSource.of(tmp_path / "out")
    assert [one.finetuning_seeds for one in run.looks] == [3, 5]
    assert sum(one.error for one in run.looks) == pytest.approx(0.05)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "pilot, 3 seeds" in page
    assert f"{100 * run.confidence:g} % intervals" in page
    assert report.main([str(tmp_path / "out")]) == 0  # the same confidence again
    assert f"{100 * run.confidence:g} % intervals" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def seeds_of(tmp_path):
    seeds: dict[str, int] = {}
    for line in cells(tmp_path):
        seeds[line["task"]] = max(seeds.get(line["task"], 0), 1 + line["finetuning_seed"])
    return seeds


def check_looks(tmp_path):
    """Tasks that the first look resolved have three seeds, the others five."""
    looks = RunSource.of(tmp_path / "out").looks
    assert looks[0].finetuning_seeds == 3
    assert looks[0].error == pytest.approx(ERROR * (3 / 5) ** 2)
    expected = {task: 3 if resolved else 5 for task, resolved in looks[0].resolved.items()}
    assert seeds_of(tmp_path) == expected
    if 5 in expected.values():
        assert sum(look.error for look in looks) == pytest.approx(0.05)


def test_seeds_are_added_to_what_is_not_resolved(tmp_path, capsys, monkeypatch):
    argv = [*arguments(tmp_path, scratch_longer=""), "--seeds_until_resolved", "5"]
    assert gap.main(argv) == 0
    check_looks(tmp_path)
    before = cells(tmp_path)
    assert gap.main(argv) == 0  # nothing is left to run
    assert cells(tmp_path) == before

    again = arguments(tmp_path, scratch_longer="", output_dir=tmp_path / "other")
    monkeypatch.setattr(study, "seeds_of_resolved", lambda analysis, seeds, kept: {"texts": seeds, **kept})
    assert gap.main([*again, "--seeds_until_resolved", "5"]) == 0
    (tmp_path / "out").rename(tmp_path / "first")
    (tmp_path / "other").rename(tmp_path / "out")
    assert seeds_of(tmp_path) == {"texts": 3, "questions": 5}


def test_looks_that_have_nothing_left_to_spend_are_said_before_they_run(tmp_path, capsys):
    argv = arguments(tmp_path, scratch_longer="")
    assert gap.main(argv) == 0
    assert "warning: earlier looks" not in capsys.readouterr().out
    assert gap.main([*argv, "--seeds_until_resolved", "5"]) == 0
    assert "warning: earlier looks at this study have spent the 5 %" in capsys.readouterr().out


def test_a_pilot_of_a_study_without_an_interval_is_refused_before_it_runs(tmp_path, capsys):
    assert gap.main([*arguments(tmp_path), "--pilot", "true", "--finetuning_seeds", "1"]) == 2
    assert "an interval needs 3" in capsys.readouterr().err
    assert not (tmp_path / "out" / "scores.jsonl").exists()


def test_adding_seeds_by_hand_is_said_in_the_report(tmp_path, capsys):
    argv = arguments(tmp_path, scratch_longer="")
    assert gap.main(argv) == 0
    assert "got more seeds or runs after that" not in capsys.readouterr().out
    assert gap.main([*argv, "--finetuning_seeds", "4"]) == 0
    assert "This study was analysed before and got more seeds or runs after that: 3 seeds" in capsys.readouterr().out
    run = RunSource.of(tmp_path / "out")
    assert run.confidence == pytest.approx(0.95)
    assert "got more seeds or runs after that" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds_until_resolved", "4", "--finetuning_seeds", "5"], "--seeds_until_resolved 4 is below"),
        (["--seeds_until_resolved", "8", "--executor", "slurm"], "--executor local"),
        (["--pilot", "true", "--intervals", "false"], "nothing to resolve"),
        (["--seeds_until_resolved", "2"], "--seeds_until_resolved"),
    ],
)
def test_what_cannot_be_decided_is_refused(tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as stopped:
        gap.main([*arguments(tmp_path), *more])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_says_what_all_seeds_would_cost(tmp_path, capsys):
    assert gap.main([*arguments(tmp_path), "--seeds_until_resolved", "8", "--dry_run", "true"]) == 0
    said = capsys.readouterr().out
    assert "24 cells" in said
    assert "with the most seeds, if nothing is resolved before: 64 cells" in said


@pytest.mark.slow
def test_ranks_go_on_to_more_seeds_together(tmp_path):
    argv = arguments(tmp_path, scratch_longer="", seeds_until_resolved=5)
    script = str(ROOT / "launch" / "gap.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    check_looks(tmp_path)
