"""Errors that do not depend on the data are reported before any data are read."""

import importlib
from pathlib import Path

import pytest
from exit_statuses import status_of

from finetuning.examples.batches import batch_shape
from finetuning.examples.recipe import FinetuningOptions
from finetuning.loop.training import engine_options
from finetuning.run import command
from finetuning.run.option_checks import RECIPES, check_options, options_class
from runtime.processes.ranks import Ranks

OF_ALL = [
    ("--lr_scheduler_type", "cosine", "--lr_scheduler_type cosine: use one of linear"),
    ("--warmup_ratio", "2", "--warmup_ratio 2.0: use at least 0 and below 1, a share of the updates"),
    ("--learning_rate", "-1", "--learning_rate -1.0"),
    ("--bf16", "yes", "--bf16 yes: use one of auto, true, false"),
    ("--report_to", "paper", "--report_to paper: use one of tensorboard"),
    ("--on_bad_text", "ignore", "--on_bad_text ignore: use one of stop, replace"),
    ("--max_seq_length", "4", "--max_seq_length 4: use at least 8"),
    ("--max_train_samples", "0", "--max_train_samples 0: use at least 1"),
    ("--per_device_eval_batch_size", "0", "--per_device_eval_batch_size 0"),
    ("--max_grad_norm", "-1", "--max_grad_norm -1.0"),
    ("--weight_decay", "-1", "--weight_decay -1.0: use a finite number, at least 0"),
    ("--fsdp", "half", "--fsdp half: use one of full_shard"),
    ("--deepspeed", "none.json", "--deepspeed none.json is not a file"),
    ("--dropout", "1", "--dropout 1.0: use at least 0 and below 1"),
]
OF_TEXTS = [
    ("--pooling", "first", "--pooling first: use one of cls, mean, max"),
    ("--head_dropout", "1", "--head_dropout 1.0"),
    ("--truncation", "middle", "--truncation middle: use one of head"),
    ("--label_smoothing", "1", "--label_smoothing 1.0"),
]
OF_CLASSES = [
    ("--selection_metric", "loss", "--selection_metric loss: use one of accuracy"),
    ("--validation_fraction", "2", "--validation_fraction 2.0"),
]
OF_QUESTIONS = [
    ("--doc_stride", "-1", "--doc_stride -1"),
    ("--n_best_size", "0", "--n_best_size 0"),
    ("--answer_language", "de", "--answer_language de: use one of auto, en, zh"),
]
CASES = [("qa", *case) for case in OF_ALL + OF_QUESTIONS]
CASES += [("classification", *case) for case in OF_ALL[:1] + OF_TEXTS + OF_CLASSES]
CASES += [("multiple_choice", *case) for case in OF_ALL[:1] + OF_QUESTIONS[:1]]
CASES += [("glue", *case) for case in OF_ALL[:1] + OF_TEXTS]
CASES += [("token_classification", *case) for case in OF_ALL[:1] + OF_QUESTIONS[:1]]


def status(recipe, given):
    return status_of(importlib.import_module(f"finetuning.{recipe}").main, given)


@pytest.mark.parametrize(("recipe", "option", "value", "message"), CASES)
def test_an_option_out_of_range_is_refused_before_the_data_are_read(
    tmp_path, monkeypatch, capsys, recipe, option, value, message
):
    monkeypatch.chdir(tmp_path)
    data = ["--task_name", "rte", "--data_dir", "none"] if recipe == "glue" else ["--train_file", "none.json"]
    given = [*data, "--model_name_or_path", "./nowhere", option, value]
    assert status(recipe, given) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_those_of_the_second_stage_are_refused_before_the_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files = [f"--{name}" for name in ("train_file", "validation_file", "context_file")]
    given = [part for option in files for part in (option, "none.json")]
    given += ["--chain", "true", "--qa_learning_rate", "-1", "--model_name_or_path", "./nowhere"]
    assert status("multiple_choice", given) == 2
    assert "--qa_learning_rate -1.0" in capsys.readouterr().err


def test_the_batch_is_that_of_all_ranks():
    options = FinetuningOptions(global_batch_rows=8, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    check_options(options)
    with pytest.raises(ValueError, match="give only two of the three"):
        check_options(options, Ranks(world_size=2, local_world_size=2))


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("{"), lambda path: path.write_text("{}")])
def test_a_deepspeed_json_that_changes_during_the_run_changes_nothing(tmp_path, change):
    path = tmp_path / "zero.json"
    path.write_text('{"zero_optimization": {"stage": 2}}')
    options = FinetuningOptions(deepspeed=str(path))
    check_options(options)
    change(path)
    engine = engine_options(options, batch_shape(options, 1))
    assert engine.deepspeed == {"zero_optimization": {"stage": 2}}


def test_the_next_command_reads_the_deepspeed_json_again(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "init_process_group", lambda *given, **named: None)  # ranks are not what is tested
    path = tmp_path / "zero.json"
    options = FinetuningOptions(deepspeed=str(path))
    for stage in (1, 2):
        path.write_text(f'{{"zero_optimization": {{"stage": {stage}}}}}')
        command.open_world(options)
        assert engine_options(options, batch_shape(options, 1)).deepspeed == {"zero_optimization": {"stage": stage}}
    path.unlink()
    with pytest.raises(ValueError, match=r"zero\.json is not a file"):
        command.open_world(options)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_defaults_pass(recipe):
    check_options(options_class(recipe)())
