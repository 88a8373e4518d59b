"""Fine-tuned models on the hub: each seed's branch, each task's repository, cards with measured scores."""

import json
import time

import pytest
from huggingface_hub import ModelCard, constants
from servers.hub_server import hub_server, variables_of
from tiny_examples import reviews, write_reviews, write_tiny_model

from finetuning import classification
from finetuning.recipes.options.classification import ClassificationOptions
from finetuning.run.pushing import SavedModel, models_of, push_after_run
from launch.push import main as push

NAME = "lab/reviews"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between tries
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        for name, value in variables_of(server, tmp_path / "hub-cache").items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def arguments(tmp_path):
    options = {
        "model_name_or_path": write_tiny_model(tmp_path / "model"),
        "train_file": write_reviews(tmp_path / "train.json", reviews(160, seed=1)),
        "validation_file": write_reviews(tmp_path / "validation.json", reviews(37, seed=2)),
        "num_train_epochs": 4,
        "learning_rate": 0.01,
        "global_batch_rows": 16,
        "report_to": "none",
        "output_dir": tmp_path / "run",
        "push_to_hub": "true",
        "hub_model_id": NAME,
        "hub_license": "mit",
    }
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def test_a_run_pushes_its_best_model_with_a_card_of_what_was_measured(hub, arguments, tmp_path, capsys):
    assert classification.main(arguments) == 0
    assert f"1 commit made: https://huggingface.co/{NAME}" in capsys.readouterr().out
    best, there = tmp_path / "run" / "best", hub.files(NAME)
    assert {path.name for path in best.iterdir()} == there.keys() - {".gitattributes"}
    assert there["model.safetensors"] == (best / "model.safetensors").read_bytes()
    card = ModelCard(there["README.md"].decode())
    assert (card.data.pipeline_tag, card.data.license) == ("text-classification", "mit")
    assert card.data.base_model is None, "it was a folder of this machine"
    measured = json.loads((tmp_path / "run" / "all_results.json").read_text())
    scores = {score.metric_type: score for score in card.data.eval_results}
    assert scores["accuracy"].metric_value == pytest.approx(measured["eval_accuracy"])
    assert scores["accuracy"].dataset_split == "validation"
    assert f'AutoModelForSequenceClassification.from_pretrained("{NAME}")' in card.text
    assert "transformers 5" in card.text
    assert str(tmp_path) not in str(card)

    assert classification.main(arguments) == 0
    assert "nothing to push" in capsys.readouterr().out
    hub.failing = [("/refs", 503)] * 99
    assert classification.main(arguments) == 1
    assert "error: the run is done, and not all of it was pushed: " in capsys.readouterr().err


def test_each_seed_is_a_branch_and_main_the_first(hub, arguments, tmp_path):
    assert classification.main([*arguments, "--seeds", "5", "3"]) == 0
    for branch, seed in (("seed-5", 5), ("seed-3", 3), ("main", 5)):
        own = (tmp_path / "run" / f"seed-{seed}" / "best" / "model.safetensors").read_bytes()
        assert hub.files(NAME, branch)["model.safetensors"] == own
    assert f'"{NAME}", revision="seed-3"' in hub.files(NAME, "seed-3")["README.md"].decode()


def model(folder, status="done"):
    (folder / "best").mkdir(parents=True)
    (folder / "best" / "config.json").write_text("{}")
    (folder / "best" / "model.safetensors").write_bytes(str(folder).encode())
    results = {"schema_version": 1, "status": status, "metric": "accuracy"}
    (folder / "all_results.json").write_text(json.dumps(results))
    return folder / "best"


def test_tasks_and_seeds_are_told_by_their_folders(tmp_path):
    for place in ("rte/seed-1", "rte/seed-0", "mnli/seed-0", "other/seed-9"):
        model(tmp_path / place)
    found = [(one.task, one.seed) for one in models_of(tmp_path, seeds=[1, 0], tasks=["rte", "mnli"])]
    assert found == [("mnli", 0), ("rte", 1), ("rte", 0)]
    assert len(models_of(tmp_path)) == 4
    assert models_of(tmp_path / "rte" / "seed-1") == [SavedModel(tmp_path / "rte" / "seed-1" / "best")]


def test_a_run_pushes_no_models_of_other_runs_in_its_folder(hub, tmp_path):
    model(tmp_path)
    model(tmp_path / "seed-7")
    options = ClassificationOptions(push_to_hub=True, hub_model_id=NAME)
    push_after_run(options, tmp_path)
    assert sorted(hub.repositories[NAME].branches) == ["main"]
    assert hub.files(NAME)["model.safetensors"] == str(tmp_path).encode()
    push_after_run(ClassificationOptions(push_to_hub=True, hub_model_id="lab/seeds", seeds=[7, 8]), tmp_path)
    assert sorted(hub.repositories["lab/seeds"].branches) == ["main", "seed-7"]


def test_a_task_has_a_repository_and_a_failed_run_none(hub, tmp_path, capsys):
    model(tmp_path / "rte")
    model(tmp_path / "mnli", status="collapsed")
    assert push([str(tmp_path), "--hub_model_id", NAME]) == 0
    assert list(hub.repositories) == [f"{NAME}-rte"]
    assert "best is not pushed: its run ended as collapsed" in capsys.readouterr().out
    assert push([str(tmp_path / "mnli"), "--hub_model_id", NAME]) == 0
    assert capsys.readouterr().out.endswith("not one run ended well: nothing is pushed\n")


def test_a_model_that_is_not_kept_cannot_be_pushed():
    with pytest.raises(ValueError, match="--push_to_hub and --save_model false: there would be no model"):
        ClassificationOptions(push_to_hub=True, hub_model_id=NAME, save_model=False)
