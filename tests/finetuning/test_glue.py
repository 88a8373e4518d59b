"""glue.py from its command line: two tasks, a table, submissions, and MNLI only when asked for."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from exit_statuses import status_of
from tiny_examples import reviews, write_tiny_model

from finetuning import glue
from finetuning.model.checkpoint_files import DEFAULT_RUN
from finetuning.recipes.texts import glue_run
from finetuning.recipes.texts.glue_table import glue_rows, write_table
from pretraining.checkpoints.series import FIELDS, add_to_series

FAST = ["--num_train_epochs", "1", "--learning_rate", "0.01", "--report_to", "none"]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})


@pytest.fixture
def data(tmp_path):
    """SST-2 and RTE in the official columns, made up."""
    root = tmp_path / "glue"
    for folder in ("SST-2", "RTE"):
        (root / folder).mkdir(parents=True)
    for stem, count, seed in (("train", 48, 1), ("dev", 15, 2), ("test", 9, 3)):
        rows = reviews(count, seed=seed)
        sentiment = [f"{row['text']}\t{int(row['label'] == 'good')}" for row in rows]
        pairs = [
            f"{number}\t{row['text']}\tthe film\t{'entailment' if row['label'] == 'good' else 'not_entailment'}"
            for number, row in enumerate(rows)
        ]
        if stem == "test":
            sentiment = [f"{number}\t{row['text']}" for number, row in enumerate(rows)]
            pairs = [line.rsplit("\t", 1)[0] for line in pairs]
        header = "index\tsentence" if stem == "test" else "sentence\tlabel"
        (root / "SST-2" / f"{stem}.tsv").write_text("\n".join([header, *sentiment]) + "\n")
        header = "index\tsentence1\tsentence2" + ("" if stem == "test" else "\tlabel")
        (root / "RTE" / f"{stem}.tsv").write_text("\n".join([header, *pairs]) + "\n")
    return root


def test_all_tasks_that_are_there_a_table_and_submissions(data, tmp_path, capsys):
    out = tmp_path / "out"
    model = write_tiny_model(tmp_path / "model")
    arguments = ["--task_name", "all", "--data_dir", str(data), "--model_name_or_path", model, "--seeds", "0", "1"]
    assert glue.main([*arguments, *FAST, "--output_dir", str(out)]) == 0
    with (out / "glue.csv").open(newline="") as file:
        rows = {row["task"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"SST-2", "RTE"}
    scores = [
        json.loads((out / "sst2" / f"seed-{seed}" / "all_results.json").read_text())["eval_accuracy"] for seed in (0, 1)
    ]
    assert float(rows["SST-2"]["mean"]) == pytest.approx(100 * sum(scores) / 2, abs=0.006)
    assert "Not run, no data: CoLA, MRPC" in (out / "glue.md").read_text()
    sst2 = (out / "submission" / "SST-2.tsv").read_text().splitlines()
    assert sst2[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in sst2[1:]] == [str(number) for number in range(9)]
    assert {line.split("\t")[1] for line in sst2[1:]} <= {"0", "1"}
    rte = (out / "submission" / "RTE.tsv").read_text().splitlines()
    assert {line.split("\t")[1] for line in rte[1:]} <= {"entailment", "not_entailment"}
    assert "optimistic" in capsys.readouterr().out


def test_all_tasks_start_from_one_model_though_the_default_run_goes_on(data, tmp_path, monkeypatch):
    """A checkpoint that appears while the first task is trained is not the later tasks' model."""
    monkeypatch.chdir(tmp_path)
    row = {**dict.fromkeys(FIELDS, 0), "kind": "annealed"}
    write_tiny_model(DEFAULT_RUN / "series" / "a")
    write_tiny_model(DEFAULT_RUN / "series" / "b")
    add_to_series(DEFAULT_RUN / "series.json", {**row, "path": "series/a", "budget_tokens": 1})
    run_task, started = glue_run.run_task, []

    def record(task, options, start, *more):
        started.append(start.name)
        found = run_task(task, options, start, *more)
        add_to_series(DEFAULT_RUN / "series.json", {**row, "path": "series/b", "budget_tokens": 2})
        return found

    monkeypatch.setattr(glue_run, "run_task", record)
    assert glue.main(["--task_name", "all", "--data_dir", str(data), *FAST, "--output_dir", "out"]) == 0
    assert started == [str(DEFAULT_RUN / "series" / "a")] * 2


def test_the_validation_file_gets_the_same_predictions_through_the_test_path(data, tmp_path):
    """GLUE hides the labels of its test sets: the labels of dev.tsv are cut off and it is submitted."""
    rows = [line.split("\t") for line in (data / "SST-2" / "dev.tsv").read_text().splitlines()[1:]]
    lines = ["index\tsentence", *(f"{number}\t{text}" for number, (text, _) in enumerate(rows))]
    (data / "SST-2" / "test.tsv").write_text("\n".join(lines) + "\n")
    out, model = tmp_path / "out", write_tiny_model(tmp_path / "model")
    arguments = ["--task_name", "sst2", "--data_dir", str(data), "--model_name_or_path", model, *FAST]
    assert glue.main([*arguments, "--per_device_eval_batch_size", "4", "--output_dir", str(out)]) == 0
    with (out / "validation" / "predictions.csv").open(newline="") as file:
        validation = {row["id"]: row["prediction"] for row in csv.DictReader(file)}
    submitted = dict(line.split("\t") for line in (out / "SST-2.tsv").read_text().splitlines()[1:])
    assert submitted == validation
    right = sum(submitted[str(number)] == label for number, (_, label) in enumerate(rows))
    assert json.loads((out / "all_results.json").read_text())["eval_accuracy"] == pytest.approx(right / len(rows))
    # The saved model scores the same without the training file.
    (data / "SST-2" / "train.tsv").unlink()
    again = ["--model_name_or_path", str(out / "best"), "--num_train_epochs", "0", "--output_dir", str(tmp_path / "b")]
    assert glue.main([*arguments, *again]) == 0
    found = [json.loads((place / "all_results.json").read_text())["eval_loss"] for place in (out, tmp_path / "b")]
    assert found[1] == pytest.approx(found[0], abs=1e-5)


@pytest.mark.slow
def test_two_ranks_send_the_validation_file_through_the_test_path_as_one_does(data, tmp_path, project_root, free_port):
    """48 training rows, 15 to score: nothing divides; fp32 and no dropout."""
    dev = [line.split("\t") for line in (data / "RTE" / "dev.tsv").read_text().splitlines()]
    (data / "RTE" / "test.tsv").write_text("".join("\t".join(line[:3]) + "\n" for line in dev))
    gold = {line[0]: line[3] for line in dev[1:]}
    model = write_tiny_model(tmp_path / "model")
    arguments = ["--task_name", "rte", "--data_dir", str(data), "--model_name_or_path", model]
    arguments += [*FAST, "--bf16", "false", "--dropout", "0", "--global_batch_rows", "10", "--save_model", "false"]
    found, answers = [], []
    for ranks in (1, 2):
        out = tmp_path / f"ranks{ranks}"
        if ranks == 1:
            assert glue.main([*arguments, "--output_dir", str(out)]) == 0
        else:
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
            script = [f"--master_port={free_port}", str(project_root / "finetuning" / "glue.py")]
            rows = ["--per_device_train_batch_size", "3", "--per_device_eval_batch_size", "4"]
            command = [*torchrun, *script, *arguments, *rows, "--output_dir", str(out)]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
            assert done.returncode == 0, done.stderr[-2000:]
        with (out / "validation" / "predictions.csv").open(newline="") as file:
            validation = {row["id"]: row["prediction"] for row in csv.DictReader(file)}
        submitted = dict(line.split("\t") for line in (out / "submission" / "RTE.tsv").read_text().splitlines()[1:])
        assert submitted == validation
        results = json.loads((out / "all_results.json").read_text())
        right = sum(submitted[key] == label for key, label in gold.items())
        assert results["eval_accuracy"] == pytest.approx(right / len(gold))
        found.append(results)
        answers.append(submitted)
    assert answers[0] == answers[1]
    assert found[1]["eval_accuracy"] == found[0]["eval_accuracy"]
    assert found[1]["eval_loss"] == pytest.approx(found[0]["eval_loss"], abs=1e-5)


def test_a_task_without_its_files_is_refused_before_another_is_trained(data, tmp_path, capsys):
    (data / "WNLI").mkdir()
    (data / "WNLI" / "train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n")
    arguments = ["--data_dir", str(data), "--model_name_or_path", write_tiny_model(tmp_path / "model"), *FAST]
    for tasks in ("all", "rte,wnli"):
        assert glue.main([*arguments, "--task_name", tasks, "--output_dir", str(tmp_path / "out")]) == 2
        assert "no dev.tsv (plain or packed); WNLI needs it" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("all_results.json"))


def test_all_is_what_a_folder_of_saved_data_sets_has(tmp_path, capsys):
    from datasets import Dataset, DatasetDict

    def rows(count, seed):
        found = reviews(count, seed=seed)
        return Dataset.from_list(
            [{"idx": i, "sentence": one["text"], "label": int(one["label"] == "good")} for i, one in enumerate(found)]
        )

    DatasetDict({"train": rows(20, 1), "validation": rows(9, 2)}).save_to_disk(str(tmp_path / "glue" / "sst2"))
    arguments = ["--task_name", "all", "--dataset_name", str(tmp_path / "glue"), *FAST]
    arguments += ["--model_name_or_path", write_tiny_model(tmp_path / "model"), "--output_dir", str(tmp_path / "out")]
    assert glue.main(arguments) == 0
    assert "skipped: CoLA, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI" in capsys.readouterr().out
    assert "| SST-2 | accuracy |" in (tmp_path / "out" / "glue.md").read_text()


def test_a_missing_mnli_checkpoint_is_refused_before_another_task_is_trained(data, tmp_path, capsys):
    given = ["--task_name", "sst2,rte", "--data_dir", str(data), "--output_dir", str(tmp_path / "out")]
    assert glue.main([*given, "--mnli_checkpoint", "./nowhere"]) == 2
    assert "--mnli_checkpoint ./nowhere: no such directory" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_mnli_is_a_start_for_three_tasks_and_only_when_asked_for(data, tmp_path):
    plain, other = write_tiny_model(tmp_path / "plain"), write_tiny_model(tmp_path / "mnli", seed=5)
    arguments = ["--task_name", "rte,sst2", "--data_dir", str(data), "--model_name_or_path", plain, *FAST]
    out = tmp_path / "out"
    assert glue.main([*arguments, "--mnli_checkpoint", other, "--output_dir", str(out)]) == 0
    models = {name: json.loads((out / name / "all_results.json").read_text())["model"] for name in ("rte", "sst2")}
    assert models == {"rte": other, "sst2": plain}
    text = (out / "glue.md").read_text()
    assert "RTE (from MNLI)" in text
    assert "SST-2 (from" not in text


def test_text_that_is_not_utf8_is_replaced_when_asked_for(data, tmp_path, capsys):
    train = data / "SST-2" / "train.tsv"
    train.write_bytes(train.read_bytes().replace(b"film", b"f\xe9lm"))
    arguments = [
        "--task_name",
        "sst2",
        "--data_dir",
        str(data),
        "--model_name_or_path",
        write_tiny_model(tmp_path / "m"),
    ]
    arguments += [*FAST, "--output_dir", str(tmp_path / "out")]
    assert glue.main(arguments) == 2
    assert "--on_bad_text replace" in capsys.readouterr().err
    assert glue.main([*arguments, "--on_bad_text", "replace"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--task_name None: use each of cola"),
        (["--task_name", "rte,ret"], "--task_name rte,ret"),
        (["--task_name", "rte", "--data_dir", "nowhere"], "no train.tsv"),
        (["--task_name", "all", "--data_dir", "nowhere"], "holds none of CoLA"),
        (["--task_name", "rte", "--data_dir", "g", "--dataset_name", "z"], "--data_dir and --dataset_name"),
        (["--task_name", "rte", "--data_dir", "g", "--train_file", "x"], "--task_name and --train_file"),
        (["--task_name", "stsb", "--data_dir", "g", "--label_smoothing", "0.1"], "a regression has no classes"),
        (["--task_name", "sst2", "--data_dir", "g", "--mnli_checkpoint", "m"], "--mnli_checkpoint m and --task_name"),
        (
            ["--task_name", "rte", "--dataset_name", "no-such/set", "--model_name_or_path", "model"],
            "name a folder with --data_dir",
        ),
    ],
)
def test_refusals(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nowhere").mkdir()
    write_tiny_model(Path("model"))
    assert status_of(glue.main, arguments) == 2
    assert message in capsys.readouterr().err


def test_the_table_shows_mean_median_and_both_metrics(tmp_path):
    def result(seed, accuracy, f1, status="done"):
        scores = {"eval_accuracy": accuracy, "eval_f1": f1, "eval_combined_score": (accuracy + f1) / 2}
        facts = {"metric": "combined_score", "seed": seed, "status": status, "train_seconds": 2.0, "epoch": 3.0}
        return {**scores, **facts, "best_epoch": 2.0, "started_from_mnli": False}

    mnli = {"metric": "accuracy", "seed": 0, "status": "done", "train_seconds": 1.0, "epoch": 1.0, "best_epoch": 1.0}
    mnli |= {"eval_accuracy": 0.5, "eval_mismatched_accuracy": 0.25, "started_from_mnli": False}
    rows = glue_rows(
        {"mrpc": [result(0, 0.8, 0.9), result(1, 0.6, 0.7, "collapsed"), result(2, 0.82, 0.9)], "mnli": [mnli]}
    )
    assert rows[0]["mean"] == "74.00/83.33"
    assert rows[0]["median"] == "80.00/90.00"
    assert rows[0]["failed"] == 1
    assert rows[1]["metric"] == "matched acc / mismatched acc"
    assert rows[1]["mean"] == "50.00/25.00"
    text = write_table(rows, tmp_path, missing=["CoLA"])
    assert f"{(74 + 250 / 3) / 4 + (50 + 25) / 4:.2f}" in text
