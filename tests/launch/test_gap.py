"""launch/gap.py: from a series to its report, the plan before it, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_gap
import torch
from tiny_gap import wider, write_questions, write_series, write_tasks
from transformers import BertConfig

from gap.cells.search.grid import Grid, rates_of_width
from gap.study.experiment import series_rows
from gap.study.options import GapOptions, with_defaults
from gap.study.outlook import method_notes
from gap.study.small_world import expected_sources, pretraining_runs, series_paths
from gap.study.sources import extra_sources
from launch import gap, report

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"questions": "qa", "texts": "classification", "choices": "multiple_choice"}


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def arguments(tmp_path, **more):
    series = write_series(tmp_path / "run", (100, 200))
    tasks = write_tasks(tmp_path / "tasks")
    values = {
        "series": series, "tasks": f"questions=qa:{tasks[0].place}", "output_dir": tmp_path / "out",
        "learning_rates": "1e-3,1e-2", "num_train_epochs": 1, "grid_extensions": 0, "scratch_longer": "",
        "max_seq_length": 32, "doc_stride": 8, "draws": 200, "max_parallel": 1, **more,
    }  # fmt: skip
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def test_a_series_becomes_scores_and_a_report(tmp_path, capsys):
    argv = arguments(tmp_path, scratch_longer=2, price_per_hour=1.5)
    assert gap.main(argv) == 0
    out = tmp_path / "out"
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert len(lines) == 4 * 3
    assert {line["budget_tokens"] for line in lines} == {0, 100, 200}
    assert {line["control"] for line in lines} == {None, "scratch_longer"}
    assert len((out / "searches.jsonl").read_text().splitlines()) == 4 * 2
    said = capsys.readouterr().out
    assert "12 cells and 8 searches to run, 0 cells already finished" in said
    assert "$" in said
    assert "with the same arguments for all" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in ("Warning: the search chose the", "learning rate that it tried for questions, "):  # one of two rates
        assert words in said
        assert words in page
    assert "python launch/gap.py --series" in page
    assert "curve.json" in {path.name for path in out.iterdir()}
    before = (out / "scores.jsonl").read_bytes()
    assert gap.main([*argv, "--finetuning_seeds", "4"]) == 0  # later calls add cells
    after = (out / "scores.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 4 * 4
    assert "4 cells and 0 searches to run, 12 cells already finished" in capsys.readouterr().out
    check_report_again(out, capsys)


def test_cells_of_other_options_in_the_same_folder_are_not_averaged(tmp_path, capsys):
    argv, out = arguments(tmp_path, learning_rates="1e-3"), tmp_path / "out"
    other = ["--learning_rates", "1e-2", "--max_eval_samples", "8", "--scratch_longer", "2", "--finetuning_seeds", "4"]
    assert gap.main([*argv, *other]) == 0
    assert gap.main(argv) == 0  # other rates, other scored examples, a control less and a seed less
    for again in (False, True):
        assert not again or report.main([str(out), "--draws", "200"]) == 0
        found = json.loads((out / "curve.json").read_text())
        assert any(note.startswith("16 older cells") for note in found["notes"])
        (task,) = found["tasks"]
        assert task["num_examples"] == 10
        assert [one["layout"] for one in task["checkpoints"]] == ["1 x 3"] * 3
        assert {dot["learning_rate"] for one in task["checkpoints"] for dot in one["dots"]} == {1e-3}
    capsys.readouterr()


def check_report_again(out, capsys):
    """launch/report.py uses the data of launch/gap.py: costs, prices, notes and commands."""
    before = json.loads((out / "curve.json").read_text())
    assert report.main([str(out), "--draws", "200"]) == 0
    after = json.loads((out / "curve.json").read_text())
    assert after["tasks"] == before["tasks"]
    assert (after["notes"], after["priced"]) == (before["notes"], True)
    assert after["commands"][:-1] == before["commands"]
    assert after["tasks"][0]["checkpoints"][1]["cost"]["hours"] is not None
    assert report.main([str(out), "--draws", "200", "--price_per_hour", "0"]) == 0
    assert json.loads((out / "curve.json").read_text())["priced"] is False
    (out / "study.json").write_text('{"schema_version": 1}')
    assert report.main([str(out)]) == 2
    assert "study.json: the content lacks" in capsys.readouterr().err


def test_a_real_series_is_searched_around_what_fits_its_width_and_scratch_is_trained_longer(tmp_path, capsys):
    """The defaults: three rates, two numbers of epochs, two steps beyond, twice the epochs for scratch."""
    (tmp_path / "wide").mkdir()
    reference = wider(write_series(tmp_path / "other", (300,)), tmp_path / "wide" / "model")
    argv = arguments(tmp_path, reference=reference)
    for name in ("learning_rates", "num_train_epochs", "grid_extensions", "scratch_longer"):
        place = argv.index(f"--{name}")
        del argv[place : place + 2]
    assert gap.main([*argv, "--dry_run", "true"]) == 0
    said = capsys.readouterr().out
    width = BertConfig.from_pretrained(str(reference)).hidden_size // 2
    for name, rates in (("the series", rates_of_width(width)), ("the reference", rates_of_width(2 * width))):
        shown = ", ".join(f"{rate:g}" for rate in rates)
        assert f"grid of {name}" in said
        assert f"learning rates {shown}, epochs 2, 4: 6 tries for every checkpoint, and at most 4 more" in said
    # Scratch, two budgets, the reference, its shape from scratch, and scratch trained longer.
    assert "scratch_longer 3" in said
    assert "18 cells and 36 searches to run" in said
    assert "at most 24 searches more" in said
    assert gap.main([*argv, "--dry_run", "true", "--scratch_longer", "", "--resample_split"]) == 0
    assert "15 cells and 90 searches to run" in capsys.readouterr().out
    assert gap.main([*argv, "--dry_run", "true", "--learning_rates", "1e-3", "--num_train_epochs", "3"]) == 0
    said = capsys.readouterr().out
    assert "grid: learning rate 0.001, epochs 3; nothing is searched" in said
    assert "18 cells and 0 searches to run" in said
    for name in ("learning_rates", "reference_learning_rates"):
        assert gap.main([*argv, "--dry_run", "true", f"--{name}", ","]) == 2
        assert f"--{name} ',': give one or more, such as 1e-4,3e-4, or width" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert gap.main([*arguments(tmp_path), "--dry_run", "true"]) == 0
    assert "9 cells and 6 searches to run" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_refusals_end_with_status_2_and_a_remedy(tmp_path, capsys):
    assert gap.main([*arguments(tmp_path), "--finetuning_seeds", "2"]) == 2
    assert "an interval needs 3" in capsys.readouterr().err
    shared = write_questions(tmp_path / "same.json", 10)
    assert gap.main([*arguments(tmp_path), "--tasks", f"qa:{shared}+{shared}"]) == 2
    assert "--on_overlap drop" in capsys.readouterr().err
    assert gap.main([*arguments(tmp_path), "--series", str(tmp_path / "none")]) == 2
    assert "launch/pretrain.py" in capsys.readouterr().err
    for wrong in (
        ["--series", "x"],
        ["--full", "true", "--series", "x"],
        ["--executor", "cloud"],
        ["--learning_rat", "1"],
    ):
        with pytest.raises(SystemExit) as stop:
            gap.main(wrong)
        assert stop.value.code == 2
    assert "did you mean --learning_rates" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["series", "independent"])
def test_runs_of_two_tokenizers_are_not_one_study(tmp_path, capsys, monkeypatch, place):
    argv = arguments(tmp_path, learning_rates="1e-3")
    same = write_series(tmp_path / "same", (200,), seed=1)
    monkeypatch.setattr(tiny_gap, "WORDS", tiny_gap.WORDS[::-1])
    other = write_series(tmp_path / "other", (200,), seed=1)
    named = {"series": f"{tmp_path / 'run'},%s", "independent": "%s"}[place]
    assert gap.main([*argv, f"--{place}", named % same, "--dry_run", "true"]) == 0
    assert gap.main([*argv, f"--{place}", named % other]) == 2
    said = capsys.readouterr().err
    assert "tokenizer.json of" in said
    assert str(tmp_path / "run") in said
    assert str(tmp_path / "other") in said


def test_a_reference_from_outside_is_run_with_its_own_architecture_from_scratch(tmp_path):
    reference = write_series(tmp_path / "other", (300,)).parent / "series" / "annealed-300"
    argv = arguments(tmp_path, reference=reference, learning_rates="1e-2", finetuning_seeds=1, intervals="false")
    assert gap.main(argv) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert {(line["kind"], line["budget_tokens"]) for line in lines} == {
        ("raw", 0), ("annealed", 100), ("annealed", 200), ("reference", None), ("reference_scratch", None),
    }  # fmt: skip


def test_the_small_worlds_runs_are_planned_before_they_are_made(tmp_path):
    options = with_defaults(GapOptions(output_dir=str(tmp_path)))
    runs = pretraining_runs(options)
    assert len(series_paths(options)) == len(runs) == 1
    assert {one.budget_tokens for one in expected_sources(options, runs)} >= {0}
    assert len(expected_sources(options, runs)) >= 7  # scratch and six budgets or more
    full = with_defaults(GapOptions(output_dir=str(tmp_path), full=True))
    runs = pretraining_runs(full)
    assert len({run.output_dir for run in runs}) == 4  # three seeds, and a middle budget by itself
    assert [(run.seed, run.series, run.report_to) for run in runs[:3]] == [
        (n, runs[0].series, "none") for n in range(3)
    ]
    assert [run.series for run in runs] == [*[runs[0].series] * 3, "0"]
    sources = expected_sources(full, runs)
    assert runs[-1].budget_tokens in {float(one.budget_tokens) for one in sources}
    assert {one.pretraining_seed for one in sources} == {0, 1, 2, 3}


def test_more_options_of_the_small_worlds_runs_are_taken_as_given_or_refused(tmp_path):
    def runs(text, **more):
        return pretraining_runs(with_defaults(GapOptions(output_dir=str(tmp_path), pretraining=text, **more)))

    text = "--seed 5 --report_to tensorboard --budget_tokens 6e5"
    given = runs(text, pretraining_seeds=2)
    assert [(run.seed, run.report_to, run.budget_tokens) for run in given] == [(n, "tensorboard", 6e5) for n in (5, 6)]
    options = with_defaults(GapOptions(output_dir=str(tmp_path), pretraining=text, pretraining_seeds=2))
    assert {one.pretraining_seed for one in expected_sources(options, given)} == {5, 6}
    for wrong, said in (
        ("--output_dir elsewhere", "--output_dir elsewhere has no effect there"),
        ("--dry_run true", "--dry_run has no effect there"),
        ("--model 'bert-tiny", "No closing quotation"),
    ):
        with pytest.raises(ValueError, match=said):
            runs(wrong)


def test_what_was_not_searched_is_not_called_a_search(tmp_path):
    series, tasks = write_series(tmp_path / "run"), write_tasks(tmp_path / "tasks")[1:2]
    one = " ".join(method_notes(tiny_gap.tiny_jobs(series, tasks)))
    assert "Learning rate 0.01 and 1 epoch for every checkpoint" in one
    assert "nothing was searched" in one
    several = " ".join(method_notes(tiny_gap.tiny_jobs(series, tasks, grid=Grid((1e-4, 1e-3), (1.0,), 2))))
    assert "searched in the same way for every checkpoint" in several
    assert "at most 2 more where the choice is at an edge" in several


def test_a_run_of_one_budget_is_a_control_of_a_real_series(tmp_path):
    series, own = write_series(tmp_path / "run"), write_series(tmp_path / "alone", (200,), seed=9)
    options = GapOptions(series=str(series), tasks="qa:FILE", independent=str(own))
    (source,) = extra_sources(options)
    assert (source.kind, source.budget_tokens, source.control) == ("annealed", 200, "independent_run")
    assert extra_sources(GapOptions(series=str(series), tasks="qa:FILE")) == []
    with pytest.raises(ValueError, match="--independent needs --series"):
        GapOptions(independent=str(own))


def test_equal_hours_are_one_budget_whatever_tokens_each_run_had_seen_by_then(tmp_path):
    paths = []
    for seed, tokens in ((1, 210), (0, 200), (9, 190)):
        paths.append(write_series(tmp_path / str(seed), (tokens,), seed=seed))
        content = json.loads(paths[-1].read_text())
        for row in content["checkpoints"]:
            row["budget_unit"], row["budget"] = "hours", 0.5 if row["budget_tokens"] else 0.0
        paths[-1].write_text(json.dumps(content))
    rows = series_rows(paths[:2])
    assert [row["budget_tokens"] for row in rows] == [0, 200, 0, 200]
    assert [row["tokens_seen"] for row in rows] == [0, 210, 0, 200]
    options = GapOptions(series=f"{paths[0]},{paths[1]}", tasks="qa:FILE", independent=str(paths[2]))
    assert [source.budget_tokens for source in extra_sources(options)] == [200]


@pytest.mark.slow
def test_all_ranks_of_a_launcher_share_the_cells(tmp_path):
    argv = arguments(tmp_path)
    script = str(ROOT / "launch" / "gap.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len((tmp_path / "out" / "scores.jsonl").read_text().splitlines()) == 9
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_the_small_world_from_nothing_to_a_report(tmp_path):
    more = ["--pretraining", "--budget_tokens 30000 --series 2 --disable_tqdm true", "--max_train_samples", "40"]
    less = ["--max_eval_samples", "30", "--num_train_epochs", "1", "--learning_rates", "1e-3", "--draws", "200"]
    command = [sys.executable, str(ROOT / "launch" / "gap.py"), *more, *less, "--linear_probe", "true"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=290)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "gap" / "report.html").is_file()
    lines = [json.loads(line) for line in (tmp_path / "runs" / "gap" / "scores.jsonl").read_text().splitlines()]
    assert {line["task"] for line in lines} == {"qa", "multiple_choice", "classification"}
    assert {line["budget_tokens"] for line in lines if line["task"] != "qa"} == {0, 30000}
    probes = [line for line in lines if line["control"] == "linear_probe"]
    assert sorted((line["task"], line["budget_tokens"]) for line in probes) == [
        *([("qa", 0)] * 3),
        *(("qa", budget) for budget in sorted({line["budget_tokens"] for line in lines} - {0})),
    ]


@pytest.mark.slow
def test_linear_probes_from_their_plan_to_the_page(tmp_path, capsys):
    argv = arguments(tmp_path, learning_rates="1e-2", linear_probe="true", price_per_hour=1)
    places = {name: f"{name}={kind}:{tmp_path / 'tasks' / name}" for name, kind in KINDS.items()}
    argv[argv.index("--tasks") + 1] = ",".join(places.values())
    assert gap.main([*argv, "--dry_run", "true"]) == 0
    said = capsys.readouterr().out
    assert "42 cells and 0 searches to run" in said
    assert "texts: 14 cells (scratch 3, annealed 6, linear_probe 5)" in said
    assert gap.main(argv) == 0
    out = tmp_path / "out"
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert sum(line["control"] == "linear_probe" for line in lines) == 3 * 5
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("Linear probe beside fine-tuning") >= 3
    assert "Kendall's tau-b" in page or "Kendall&#39;s tau-b" in page
    results = json.loads((out / "curve.json").read_text())["tasks"]
    assert all(len(task["probe"]["checkpoints"]) == 3 for task in results)
    assert "linear_probe" in (out / "curve.csv").read_text()
    assert (out / "figures" / "texts-probe.png").is_file()
    check_report_again(out, capsys)
