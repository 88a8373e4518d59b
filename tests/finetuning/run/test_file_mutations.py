"""What fine-tuning and sweeps leave behind, changed at random: a clear refusal that names the file, or a reading."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from file_mutations import few_and_many, refusals
from safetensors.torch import save_file
from tiny_encoder import save_tiny_model
from transformers import BertConfig

from finetuning.loop.run_log import RunLog, drop_lines_after, read_journal
from finetuning.loop.run_state import FinetuningProgress, progress_of
from finetuning.model.heads import CLASSIFICATION, HEAD_WEIGHTS, Head, fill_head, load_headed
from finetuning.recipes.choices.chain import read_choices_made
from finetuning.run.figures import curves_of
from finetuning.run.finished import finished_results, read_results
from finetuning.run.saved_model import head_of, saved_facts
from finetuning.run.seed_runs import seed_summary
from finetuning.sweep.runner import outcome, wait_for_live_cell
from finetuning.sweep.sweep import SweepCell
from pretraining.checkpoints.checkpoint import STATE_FILE, Checkpoint
from pretraining.checkpoints.saving import save_checkpoint
from runtime.files.whole_files import write_json
from runtime.processes.ranks import Ranks

RESULTS = {
    "schema_version": 1,
    "status": "done",
    "reason": None,
    "metric": "accuracy",
    "eval_accuracy": 0.5,
    "seconds": 3.0,
    "updates": 12,
    "fingerprint": "a" * 64,
    "decided_by": {"learning_rate": 1e-4, "global_batch_rows": 32},
}
PROGRESS = FinetuningProgress(
    *(12, 12, 96, 2.0, 3.0),
    best_score=0.5,
    best_epoch=2.0,
    best_updates=12,
    epoch_sums={"loss": [3.0, 4]},
    history=[{"epoch": 1.0, "updates": 6, "accuracy": 0.25}, {"epoch": 2.0, "updates": 12, "accuracy": 0.5}],
    half_scores=[[0.5, 0.25], None],
)


@few_and_many
def test_the_results(tmp_path, rounds):
    write_json(tmp_path / "all_results.json", RESULTS)

    def read():
        found = read_results(tmp_path)
        seed_summary([0], [{"metric": "accuracy", "status": "done", **found}])
        try:
            finished_results(tmp_path, "a" * 64, {"learning_rate": 1e-4, "global_batch_rows": 32})
        except ValueError as error:
            assert "another --output_dir" in str(error)  # noqa: PT017

    refusals(tmp_path / "all_results.json", read, rounds)


@few_and_many
def test_the_record_of_a_model(tmp_path, rounds):
    options = {"max_seq_length": 128, "truncation": "head", "null_score_diff_threshold": 0.0}
    content = {"recipe": "glue", "task": "classification", "labels": ["a", "b"], "pooling": "cls", "own_head": True}
    write_json(tmp_path / "recipe.json", {"schema_version": 1, **content, "metric": "accuracy", "options": options})
    refusals(tmp_path / "recipe.json", lambda: head_of(saved_facts(str(tmp_path), BertConfig())), rounds)


@few_and_many
def test_a_head_of_our_own(tmp_path, rounds):
    save_tiny_model(tmp_path, "bert", ["cat", "dog"])
    head = Head(CLASSIFICATION, 2, ("a", "b"), pooling="max")
    own = load_headed(str(tmp_path), head).transformer
    tensors = {name: tensor.detach() for name, tensor in own.head.named_parameters(prefix="head")}
    save_file(tensors, tmp_path / HEAD_WEIGHTS)
    refusals(tmp_path / HEAD_WEIGHTS, lambda: fill_head(own, tmp_path / HEAD_WEIGHTS), rounds)


def test_a_head_that_is_not_finite_is_refused(tmp_path):
    save_tiny_model(tmp_path, "bert", ["cat", "dog"])
    head = Head(CLASSIFICATION, 2, ("a", "b"), pooling="max")
    own = load_headed(str(tmp_path), head).transformer
    tensors = {name: torch.full_like(tensor, math.nan) for name, tensor in own.head.named_parameters(prefix="head")}
    save_file(tensors, tmp_path / HEAD_WEIGHTS)
    with pytest.raises(ValueError, match=rf"{HEAD_WEIGHTS} holds NaN or infinity"):
        load_headed(str(tmp_path), head, keep_head=True)


@few_and_many
def test_a_journal_is_read_whatever_stands_in_it(tmp_path, rounds):
    journal = tmp_path / "journal.jsonl"
    log = RunLog(tmp_path, is_main=True, total_updates=4)
    for update in range(1, 5):
        log.update(update, {"loss": 1.0, "learning_rate": 1e-4})
    log.validation(4, 1.0, {"accuracy": 0.5})
    log.close()

    def read():
        whole = journal.read_bytes()
        curves_of(read_journal(journal))
        said = drop_lines_after(journal, 4, 4)
        journal.write_bytes(whole)
        if said:
            raise ValueError(said)

    refusals(journal, read, rounds)


@few_and_many
def test_the_state_of_an_interrupted_run(tmp_path, rounds):
    state = {"fingerprint": "a" * 64, "decided_by": {}, "optimizer_steps": 12, "progress": asdict(PROGRESS)}
    tensors = [("a/weight", torch.zeros(2))]
    path = save_checkpoint(tmp_path, "step-00000012-001", tensors=tensors, state=state, ranks=Ranks())
    assert progress_of(Checkpoint(path), "accuracy") == PROGRESS
    refusals(path / STATE_FILE, lambda: progress_of(Checkpoint(path), "accuracy"), rounds)


@few_and_many
@pytest.mark.parametrize("name", ["cell.json", "all_results.json"])
def test_the_cells_of_a_sweep(tmp_path, rounds, name):
    cell = SweepCell(row=0, seed=0, options={"learning_rate": 1e-4}, fingerprint="b" * 64)
    record = {"schema_version": 1, "fingerprint": "b" * 64, "recipe": "glue", "options": {}, "status": "finished"}
    write_json(tmp_path / "cell.json", {**record, "pid": 1 << 22, "start": "123", "exit_code": 0, "seconds": 2.0})
    write_json(tmp_path / "all_results.json", RESULTS)

    def read():
        outcome(tmp_path, cell)
        wait_for_live_cell(tmp_path, print)

    refusals(tmp_path / name, read, rounds, named=str(tmp_path))


@few_and_many
def test_the_choices_of_the_first_stage(tmp_path, rounds):
    write_json(tmp_path / "predictions.json", {"q1": {"name": "3", "choice": 1, "score": 0.5}, "q2": {"name": "0"}})

    def read():
        for choice in read_choices_made(tmp_path, ["validation"])["validation"].values():
            assert int(choice["name"]) >= 0

    refusals(tmp_path / "predictions.json", read, rounds)


def test_a_journal_that_went_away_or_lost_lines_is_spoken_of(tmp_path):
    journal = tmp_path / "journal.jsonl"
    assert drop_lines_after(journal, 0, 0) is None
    assert "is missing" in drop_lines_after(journal, 5, 5)
    lines = [json.dumps({"update": update, "loss": 1.0}) for update in range(1, 9)]
    journal.write_text("\n".join([*lines, ""]))
    assert drop_lines_after(journal, 6, 6) is None
    journal.write_text("\n".join([*lines[:2], "[]", "null", *lines[4:], '{"torn": ']))
    assert "has no lines for 2 of 6 updates (3 damaged" in drop_lines_after(journal, 6, 6)


def test_of_results_of_another_run_it_is_said_what_differs(tmp_path):
    write_json(tmp_path / "all_results.json", RESULTS)
    with pytest.raises(ValueError, match=r"\(global_batch_rows: 32 there, 16 here\)"):
        finished_results(tmp_path, "b" * 64, {"learning_rate": 1e-4, "global_batch_rows": 16})
    with pytest.raises(ValueError, match=r"the same options: the training or evaluation examples differ"):
        finished_results(tmp_path, "b" * 64, RESULTS["decided_by"])
    write_json(tmp_path / "all_results.json", {**RESULTS, "decided_by": {}})
    with pytest.raises(ValueError, match=r"written by an earlier version"):
        finished_results(tmp_path, "b" * 64, RESULTS["decided_by"])
    write_json(tmp_path / "all_results.json", {"status": "done", "seeds": [4, 5]})
    with pytest.raises(
        ValueError, match=r"holds the results of several seeds \(those of --seeds: 4, 5\): choose another"
    ):
        finished_results(tmp_path, "b" * 64, RESULTS["decided_by"])
