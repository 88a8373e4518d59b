"""`finetune` and `predict` from Python: the commands' runs, their outcome, and what is refused."""

import csv
import json
import os
import signal
from dataclasses import replace

import pytest
import torch
import transformers
from tiny_examples import reviews, write_reviews, write_tiny_model

from finetuning import classification, finetune, load, predict
from finetuning.recipes.options.classification import ClassificationOptions
from finetuning.recipes.options.texts import TextOptions
from runtime.processes.interruption import MARKER_NAME, Interrupted

FAST = {"learning_rate": 0.01, "num_train_epochs": 4, "global_batch_rows": 16, "report_to": "none"}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})


@pytest.fixture
def files(tmp_path):
    return {
        "model_name_or_path": write_tiny_model(tmp_path / "model"),
        "train_file": write_reviews(tmp_path / "train.json", reviews(160, seed=1)),
        "validation_file": write_reviews(tmp_path / "validation.json", reviews(20, seed=2)),
        "test_file": write_reviews(tmp_path / "test.json", reviews(20, seed=3)),
    }


def seen():
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    return (
        dict(os.environ),
        [signal.getsignal(number) for number in signals],
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        transformers.utils.logging.get_verbosity(),
    )


def test_an_outcome_is_the_command_s_and_the_process_is_as_before(files, tmp_path, capsys):
    before = seen()
    outcome = finetune("classification", output_dir=tmp_path / "run", **files, **FAST)
    assert seen() == before
    given = {**files, **FAST, "output_dir": tmp_path / "command"}
    assert classification.main([part for name, value in given.items() for part in (f"--{name}", str(value))]) == 0
    stored = json.loads((tmp_path / "command" / "all_results.json").read_text())
    assert outcome.scores == {name: value for name, value in stored.items() if name.startswith(("eval_", "test_"))}
    assert outcome.results["status"] == "done"
    assert outcome.runs == {}
    with outcome.predictions.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [row["id"] for row in reviews(20, seed=3)]
    assert load(outcome.model)[0].config.num_labels == 2
    marks = [tmp_path / name / MARKER_NAME for name in ("run", "new")]  # of earlier commands that were interrupted
    for mark in marks:
        mark.parent.mkdir(exist_ok=True)
        mark.write_text("{}")
    options = ClassificationOptions(**{**files, **FAST}, output_dir=str(tmp_path / "run"))
    assert finetune(options).scores == outcome.scores
    assert "finished before, not run again" in capsys.readouterr().out
    predicted = predict(model_name_or_path=outcome.model, test_file=files["test_file"], output_dir=tmp_path / "new")
    assert predicted.scores["test_accuracy"] == outcome.scores["test_accuracy"]
    assert not [mark for mark in marks if mark.exists()]
    assert predicted.predictions.read_text() == outcome.predictions.read_text()
    assert seen() == before


def test_several_seeds_have_a_run_each_and_a_summary(files, tmp_path):
    outcome = finetune("classification", output_dir=tmp_path, seeds=[1, 2], **files, **{**FAST, "num_train_epochs": 1})
    assert sorted(outcome.runs) == ["seed-1", "seed-2"]
    accuracies = [run.scores["eval_accuracy"] for run in outcome.runs.values()]
    assert outcome.scores["eval_accuracy"] == pytest.approx(sum(accuracies) / 2)
    assert (outcome.predictions, outcome.model) == (None, None)
    assert outcome.runs["seed-2"].predictions.is_file()


@pytest.mark.parametrize(
    ("recipe", "wrong", "error", "said"),
    [
        ("summaries", {}, ValueError, "recipe 'summaries': use one of qa, multiple_choice, glue"),
        ("classification", {"doc_stride": 3}, TypeError, r"has no option 'doc_stride': it is one of qa.py"),
        ("classification", {"seeds": 1}, TypeError, "give a list of whole numbers"),
        ("classification", {"num_train_epochs": -1}, ValueError, "--num_train_epochs -1.0"),
        ("classification", {"train_file": "nowhere.json"}, ValueError, "nowhere.json"),
        ("glue", {"task_name": "sst3"}, ValueError, "sst3"),
    ],
)
def test_what_is_refused_raises(files, tmp_path, recipe, wrong, error, said):
    given = {"output_dir": tmp_path / "run", **(files if recipe == "classification" else {}), **wrong}
    with pytest.raises((error, FileNotFoundError) if error is ValueError else error, match=said):
        finetune(recipe, **given)


def test_other_options_are_refused(files):
    with pytest.raises(TypeError, match="takes the name of a recipe or its options, not TextOptions"):
        finetune(TextOptions())
    with pytest.raises(TypeError, match="got options and also seed"):
        finetune(replace(ClassificationOptions(), **files), seed=3)


def test_a_signal_saves_and_raises_and_the_same_call_goes_on(files, tmp_path, monkeypatch):
    from finetuning.loop import training

    before, update, calls = seen()[1], training.train_update, []

    def stop_at_the_third(*given):
        calls.append(given)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return update(*given)

    monkeypatch.setattr(training, "train_update", stop_at_the_third)
    with pytest.raises(Interrupted, match="SIGTERM"):
        finetune("classification", output_dir=tmp_path / "run", **files, **FAST)
    assert seen()[1] == before
    done = finetune("classification", output_dir=tmp_path / "run", **files, **FAST)
    assert done.results["updates"] == len(calls) == 40
