"""Several seeds of one command: folders, the summary over them, nothing run twice, nothing of another run replaced."""

import importlib
import math
from collections import Counter

import pytest
import torch
from exit_statuses import status_of
from tiny_encoder import save_tiny_model
from tiny_examples import WORDS, tiny_questions

from finetuning import multiple_choice, qa
from finetuning.run.seed_runs import seed_summary, seed_table
from tests.finetuning.run.test_command import arguments, forbid_training, results, squad_file, two_stage_files


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch, tmp_path):
    for module in ("loop.training", "run.command"):
        monkeypatch.setattr(f"finetuning.{module}.choose_device", lambda ranks: torch.device("cpu"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), "modernbert", WORDS)


@pytest.fixture
def given(tmp_path, model):
    questions = tiny_questions(26, prefix="t", seed=1)
    train = squad_file(tmp_path / "train.json", questions[:20])
    validation = squad_file(tmp_path / "validation.json", questions[20:])
    return arguments(model, train_file=train, validation_file=validation, report_to="none", save_model="false")


def test_qa_over_seeds_gives_mean_median_and_spread_and_runs_no_seed_twice(tmp_path, given, monkeypatch, capsys):
    assert qa.main([*given, "--seeds", "3", "4"]) == 0
    found = {seed: results(tmp_path / "out" / f"seed-{seed}") for seed in (3, 4)}
    whole = results(tmp_path / "out")
    losses = [found[seed]["eval_loss"] for seed in (3, 4)]
    assert losses[0] != losses[1]
    assert whole["eval_loss_by_seed"] == losses
    assert whole["eval_loss"] == whole["eval_loss_median"] == pytest.approx(sum(losses) / 2)
    assert whole["eval_loss_sd"] == pytest.approx(abs(losses[0] - losses[1]) / math.sqrt(2))
    assert whole["seconds"] == pytest.approx(sum(one["seconds"] for one in found.values()))
    assert (whole["metric"], whole["seeds"]) == ("f1", [3, 4])
    assert whole["preflight_train_examples"] == 20
    assert (tmp_path / "out" / "curves.png").is_file()
    said = capsys.readouterr().out
    row = [line.split() for line in said.splitlines() if line.startswith("eval_loss  ")][-1]
    assert row[1:] == [
        f"{value:.4f}" for value in (whole["eval_loss"], whole["eval_loss"], whole["eval_loss_sd"], *losses)
    ]
    before = (tmp_path / "out" / "all_results.json").read_bytes()
    with monkeypatch.context() as patched:
        forbid_training(patched)
        assert qa.main([*given, "--seeds", "3", "4"]) == 0
        assert (tmp_path / "out" / "all_results.json").read_bytes() == before
        # The same seed alone, elsewhere or in its folder, is the same run.
        assert qa.main([*given, "--seed", "3", "--output_dir", "out/seed-3"]) == 0
    assert qa.main([*given, "--seeds", "5", "3", "4"]) == 0
    assert results(tmp_path / "out")["eval_loss_by_seed"][1:] == losses


def test_rows_checkpoint_and_world_are_made_once_for_all_seeds(given, monkeypatch):
    calls = Counter()
    for place in (
        *(
            "recipes.questions.qa_run.prepare",
            "recipes.questions.qa_run.open_world",
            "model.checkpoint_files.source_config",
        ),
        *("model.checkpoint_files.open_tokenizer", "run.starting_point.weights_digest"),
    ):
        count_calls(monkeypatch, calls, f"finetuning.{place}")
    assert qa.main([*given, "--seeds", "3", "4"]) == 0
    assert dict(calls) == dict.fromkeys(calls, 1)
    assert len(calls) == 5


def test_the_chain_opens_a_checkpoint_once_for_both_stages_and_all_seeds(tmp_path, model, monkeypatch):
    calls = Counter()
    for place in (
        "model.checkpoint_files.source_config",
        "model.checkpoint_files.open_tokenizer",
        "run.starting_point.weights_digest",
    ):
        count_calls(monkeypatch, calls, f"finetuning.{place}")
    files = two_stage_files(tmp_path)
    given = arguments(model, **files, chain="true", report_to="none", save_model="false")
    assert multiple_choice.main([*given, "--seeds", "3", "4"]) == 0
    assert set(calls.values()) == {1}


@pytest.mark.parametrize("seeds", [["3"], ["3", "4"]])
def test_the_rows_of_a_run_are_hashed_once(given, monkeypatch, seeds):
    calls = Counter()
    count_calls(monkeypatch, calls, "finetuning.run.command.run_identity")
    count_calls(monkeypatch, calls, "finetuning.loop.training.run_identity")
    assert qa.main([*given, "--seeds", *seeds]) == 0
    assert dict(calls) == {"finetuning.run.command.run_identity": len(seeds)}


def count_calls(monkeypatch, calls, place):
    """Count the calls of the function at `place` (a dotted name), which is still called."""
    module, _, name = place.rpartition(".")
    original = getattr(importlib.import_module(module), name)

    def counted(*some, **named):
        calls[place] += 1
        return original(*some, **named)

    monkeypatch.setattr(place, counted)


def test_a_summary_never_takes_the_place_of_another_run(tmp_path, given, capsys):
    assert qa.main(given) == 0
    alone = (tmp_path / "out" / "all_results.json").read_bytes()
    assert qa.main([*given, "--seeds", "3", "4"]) == 2
    assert "holds the results of a run of one seed" in capsys.readouterr().err
    assert (tmp_path / "out" / "all_results.json").read_bytes() == alone
    assert qa.main([*given, "--seeds", "3", "4", "--resume_from_checkpoint", "false"]) == 0
    assert qa.main(given) == 2  # and one run not that of a summary
    assert "holds the results of several seeds (those of --seeds: 3, 4)" in capsys.readouterr().err
    assert status_of(qa.main, [*given, "--seeds", "3", "3"]) == 2
    assert "--seeds [3, 3]: name each once" in capsys.readouterr().err


def test_the_chain_over_seeds_has_curves_of_both_stages(tmp_path, model):
    files = two_stage_files(tmp_path)
    given = arguments(model, **files, chain="true", report_to="none", save_model="false")
    assert multiple_choice.main([*given, "--seeds", "3", "4"]) == 0
    whole = results(tmp_path / "out")
    each = [results(tmp_path / "out" / f"seed-{seed}")["eval_exact_match_chain"] for seed in (3, 4)]
    assert whole["eval_exact_match_chain_by_seed"] == each
    assert whole["eval_exact_match_chain"] == pytest.approx(sum(each) / 2)
    for stage in ("multiple_choice", "qa"):
        assert (tmp_path / "out" / f"curves_{stage}.png").is_file()
    assert (tmp_path / "out" / "seed-4" / "prediction.csv").is_file()


def test_collapsed_seeds_count_and_those_without_a_score_are_named():
    facts = {"metric": "accuracy", "seconds": 2.0, "train_samples_per_second": 10.0}
    found = [
        {"status": "done", "eval_accuracy": 0.8, **facts},
        {"status": "collapsed", "reason": "one answer", "eval_accuracy": 0.5, **facts},
        {"status": "not_finite", "reason": "nan", "eval_accuracy": None, **facts},
    ]
    whole = seed_summary([7, 8, 9], found)
    assert whole["eval_accuracy"] == pytest.approx(0.65)
    assert whole["eval_accuracy_by_seed"][:2] == [0.8, 0.5]
    assert (whole["status"], whole["failed_seeds"]) == ("collapsed", [8, 9])
    assert whole["reason"] == "seed 8: one answer; seed 9: nan"
    assert (whole["seconds"], whole["train_samples_per_second"]) == (6.0, 10.0)
    table = seed_table("three", [7, 8, 9], found)
    assert "FAILED (not_finite) seed 9: nan" in table
    assert "seed 9" in table.splitlines()[2]
