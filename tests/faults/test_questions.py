"""Rows of docs/reliability.md about fine-tuning and studies: question files, foreign models, and interrupted runs."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_gap import write_series, write_tasks

from tests.faults.commands import INTERRUPTED, MOST_SECONDS, QA, REFUSED

pytestmark = pytest.mark.slow


def squad(path: Path, *entries: tuple[str, str, str, int | None], version: str = "1.1") -> Path:
    """One paragraph with questions: (id, context, answer, offset); no answer where the offset is None."""
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": name,
                    "question": "what is the colour ?",
                    "answers": [] if start is None else [{"text": answer, "answer_start": start}],
                }
            ],
        }
        for name, context, answer, start in entries
    ]
    path.write_text(json.dumps({"version": version, "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


CONTEXT = "the balan is red and the kirek is blue and old"


@pytest.fixture
def qa(commands, questions, tmp_path):
    """Run finetuning/qa.py on a train file; returns what it printed."""

    def call(train=None, *more, status=0, out="out", model=None, **variables):
        argv = ["--model_name_or_path", model or questions / "model", "--output_dir", tmp_path / out]
        argv += ["--train_file", train or questions / "train.json", "--validation_file", questions / "validation.json"]
        argv += ["--num_train_epochs", 2, "--max_seq_length", 32, "--doc_stride", 8, "--bf16", "false"]
        argv += ["--global_batch_rows", 8, "--learning_rate", "5e-3", "--report_to", "none", "--save_steps", 3, *more]
        said = commands.run(QA, argv, tmp_path / "qa.log", status, **variables)
        assert "Traceback" not in said
        return said

    return call


def test_fault_31_duplicate_ids(qa, tmp_path):
    file = squad(tmp_path / "train.json", *((name, CONTEXT, "red", 13) for name in ("a", "b", "a", "c", "c")))
    said = qa(file, status=REFUSED)
    assert "2 ids given more than once (a, c)" in said
    assert "train.json" in said


def test_fault_32_answer_not_at_its_offset(qa, tmp_path):
    """Counted; the text is used where it occurs exactly once elsewhere; --strict true refuses."""
    rows = [("a", CONTEXT, "red", 13), ("b", CONTEXT, "blue", -1), ("c", CONTEXT, "is", 3), ("d", CONTEXT, "green", 0)]
    file = squad(tmp_path / "train.json", *rows)
    said = qa(file)
    assert "3 of 4 answers of train are not at their answer_start: 1 were" in said
    said = qa(file, "--strict", "true", status=REFUSED, out="strict")
    assert "3 answers are not" in said
    assert "b, c, d" in said


def test_fault_33_no_answers(qa, tmp_path):
    rows = [("a", CONTEXT, "red", 13), ("b", CONTEXT, "", None)]
    file = squad(tmp_path / "train.json", *rows, version="v2.0")
    said = qa(file, status=REFUSED)
    assert "--version_2_with_negative" in said
    qa(file, "--version_2_with_negative", "true", out="second")
    predictions = json.loads((tmp_path / "second" / "predictions.json").read_text())
    assert len(predictions) == 19


class Opens:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("named", ["pytorch_model.bin", "../outside.safetensors"])
def test_fault_45_a_weight_index_that_names_a_pickle_or_a_file_outside(
    commands, qa, questions, shards, whole, tmp_path, named
):
    trap = tmp_path / "executed"
    for model, source in (("tuned", questions / "model"), ("trained", whole / "series" / "raw-7000")):
        folder = tmp_path / model / "model"
        shutil.copytree(source, folder)
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(tmp_path / model / "outside.safetensors")
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Opens(trap)))
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, named)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert named in qa(model=tmp_path / "tuned" / "model", status=REFUSED)
    options = {"model": None, "config_overrides": None, "model_name_or_path": tmp_path / "trained" / "model"}
    said = commands.pretrain(shards, tmp_path / "run", options, REFUSED)
    assert named in said
    assert "Traceback" not in said
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"model_type": "modernbert", "hidden_size": "x"}'),
        ("config.json", '{"model_type": "modernbert", "num_hidden_layers": 1000000000}'),
        ("config.json", '{"model_type": "modernbert", "num_attention_heads": 0}'),
        ("config.json", "[" * 10_000),
        ("tokenizer.json", '{"model": []}'),
        ("tokenizer_config.json", "null"),
        ("model.safetensors", "cut"),
        ("model.safetensors", "nan"),
    ],
)
def test_fault_49_a_malformed_file_of_a_foreign_model(commands, qa, questions, tmp_path, name, text):
    model = tmp_path / "model"
    shutil.copytree(questions / "model", model)
    path = model / name
    if text == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif text == "nan":
        tensors = load_file(path)
        tensors["model.embeddings.tok_embeddings.weight"].fill_(float("nan"))
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        path.write_text(text)
    assert str(model) in qa(model=model, status=REFUSED)
    assert commands.started[-1].cpu_seconds < MOST_SECONDS


def test_fault_51_attention_from_a_kernel_of_the_hub(qa, questions, tmp_path):
    """The name is ignored: the same run, without a request to an address that has no server."""
    model = tmp_path / "model"
    shutil.copytree(questions / "model", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "_attn_implementation": "somebody/kernel"}))
    qa(model=model, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    qa(out="plain")
    first, second = (tmp_path / name / "predictions.json" for name in ("out", "plain"))
    assert first.read_bytes() == second.read_bytes()


STOP = "finetuning.update:6:terminate"


def test_fault_61_resumed_at_another_global_batch(qa, tmp_path):
    qa(status=INTERRUPTED, FAULT_POINT=STOP)
    said = qa(None, "--global_batch_rows", 4, status=REFUSED)
    assert "global_batch_rows" in said
    assert "8" in said
    assert "4" in said


@pytest.mark.parametrize("damage", ["state", "weights", "pickle"])
def test_fault_66_the_state_of_a_fine_tuning_run_tampered_with(qa, tmp_path, damage):
    """An earlier state is used, or the run is refused by name: training never continues from another state."""
    qa(status=-signal.SIGKILL, FAULT_POINT="finetuning.update:8:kill")
    states = sorted((tmp_path / "out" / "state").rglob("step-*"))
    trap = tmp_path / "executed"
    for state in states:
        if damage == "state":
            (state / "state.json").write_text('{"schema_version": 1, "progress": [1e400]}')
        else:
            path = next(state.glob("*.safetensors"))
            evil = pickle.dumps(Opens(trap)) if damage == "pickle" else path.read_bytes()[:-4] + b"\0\0\0\1"
            path.write_bytes(evil)
    said = qa(status=REFUSED)
    assert "step-" in said
    assert "--resume_from_checkpoint false" in said or "remove" in said
    assert not trap.exists()
    qa(None, "--resume_from_checkpoint", "false")


def test_fault_56_no_line_of_a_fine_tuning_journal_is_lost(qa, tmp_path):
    """Killed in the first update after a validation whose state is saved."""
    qa(status=-signal.SIGKILL, FAULT_POINT="finetuning.update:9:kill")
    qa()
    qa(out="whole")
    journals = [(tmp_path / name / "journal.jsonl").read_bytes() for name in ("out", "whole")]
    assert journals[0] == journals[1]


def gap_arguments(tmp_path: Path) -> list[str]:
    series = write_series(tmp_path / "series", (100, 200))
    tasks = write_tasks(tmp_path / "tasks")
    values = {
        "series": series, "tasks": f"questions=qa:{tasks[0].place}", "output_dir": tmp_path / "out",
        "learning_rates": "1e-3", "num_train_epochs": 1, "max_seq_length": 32, "doc_stride": 8,
        "draws": 200, "max_parallel": 1, "dry_run": "true",
    }  # fmt: skip
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def test_fault_59_a_key_that_stands_there_twice(commands, tmp_path):
    argv = gap_arguments(tmp_path)
    path = tmp_path / "series" / "series.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 1, "schema_version": 1', 1))
    commands.refused("launch/gap.py", argv, tmp_path / "log", "series.json", "schema_version")


def test_fault_60_a_series_with_every_row_twice(commands, tmp_path):
    argv = gap_arguments(tmp_path)
    commands.run("launch/gap.py", argv, tmp_path / "log")
    path = tmp_path / "series" / "series.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "checkpoints": [*content["checkpoints"]] * 2}))
    commands.refused("launch/gap.py", argv, tmp_path / "log", "series.json")
