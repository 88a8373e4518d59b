"""Two ranks under torchrun and deepspeed: the same training and the same predictions as one process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_encoder import save_tiny_model
from tiny_examples import WORDS, tiny_choices, tiny_questions, tiny_sentences, write_conllu

from tests.finetuning.run.test_command import squad_file

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model and files whose sizes do not divide by two."""
    directory = tmp_path_factory.mktemp("world")
    save_tiny_model(directory / "model", "modernbert", WORDS)
    squad_file(directory / "train.json", tiny_questions(45, prefix="t", seed=1))
    squad_file(directory / "validation.json", tiny_questions(23, prefix="v", seed=2))
    squad_file(directory / "blind.json", tiny_questions(23, prefix="v", seed=2), labelled=False)
    return directory


def launch(project_root, world, launcher, output, *extra, check=True, recipe="qa"):
    command = [
        *launcher,
        str(project_root / "finetuning" / f"{recipe}.py"),
        *("--model_name_or_path", "model", "--train_file", "train.json", "--validation_file", "validation.json"),
        *("--test_file", "blind.json", "--num_train_epochs", "2", "--max_seq_length", "32", "--doc_stride", "8"),
        *("--bf16", "false", "--global_batch_rows", "16", "--learning_rate", "5e-3", "--dropout", "0"),
        *("--report_to", "none", "--output_dir", output, *extra),
    ]
    return subprocess.run(command, cwd=world, check=check, capture_output=True, text=True, timeout=280)


def outcome(directory):
    lines = [json.loads(line) for line in (directory / "journal.jsonl").read_text("utf-8").splitlines()]
    results = json.loads((directory / "all_results.json").read_text("utf-8"))
    return (
        [line["loss"] for line in lines if "loss" in line],
        results,
        (directory / "predictions.json").read_text("utf-8"),
    )


@pytest.fixture(scope="module")
def alone(project_root, world):
    launch(project_root, world, [sys.executable], "alone")
    losses, results, predictions = outcome(world / "alone")
    validation = (world / "alone" / "validation" / "predictions.json").read_text("utf-8")
    assert validation == predictions  # the same file through the test path
    return losses, results, predictions


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("torchrun", ["--per_device_train_batch_size", "3", "--per_device_eval_batch_size", "5"]),
        ("zero2", ["--per_device_train_batch_size", "3", "--per_device_eval_batch_size", "5"]),
        pytest.param("zero3", [], marks=pytest.mark.long),
    ],
)
def test_two_ranks_train_and_predict_as_one(project_root, world, alone, free_port, name, extra):
    if name == "torchrun":
        launcher = [str(BIN / "torchrun"), "--nproc_per_node", "2", "--master_port", str(free_port)]
    else:
        launcher = [str(BIN / "deepspeed"), "--num_gpus", "2", "--master_port", str(free_port)]
        extra = [*extra, "--deepspeed", str(project_root / "ds_configs" / f"{name}.json")]
    launch(project_root, world, launcher, name, *extra)
    losses, results, predictions = outcome(world / name)
    assert losses == pytest.approx(alone[0], abs=1e-5)
    assert predictions == alone[2]
    for metric in ("eval_exact_match", "eval_f1"):
        assert results[metric] == alone[1][metric]
    assert (world / name / "best" / "model.safetensors").is_file()


def test_evaluation_of_one_model_is_the_same_on_two_ranks(project_root, world, alone, free_port):
    extra = ["--model_name_or_path", "alone/best", "--num_train_epochs", "0", "--per_device_eval_batch_size", "4"]
    launcher = [str(BIN / "torchrun"), "--nproc_per_node", "2", "--master_port", str(free_port)]
    launch(project_root, world, launcher, "evaluated", *extra)
    results = json.loads((world / "evaluated" / "all_results.json").read_text("utf-8"))
    assert (results["eval_f1"], results["eval_exact_match"]) == (alone[1]["eval_f1"], alone[1]["eval_exact_match"])
    assert (world / "evaluated" / "predictions.json").read_text("utf-8") == alone[2]


@pytest.mark.parametrize("resumed_by", ["python", pytest.param("deepspeed", marks=pytest.mark.long)])
def test_a_killed_run_of_two_ranks_is_resumed_by_another_engine(project_root, world, alone, free_port, resumed_by):
    """Saved by FSDP2 on two ranks, killed while saving again, resumed by one process or by ZeRO-2 on two ranks."""
    output = f"killed_{resumed_by}"
    launcher = [
        "env",
        "FAULT_POINT=checkpoint.before_write:2:kill",
        str(BIN / "torchrun"),
        *("--nproc_per_node", "2", "--master_port", str(free_port)),
    ]
    killed = launch(project_root, world, launcher, output, check=False)
    assert killed.returncode != 0
    if resumed_by == "python":
        resumed = launch(project_root, world, [sys.executable], output)
    else:
        launcher = [str(BIN / "deepspeed"), "--num_gpus", "2", "--master_port", str(free_port)]
        extra = ["--deepspeed", str(project_root / "ds_configs" / "zero2.json")]
        resumed = launch(project_root, world, launcher, output, *extra)
    assert "continuing after update" in resumed.stdout
    losses, results, predictions = outcome(world / output)
    assert losses == pytest.approx(alone[0], abs=1e-5)
    assert predictions == alone[2]
    assert results["eval_f1"] == alone[1]["eval_f1"]


@pytest.mark.parametrize("stopped_in", ["finetuning.update:5", "finetuning.evaluation:1"])
def test_sigterm_at_one_of_two_ranks_stops_both_and_one_process_goes_on(
    project_root, world, alone, free_port, stopped_in
):
    output = f"stopped_{stopped_in.split(':')[0]}"
    torchrun = [str(BIN / "torchrun"), "--nproc_per_node", "2", "--master_port", str(free_port)]
    fault = ["env", f"FAULT_POINT={stopped_in}:terminate", "FAULT_RANK=1"]
    stopped = launch(project_root, world, [*fault, *torchrun], output, check=False)
    assert stopped.returncode != 0
    marker = json.loads((world / output / "INTERRUPTED.json").read_text("utf-8"))
    assert marker["reason"] == "SIGTERM at rank 1"
    assert 0 < marker["progress"]["updates"] < marker["progress"]["total_updates"] == alone[1]["updates"]
    resumed = launch(project_root, world, [sys.executable], output)
    assert f"continuing after update {marker['progress']['updates']} " in resumed.stdout
    losses, results, predictions = outcome(world / output)
    assert losses == pytest.approx(alone[0], abs=1e-5)
    assert predictions == alone[2]
    assert results["eval_f1"] == alone[1]["eval_f1"]
    assert not (world / output / "INTERRUPTED.json").exists()


def test_questions_with_two_to_four_choices_on_two_ranks(project_root, world, free_port):
    for split, number in (("train", 37), ("validation", 19)):
        rows = [
            {"id": one.id, "context": one.firsts[0], "question": "", "choices": list(one.seconds), "label": one.label}
            for one in tiny_choices(number, prefix=split)
        ]
        (world / f"choices_{split}.json").write_text(json.dumps(rows))
    extra = ["--train_file", "choices_train.json", "--validation_file", "choices_validation.json"]
    extra += ["--test_file", "choices_validation.json"]
    torchrun = [str(BIN / "torchrun"), "--nproc_per_node", "2", "--master_port", str(free_port)]
    found = []
    for name, launcher, more in (
        ("choices_alone", [sys.executable], []),
        ("choices_two", torchrun, ["--per_device_train_batch_size", "3", "--per_device_eval_batch_size", "4"]),
    ):
        launch(project_root, world, launcher, name, *extra, *more, recipe="multiple_choice")
        losses, results, predictions = outcome(world / name)
        assert results["test_accuracy"] == results["eval_accuracy"]
        choices = {key: one["choice"] for key, one in json.loads(predictions).items()}
        found.append((losses, results["eval_accuracy"], choices))
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-5)
    assert found[1][1:] == found[0][1:]


def test_words_of_sentences_over_several_windows_on_two_ranks(project_root, world, free_port):
    for split, number in (("train", 37), ("validation", 19)):
        write_conllu(world / f"{split}.conllu", tiny_sentences(number, prefix=split, seed=number, entities=True))
    extra = ["--train_file", "train.conllu", "--validation_file", "validation.conllu", "--learning_rate", "1e-3"]
    extra += ["--test_file", "validation.conllu"]
    torchrun = [str(BIN / "torchrun"), "--nproc_per_node", "2", "--master_port", str(free_port)]
    found = []
    for name, launcher, more in (
        ("words_alone", [sys.executable], []),
        ("words_two", torchrun, ["--per_device_train_batch_size", "3", "--per_device_eval_batch_size", "4"]),
    ):
        launch(project_root, world, launcher, name, *extra, *more, recipe="token_classification")
        losses, results, predictions = outcome(world / name)
        assert results["test_f1"] == results["eval_f1"]
        scores = [results[f"eval_{score}"] for score in ("accuracy", "precision", "recall", "f1")]
        found.append((losses, results["eval_loss"], scores, json.loads(predictions)))
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-5)
    assert found[1][1] == pytest.approx(found[0][1], abs=1e-5)
    assert found[1][2:] == found[0][2:]
    assert len(found[0][3]) == 19
    assert 0 < found[0][2][3] < 1
