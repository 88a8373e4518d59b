"""classification.py from its command line: learns, resumes, repeats, and scores a file the same on every path."""

import contextlib
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from exit_statuses import status_of
from tiny_examples import reviews, write_reviews, write_tiny_model

from finetuning import classification
from finetuning.loop import training
from finetuning.loop.training import train_update

FAST = ["--learning_rate", "0.01", "--num_train_epochs", "4", "--global_batch_rows", "16", "--report_to", "none"]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Threads that wait for each other on a busy machine take far longer than these tiny matrices."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})


@pytest.fixture
def files(tmp_path):
    rows = {"train": reviews(160, seed=1), "validation": reviews(37, seed=2)}
    named = {split: write_reviews(tmp_path / f"{split}.json", content) for split, content in rows.items()}
    named["test"] = named["validation"]
    return [
        *["--model_name_or_path", write_tiny_model(tmp_path / "model")],
        *[part for split, file in named.items() for part in (f"--{split}_file", file)],
    ]


def results(directory: Path) -> dict:
    return json.loads((directory / "all_results.json").read_text())


def predictions(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_learns_and_the_validation_file_scores_the_same_through_the_test_path(files, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [*files, *FAST, "--output_dir", str(out)]
    assert classification.main(arguments) == 0
    found = results(out)
    assert found["status"] == "done"
    assert found["eval_accuracy"] > 0.9
    same = [name.removeprefix("eval_") for name in found if name.startswith("eval_")]
    assert len(same) >= 5
    for name in same:
        assert found[f"test_{name}"] == pytest.approx(found[f"eval_{name}"], abs=1e-6)
    assert predictions(out / "predictions.csv") == predictions(out / "validation" / "predictions.csv")
    assert {row["id"] for row in predictions(out / "predictions.csv")} == {row["id"] for row in reviews(37, seed=2)}
    for picture in ("curves.png", "reliability.png"):
        assert list(out.rglob(picture))
    assert found["preflight_validation_test_shared_texts"] > 0
    assert "optimistic" in capsys.readouterr().out
    assert not (out / "state").exists()

    before = (out / "all_results.json").read_bytes()
    assert classification.main(arguments) == 0
    assert "not run again" in capsys.readouterr().out
    assert (out / "all_results.json").read_bytes() == before
    assert classification.main([*arguments, "--weight_decay", "0.5"]) == 2
    assert "other options, data or weights" in capsys.readouterr().err


def test_scores_do_not_depend_on_the_evaluation_batch(files, tmp_path):
    trained = tmp_path / "run"
    assert classification.main([*files, *FAST, "--output_dir", str(trained)]) == 0
    again = ["--num_train_epochs", "0", "--model_name_or_path", str(trained / "best"), *FAST[:2], *FAST[4:]]
    for rows in ("1", "64"):
        out = tmp_path / f"batch{rows}"
        arguments = [*files, *again, "--per_device_eval_batch_size", rows, "--output_dir", str(out)]
        assert classification.main(arguments) == 0
        for name in ("eval_accuracy", "eval_loss", "eval_expected_calibration_error"):
            assert results(out)[name] == pytest.approx(results(trained)[name], abs=1e-5)


def test_a_saved_model_is_evaluated_with_its_own_pooling_and_labels_without_a_training_file(files, tmp_path, capsys):
    """Labels that the validation set alone would put in another place; the training file is not named again."""
    train, evaluated = tmp_path / "run", tmp_path / "again"
    assert classification.main([*files, *FAST, "--pooling", "mean", "--output_dir", str(train)]) == 0
    facts = json.loads((train / "best" / "recipe.json").read_text())
    assert (facts["recipe"], facts["pooling"], facts["labels"]) == ("classification", "mean", ["bad", "good"])
    good = write_reviews(tmp_path / "good.json", [row for row in reviews(37, seed=2) if row["label"] == "good"])
    again = ["--model_name_or_path", str(train / "best"), "--num_train_epochs", "0", "--report_to", "none"]
    named = ["--validation_file", files[5], "--test_file", good]
    assert classification.main([*again, *named, "--output_dir", str(evaluated)]) == 0
    for name in ("eval_accuracy", "eval_loss", "eval_expected_calibration_error"):
        assert results(evaluated)[name] == pytest.approx(results(train)[name], abs=1e-5)
    assert results(evaluated)["test_accuracy"] > 0.8
    assert classification.main([*again, "--test_file", good, "--output_dir", str(tmp_path / "test")]) == 0
    assert results(tmp_path / "test")["test_loss"] == pytest.approx(results(evaluated)["test_loss"], abs=1e-5)
    other = write_reviews(tmp_path / "other.json", [{"id": "1", "text": "a day", "label": "mixed"}])
    capsys.readouterr()
    assert classification.main([*again, "--validation_file", other, "--output_dir", str(tmp_path / "other")]) == 2
    assert (
        "the label 'mixed', which is not a class of the head or of the training set (bad, good)"
        in capsys.readouterr().err
    )
    facts["labels"] = []
    (train / "best" / "recipe.json").write_text(json.dumps(facts))
    assert classification.main([*again, *named, "--output_dir", str(tmp_path / "old")]) == 2
    assert "--train_file" in capsys.readouterr().err


def test_an_interrupted_run_continues_to_the_same_result(files, tmp_path, monkeypatch):
    """With dropout, smoothed labels, weighed classes and a constant rate; cut off inside the second epoch."""
    arguments = [*files, *FAST, "--num_train_epochs", "3", "--save_model", "false", "--save_steps", "4"]
    arguments += ["--lr_scheduler_type", "constant", "--label_smoothing", "0.1", "--balance_classes", "true"]
    assert classification.main([*arguments, "--output_dir", str(tmp_path / "whole")]) == 0
    calls = 0

    def dying(*given):
        nonlocal calls
        calls += 1
        if calls == 14:
            raise KeyboardInterrupt
        return train_update(*given)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_update", dying)
        with contextlib.suppress(KeyboardInterrupt):
            classification.main([*arguments, "--output_dir", str(tmp_path / "cut")])
    assert not (tmp_path / "cut" / "all_results.json").exists()
    assert classification.main([*arguments, "--output_dir", str(tmp_path / "cut")]) == 0
    whole, cut = results(tmp_path / "whole"), results(tmp_path / "cut")
    for name in ("eval_loss", "test_loss", "best_epoch", "updates"):
        assert cut[name] == pytest.approx(whole[name], abs=1e-6)
    lines = [(tmp_path / run / "journal.jsonl").read_text().splitlines() for run in ("whole", "cut")]
    assert lines[0] == lines[1]
    rates = [values["learning_rate"] for line in lines[0] if "learning_rate" in (values := json.loads(line))]
    assert rates[3:] == [0.01] * 27


def test_several_seeds_lie_side_by_side(files, tmp_path):
    arguments = [
        *files,
        *FAST,
        "--num_train_epochs",
        "1",
        "--output_dir",
        str(tmp_path / "run"),
        "--save_model",
        "false",
    ]
    assert classification.main([*arguments, "--seeds", "3", "4"]) == 0
    found = [results(tmp_path / "run" / f"seed-{seed}") for seed in (3, 4)]
    assert found[0]["eval_loss"] != found[1]["eval_loss"]
    assert (tmp_path / "run" / "curves.png").is_file()
    assert results(tmp_path / "run")["test_accuracy_by_seed"] == [one["test_accuracy"] for one in found]
    assert classification.main([*arguments, "--seed", "3", "--output_dir", str(tmp_path / "alone")]) == 0
    assert results(tmp_path / "alone")["eval_loss"] == pytest.approx(found[0]["eval_loss"], abs=1e-7)


def test_a_row_limit_below_the_one_asked_for_is_said(files, tmp_path, capsys):
    """The tiny model has 64 positions."""
    given = [*files, "--num_train_epochs", "0", "--report_to", "none", "--output_dir", str(tmp_path / "run")]
    assert classification.main([*given, "--max_seq_length", "100"]) == 0
    assert "--max_seq_length 100 is lowered to 64" in capsys.readouterr().out
    assert results(tmp_path / "run")["preflight_max_seq_length"] == 64


def test_validation_is_held_out_when_there_is_none_and_three_unbalanced_classes_work(tmp_path):
    rows = reviews(120, seed=1, share_good=0.9)
    for row in rows[::10]:
        row["label"] = "other"
    train = write_reviews(tmp_path / "train.json", rows)
    out = tmp_path / "run"
    arguments = ["--model_name_or_path", write_tiny_model(tmp_path / "model"), "--train_file", train]
    options = ["--validation_fraction", "0.25", "--balance_classes", "true", "--selection_metric", "macro_f1"]
    fast = [*FAST, "--num_train_epochs", "1", "--from_scratch", "true", "--pooling", "mean", "--truncation", "tail"]
    assert classification.main([*arguments, *options, *fast, "--output_dir", str(out)]) == 0
    found = results(out)
    assert found["preflight_train_examples"] + found["preflight_validation_examples"] == 120
    assert found["metric"] == "macro_f1"
    assert "probability_other" in predictions(out / "predictions.csv")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_file", "none.csv"], "none.csv: no such file"),
        (["--data", "."], "no SPLIT/LABEL"),
        (["--data", "a", "--dataset_name", "b"], "one way only"),
        (["--selection_metric", "loss"], "use one of accuracy"),
        (["--on_bad_text", "ignore"], "use one of stop, replace"),
        (["--train_file", "one.json"], "has one label, 'x' (50 of 50 rows labelled): two or more are needed"),
        (
            ["--train_file", "none.json"],
            "has no label (0 of 50 rows labelled): two or more are needed; check --label_c",
        ),
        (["--train_file", "scores.json"], "50 different numbers as labels (0, 1, 2, ...) in 50 rows: these are scores"),
        (
            ["--data", "untrained"],
            "no training set among test: put its table, such as train.csv or train.json, into unt",
        ),
        (["--train_file", "bad.json"], "leaves one side empty"),
    ],
)
def test_refusals_name_the_option(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write_reviews(Path("one.json"), [{"id": str(i), "text": f"a {i}", "label": "x"} for i in range(50)])
    write_reviews(Path("bad.json"), [{"id": str(i), "text": "a", "label": "xy"[i % 2]} for i in range(50)])
    write_reviews(Path("none.json"), [{"id": str(i), "text": f"a {i}"} for i in range(50)])
    write_reviews(Path("scores.json"), [{"id": str(i), "text": f"a {i}", "label": i / 2} for i in range(50)])
    Path("untrained").mkdir()
    write_reviews(Path("untrained/test.json"), [{"id": "1", "text": "a", "label": "x"}])
    if "." in arguments:
        arguments = ["--data", "empty"]
    model = write_tiny_model(tmp_path / "model")
    code = status_of(classification.main, [*arguments, "--model_name_or_path", model])
    assert code == 2
    assert message in capsys.readouterr().err


def test_a_misspelt_option_is_answered_with_the_right_one(capsys):
    with pytest.raises(SystemExit) as stopped:
        classification.main(["--poling", "mean"])
    assert stopped.value.code == 2
    assert "--pooling" in capsys.readouterr().err


def launch(arguments: list[str], tmp_path: Path, ranks: int, project_root: Path, port: int) -> None:
    script = [str(project_root / "finetuning" / "classification.py"), *arguments]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}", f"--master_port={port}"]
    done = subprocess.run(
        [*torchrun, *script],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_two_ranks_score_and_train_as_one(files, tmp_path, project_root, free_port):
    """37 validation rows do not divide by two; fp32 and no dropout: the same numbers."""
    exact = [*FAST, "--dropout", "0", "--bf16", "false", "--save_model", "false"]
    for ranks in (1, 2):
        launch(
            [*files, *exact, "--output_dir", str(tmp_path / f"ranks{ranks}")], tmp_path, ranks, project_root, free_port
        )
    one, two = results(tmp_path / "ranks1"), results(tmp_path / "ranks2")
    for name in ("eval_accuracy", "eval_loss", "test_loss", "test_macro_f1"):
        assert two[name] == pytest.approx(one[name], abs=1e-4)
    rows = [predictions(tmp_path / f"ranks{ranks}" / "predictions.csv") for ranks in (1, 2)]
    assert [row["id"] for row in rows[0]] == [row["id"] for row in rows[1]]
    assert [row["prediction"] for row in rows[0]] == [row["prediction"] for row in rows[1]]
