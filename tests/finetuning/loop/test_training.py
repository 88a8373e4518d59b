"""The loop: what it computes depends on neither micro-batches nor interruptions, and it judges what it made."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_encoder import FAMILIES, tiny_model, tiny_tokenizer
from tiny_examples import WORDS, tiny_questions

from finetuning.examples.batches import batch_shape
from finetuning.examples.recipe import FinetuningOptions
from finetuning.loop.evaluation import evaluate
from finetuning.loop.run_log import read_journal
from finetuning.loop.run_state import FinetuningProgress, differences, earlier_precision
from finetuning.loop.schedule import Schedule
from finetuning.loop.stopping import FinetuningInterrupted
from finetuning.loop.training import finetune, open_engine
from finetuning.recipes.questions.recipe import QARecipe, QASettings
from finetuning.recipes.questions.spans import SpanLimits
from finetuning.recipes.questions.windows import Windows
from finetuning.run.figures import cumulative_mean, curves_of


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Tiny models gain nothing from a second thread, and lose much on a busy machine."""
    monkeypatch.setattr("finetuning.loop.training.choose_device", lambda ranks: torch.device("cpu"))


TOKENIZER = tiny_tokenizer(WORDS)
OPTIONS = FinetuningOptions(
    global_batch_rows=16, num_train_epochs=3, learning_rate=5e-3, report_to="none", bf16="false", seed=1
)


def recipe_of(train=48, validation=23, **splits):
    questions = {
        "train": tiny_questions(train, seed=1, prefix="t"),
        "validation": tiny_questions(validation, seed=2, prefix="v"),
        **splits,
    }
    return QARecipe(questions, TOKENIZER, QASettings(windows=Windows(32, 8), limits=SpanLimits(5, 6)))


def model_of(recipe, family="modernbert", dropout=0.0):
    return tiny_model(recipe, family, len(TOKENIZER), seed=7, dropout=dropout)


def losses(directory):
    return [line["loss"] for line in read_journal(directory / "journal.jsonl") if "loss" in line]


@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_change_no_loss(tmp_path, family):
    recipe = recipe_of()
    for name, micro in (("whole", 16), ("parts", 3)):
        options = replace(OPTIONS, per_device_train_batch_size=micro, num_train_epochs=2)
        finetune(recipe, model_of(recipe, family), options, directory=tmp_path / name)
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert len(whole) > 5
    assert parts == pytest.approx(whole, abs=1e-5)


def test_it_learns_and_ends_with_the_best_weights():
    recipe = recipe_of(train=96)
    model = model_of(recipe)
    options = replace(OPTIONS, num_train_epochs=8, learning_rate=1e-2)
    result = finetune(recipe, model, options)
    assert result.status == "done"
    assert len(result.history) == 8
    assert result.scores["eval_f1"] == max(entry["f1"] for entry in result.history) > 60
    assert result.history[0]["loss"] > result.history[-1]["loss"]
    engine = open_engine(model, options, batch_shape(options, 1))
    again = evaluate(recipe, engine, recipe.evaluation_sets["validation"], batch_rows=64)
    assert again.scores["f1"] == result.scores["eval_f1"]


def test_the_best_epoch_is_restored_when_a_later_one_is_worse():
    gains = []
    # At least one of these ruins what earlier epochs learnt; which one depends on the processor's rounding.
    for rate, seed in itertools.product((1.0, 3.0, 10.0), range(4)):
        recipe = recipe_of(test=tiny_questions(23, seed=2, prefix="v"))
        options = replace(OPTIONS, num_train_epochs=4, learning_rate=rate, seed=seed, lr_scheduler_type="constant")
        result = finetune(recipe, model_of(recipe), options)
        best = max(result.history, key=lambda entry: entry["f1"])
        assert result.selection_gain == best["f1"] - result.history[-1]["f1"]
        assert result.scores["test_loss"] == pytest.approx(best["loss"])  # which no two epochs share
        assert result.scores["test_f1"] == result.scores["eval_f1"] == best["f1"]
        assert result.best_epoch == best["epoch"]
        gains.append(result.selection_gain)
        if len(gains) >= 3 and max(gains) > 0:
            break
    assert max(gains) > 0


@pytest.mark.parametrize(("save_steps", "updates"), [(0, 4), (0, 8), (1, 6)])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch, save_steps, updates):
    recipe = recipe_of()
    options = replace(OPTIONS, save_steps=save_steps, lr_scheduler_type="constant", warmup_ratio=0.0)
    whole = finetune(recipe, model_of(recipe, dropout=0.1), options, directory=tmp_path / "whole")

    class Killed(Exception):
        pass

    import finetuning.loop.training

    train_update, done = finetuning.loop.training.train_update, 0

    def dying_update(*arguments):
        nonlocal done
        done += 1
        if done > updates:
            raise Killed
        return train_update(*arguments)

    monkeypatch.setattr(finetuning.loop.training, "train_update", dying_update)
    with pytest.raises(Killed):
        finetune(recipe, model_of(recipe, dropout=0.1), options, directory=tmp_path / "parts")
    monkeypatch.setattr(finetuning.loop.training, "train_update", train_update)
    resumed = finetune(recipe, model_of(recipe, dropout=0.1), options, directory=tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert resumed.history == whole.history
    assert resumed.predictions == whole.predictions
    assert resumed.updates == whole.updates > updates


@pytest.mark.parametrize("asks", [5, 6])  # the last evaluation alone has four batches
def test_a_run_that_is_stopped_again_and_again_ends_like_one_that_never_was(tmp_path, monkeypatch, asks):
    """Stopped after every few updates or evaluation batches: in an epoch, at its end, and in the last evaluation."""
    monkeypatch.setattr("finetuning.loop.stopping.LONGEST_INTERVAL", 1)
    recipe = recipe_of(test=tiny_questions(23, seed=2, prefix="v"))
    options = replace(OPTIONS, num_train_epochs=2, per_device_eval_batch_size=24)
    whole = finetune(recipe, model_of(recipe, dropout=0.1), options, directory=tmp_path / "whole")
    stopped_after, reasons, result = [], set(), None
    while result is None:
        answers = iter([None] * (asks - 1))
        try:
            result = finetune(
                recipe,
                model_of(recipe, dropout=0.1),
                options,
                directory=tmp_path / "parts",
                asked=lambda answers=answers: next(answers, "SIGTERM"),
            )
        except FinetuningInterrupted as interruption:
            stopped_after.append(interruption.updates)
            reasons.add((str(interruption), interruption.total_updates))
        assert len(stopped_after) < 20
    assert reasons == {("SIGTERM", whole.updates)}
    assert stopped_after == sorted(stopped_after)
    assert len(set(stopped_after)) > 1
    assert read_journal(tmp_path / "parts" / "journal.jsonl") == read_journal(tmp_path / "whole" / "journal.jsonl")
    assert result.history == whole.history
    assert result.predictions == whole.predictions


def test_another_run_in_the_directory_is_refused_unless_dropped(tmp_path):
    recipe = recipe_of()
    options = replace(OPTIONS, num_train_epochs=1)
    finetune(recipe, model_of(recipe), options, directory=tmp_path)
    other = replace(options, learning_rate=1e-4)
    with pytest.raises(ValueError, match="--resume_from_checkpoint false"):
        finetune(recipe, model_of(recipe), other, directory=tmp_path)
    found = finetune(recipe, model_of(recipe), replace(other, resume_from_checkpoint="false"), directory=tmp_path)
    assert found.updates > 0
    assert len(losses(tmp_path)) == found.updates


def test_an_evaluation_counts_its_batches_where_the_training_bar_is_shown(tmp_path, monkeypatch, capsys):
    recipe = recipe_of(test=tiny_questions(23, seed=3, prefix="e"))
    options = replace(OPTIONS, num_train_epochs=1, per_device_eval_batch_size=4)
    batches = math.ceil(len(recipe.evaluation_sets["test"].features) / 4)
    for forced, shown in (("0", False), ("1", True)):
        monkeypatch.setenv("FORCE_PROGRESS", forced)
        finetune(recipe, model_of(recipe), options, directory=tmp_path / forced)
        written = capsys.readouterr().err
        assert ("validation: " in written) == shown
        assert (f"test: {0:3}%|          | 0/{batches} " in written) == shown


def test_predictions_are_made_in_evaluation_mode():
    recipe = recipe_of()
    model = model_of(recipe, dropout=0.5)
    engine = open_engine(model, OPTIONS, batch_shape(OPTIONS, 1))
    engine.train()
    first, second = (evaluate(recipe, engine, recipe.evaluation_sets["validation"], batch_rows=8) for _ in range(2))
    assert first == second
    assert model.training
    engine.eval()
    evaluate(recipe, engine, recipe.evaluation_sets["validation"], batch_rows=8)
    assert not model.training


def test_early_stopping_waits_as_long_as_it_was_told():
    progress = FinetuningProgress()
    schedule = Schedule(10, 100, 0, 1.0, "constant")
    for number, (score, better) in enumerate([(1.0, True), (3.0, True), (2.0, False), (3.0, False)], start=1):
        assert progress.stopped is None
        progress.updates = number * 10
        assert progress.take_validation({"f1": score}, "f1", schedule, 2) == better
    assert progress.stopped == "early"
    assert (progress.best_epoch, progress.best_updates) == (2.0, 20)


def test_updates_that_are_not_finite_are_skipped_counted_and_end_the_run(tmp_path):
    recipe = recipe_of()
    model = model_of(recipe)
    before = model.transformer.classifier.weight.detach().clone()
    measure = recipe.measure
    recipe.measure = lambda outputs, batch: {
        name: value * (math.nan if name == "loss" and model.training else 1.0)
        for name, value in measure(outputs, batch).items()
    }
    result = finetune(recipe, model, replace(OPTIONS, num_train_epochs=9), directory=tmp_path)
    assert result.status == "not_finite"
    assert "not finite in" in result.reason
    assert result.not_finite_updates == result.updates < 30
    assert torch.equal(model.transformer.classifier.weight, before)
    assert all(line["loss"] is None for line in read_journal(tmp_path / "journal.jsonl") if "loss" in line)


def test_constant_predictions_are_reported_as_a_collapse_with_the_likely_cause():
    recipe = recipe_of()
    model = model_of(recipe)
    finish = recipe.finish

    def same_for_all(rows, evaluation_set):
        return {name: {**one, "text": "old"} for name, one in finish(rows, evaluation_set).items()}

    recipe.finish = same_for_all
    result = finetune(recipe, model, replace(OPTIONS, num_train_epochs=1, learning_rate=1.0))
    assert result.status == "collapsed"
    assert "'old'" in result.reason
    assert "learning rate is too high" in result.reason


def test_nothing_to_do_is_refused_and_zero_epochs_only_evaluate():
    recipe = recipe_of()
    result = finetune(recipe, model_of(recipe), replace(OPTIONS, num_train_epochs=0))
    assert (result.status, result.updates, result.history) == ("done", 0, [])
    assert "eval_f1" in result.scores
    recipe.train_features, recipe.evaluation_sets = [], {}
    with pytest.raises(ValueError, match="no training rows"):
        finetune(recipe, model_of(recipe), OPTIONS)
    with pytest.raises(ValueError, match="nothing to train on"):
        finetune(recipe, model_of(recipe), replace(OPTIONS, num_train_epochs=0))


def test_the_result_is_plain_json():
    recipe = recipe_of()
    result = finetune(recipe, model_of(recipe), replace(OPTIONS, max_steps=1))
    content = json.loads(json.dumps(result.as_json()))
    assert content["eval_f1"] == result.scores["eval_f1"]
    speed = content["evaluation_samples_per_second"]
    assert speed * content["evaluation_seconds"] == pytest.approx(23)
    assert json.loads(json.dumps(result.predictions))["validation"].keys() == {f"v{i}" for i in range(23)}


def test_tensorboard_keeps_what_a_resumed_run_had_logged(tmp_path, monkeypatch):
    monkeypatch.setattr("finetuning.loop.stopping.LONGEST_INTERVAL", 1)
    recipe, options = recipe_of(), replace(OPTIONS, report_to="tensorboard")
    asked = iter([None] * 5 + ["stop"])
    with pytest.raises(FinetuningInterrupted):
        finetune(recipe, model_of(recipe), options, directory=tmp_path, asked=lambda: next(asked))
    result = finetune(recipe, model_of(recipe), options, directory=tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, result.updates + 1))
    assert [event.step for event in events.Scalars("eval/f1")] == [entry["updates"] for entry in result.history]


def test_an_epochs_training_figures_are_the_ends_of_the_cumulative_curves(tmp_path, capsys):
    """Reports quote epoch_loss and epoch_acc: in history.json, all_results.json, TensorBoard and the epoch's line."""
    recipe = recipe_of()
    result = finetune(recipe, model_of(recipe), replace(OPTIONS, report_to="tensorboard"), directory=tmp_path)
    curves = curves_of(read_journal(tmp_path / "journal.jsonl"))
    assert len(result.history) > 1
    for name in ("loss", "span_accuracy"):
        means = cumulative_mean(curves.values[name], curves.updates, curves.validation_updates)
        ends = means[curves.validation_updates - 1]
        assert [entry[f"train_{name}"] for entry in result.history] == pytest.approx(ends)
        assert result.as_json()[f"train_{name}"] == pytest.approx(ends[-1])
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars(f"train_epoch_mean/{name}")
        assert [event.value for event in events] == pytest.approx(means, rel=1e-5)
    assert f"train loss {result.history[0]['train_loss']:.4f}, span_accuracy " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "device", "expected"),
    [
        ({"bf16": True}, "cpu", True),
        ({"bf16": False}, "cuda", False),
        ({}, "cpu", False),  # of versions that never computed in bf16 on a CPU
        (None, "cpu", None),
    ],
)
def test_an_interrupted_run_keeps_its_precision(tmp_path, state, device, expected):
    folder = tmp_path / "state" / "step-00000004-001"
    folder.mkdir(parents=True)
    if state is None:
        folder.rmdir()
    else:
        (folder / "state.json").write_text(json.dumps({"optimizer_steps": 4, **state}))
    assert earlier_precision(tmp_path, torch.device(device)) is expected


def test_the_state_of_a_run_says_its_precision(tmp_path):
    recipe, options = recipe_of(), replace(OPTIONS, bf16="true", save_steps=1)
    asked = iter([None] * 3 + ["stop"] * 9)
    with pytest.raises(FinetuningInterrupted):
        finetune(recipe, model_of(recipe), options, directory=tmp_path, asked=lambda: next(asked))
    assert earlier_precision(tmp_path, torch.device("cpu")) is True


def test_only_what_differs_is_named_and_a_digest_is_cut():
    there = {"head": {"task": "tags", "dropout": None, "pooling": "cls"}, "weights": "a" * 64, "seed": 1}
    here = {"head": {"task": "tags", "dropout": None, "pooling": "mean"}, "weights": "b" * 64, "seed": 1}
    said = differences(there, here)
    assert said == f"head pooling: 'cls' there, 'mean' here; weights: {'a' * 12}... there, {'b' * 12}... here"


def test_a_group_that_one_run_lacks_is_shown_whole():
    assert differences({"head": None}, {"head": {"task": "tags"}}) == "head: None there, {'task': 'tags'} here"
