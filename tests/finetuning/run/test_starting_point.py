"""Recipes that start from models in a store and in branches of the hub, and predictions with such a model."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from s3_server import s3_server
from servers.hub_server import StoredRepository, hub_server
from tiny_examples import reviews, write_reviews, write_tiny_model

from finetuning import classification, load
from finetuning.run.starting_point import open_start
from finetuning.sweep.options import state_of
from finetuning.sweep.sweep import make_sweep
from launch.predict import main as predict
from runtime.hub import hub_is_reachable
from runtime.model_places import forget_places
from runtime.stores.folders import put_folder
from runtime.stores.store import Store

NAME = "lab/base@v2"
ADDRESS = "s3://bucket/runs/base/series/annealed-1000"


@pytest.fixture
def places(monkeypatch, tmp_path):
    """A hub and a store that have one tiny model, and an empty cache."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_tiny_model(tmp_path / "model")
    with hub_server() as hub, s3_server() as server:
        hub.meet(monkeypatch, tmp_path / "hub cache")
        server.meet(monkeypatch)
        hub_is_reachable.cache_clear()
        forget_places()
        repository = hub.repositories["lab/base"] = StoredRepository(private=False)
        repository.commit("main", {"README.md": b"x"}, "first")
        repository.commit("v2", {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}, "second")
        put_folder(Store("s3://bucket/runs/base"), tmp_path / "model", "series/annealed-1000")
        yield hub, server
    hub_is_reachable.cache_clear()


def arguments(folder, **options):
    given = {
        "train_file": write_reviews(folder / "train.json", reviews(64, seed=1)),
        "validation_file": write_reviews(folder / "validation.json", reviews(17, seed=2)),
        "num_train_epochs": 1,
        "global_batch_rows": 16,
        "report_to": "none",
        **options,
    }
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def results_of(folder):
    return json.loads((folder / "all_results.json").read_text())


def test_a_recipe_starts_from_a_branch_and_from_an_address_as_from_the_folder(places, tmp_path, capsys):
    found = {}
    for place in (str(tmp_path / "model"), NAME, ADDRESS):
        output = tmp_path / f"run {len(found)}"
        assert classification.main(arguments(tmp_path, model_name_or_path=place, output_dir=output)) == 0
        found[place] = results_of(output)
        assert found[place]["model"] == place
    told = capsys.readouterr().err
    assert told.count("fetching") == 2
    assert len({result["decided_by"]["weights"] for result in found.values()}) == 1
    assert len({result["eval_loss"] for result in found.values()}) == 1


def test_a_run_is_recognised_by_the_content_of_its_branch(places, tmp_path, capsys):
    hub, _ = places
    given = arguments(tmp_path, model_name_or_path=NAME, output_dir=tmp_path / "run")
    assert classification.main(given) == 0
    shutil.rmtree(tmp_path / "cache")
    capsys.readouterr()
    assert classification.main(given) == 0
    told = capsys.readouterr()
    assert "finished before, not run again" in told.out
    assert f"fetching {NAME}" in told.err
    write_tiny_model(tmp_path / "other", seed=1)
    other = {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    hub.repositories["lab/base"].commit("v2", other, "third")
    assert classification.main(given) == 2
    assert "(weights: " in capsys.readouterr().err


def test_what_is_fine_tuned_is_loaded_and_predicts_from_where_it_was_copied(places, tmp_path, capsys):
    _, server = places
    given = arguments(tmp_path, model_name_or_path=tmp_path / "model", output_dir=tmp_path / "run", pooling="mean")
    assert classification.main(given) == 0
    best = tmp_path / "run" / "best"
    for path in best.iterdir():
        server.put(f"models/best/{path.name}", path.read_bytes())
    place = "s3://bucket/models/best"
    own, tokenizer = load(best)
    there, _ = load(place)
    inputs = tokenizer("fine lovely film", return_tensors="pt")
    torch.testing.assert_close(there(**inputs).logits, own(**inputs).logits, rtol=0, atol=0)
    options = {"test_file": tmp_path / "validation.json", "output_dir": tmp_path / "predicted"}
    named = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    assert predict(["--model_name_or_path", place, *named]) == 0
    assert results_of(tmp_path / "predicted")["test_accuracy"] == pytest.approx(
        results_of(tmp_path / "run")["eval_accuracy"]
    )
    capsys.readouterr()
    assert predict(["--model_name_or_path", ADDRESS, *named]) == 2
    assert f"--model_name_or_path {ADDRESS} has no recipe.json and no head of a task" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"has no recipe\.json"):
        load(ADDRESS)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lab/base@v3", "lab/base@v3: there is no such branch or commit; there are main, v2"),
        ("lab/base@main", "lab/base@main is no checkpoint: it has no config.json but README.md"),
        ("s3://bucket/runs/base", "s3://bucket/runs/base is no checkpoint: it has no config.json; add the name of one"),
    ],
)
def test_a_model_that_is_not_there_is_refused_before_any_data_are_read(places, tmp_path, capsys, name, said):
    assert classification.main(arguments(tmp_path, model_name_or_path=name, output_dir=tmp_path / "run")) == 2
    assert f"error: --model_name_or_path {said}" in capsys.readouterr().err


def test_a_sweep_knows_its_models_by_their_content(places, tmp_path):
    files = {"train_file": write_reviews(tmp_path / "train.json", reviews(8, seed=1))}
    files["validation_file"] = write_reviews(tmp_path / "validation.json", reviews(8, seed=2))
    grid = {"model_name_or_path": [NAME, ADDRESS, str(tmp_path / "model")]}
    cells = make_sweep({"recipe": "classification", "base": files, "grid": grid}).cells
    named = {name: state for cell in cells for name, state in cell.files.items() if name in grid["model_name_or_path"]}
    assert named == dict.fromkeys(grid["model_name_or_path"], state_of(str(tmp_path / "model")))
    wrong = {"model_name_or_path": ["lab/base@v3"]}
    with pytest.raises(ValueError, match=r"lab/base@v3: there is no such branch"):
        make_sweep({"recipe": "classification", "base": files, "grid": wrong})


def test_a_folder_with_an_at_sign_is_a_folder(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lab").mkdir()
    shutil.copytree("model", NAME)
    assert open_start(NAME).digest == open_start("model").digest
    assert not (tmp_path / "cache").exists()
