"""The command from its files to its model: trained, evaluated, predicted, resumed, with several seeds, in a sweep."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from exit_statuses import status_of
from tiny_encoder import save_tiny_model
from tiny_examples import WORDS, tiny_sentences, write_conllu, write_rows
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from finetuning import load, token_classification
from finetuning.recipes.options.token_classification import TokenOptions
from finetuning.recipes.tokens.sentences import TaggedSentence
from finetuning.run.command import for_small_world
from finetuning.sweep.sweep import make_sweep
from launch import predict
from shards.small_world.world import WorldSizes, write_small_world


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch, tmp_path):
    for module in ("loop.training", "run.command"):
        monkeypatch.setattr(f"finetuning.{module}.choose_device", lambda ranks: torch.device("cpu"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), "bert", WORDS)


def arguments(model, **values):
    shared = {
        "model_name_or_path": model,
        "output_dir": "out",
        "num_train_epochs": 3,
        "max_seq_length": 32,
        "doc_stride": 8,
        "bf16": "false",
        "global_batch_rows": 8,
        "learning_rate": 1e-2,
        "report_to": "none",
    }
    return [part for name, value in {**shared, **values}.items() for part in (f"--{name}", str(value))]


def results(directory):
    return json.loads((directory / "all_results.json").read_text("utf-8"))


def files(**more):
    return {
        "train_file": write_conllu(Path("train.conllu"), tiny_sentences(48, prefix="t", seed=1, **more)),
        "validation_file": write_conllu(Path("validation.conllu"), tiny_sentences(15, prefix="v", seed=2, **more)),
    }


def test_it_trains_writes_and_scores_its_own_model_the_same_again(tmp_path, model, capsys):
    given = files()
    blind = write_conllu(Path("blind.conllu"), tiny_sentences(15, prefix="v", seed=2), tagged=False)
    assert token_classification.main(arguments(model, **given, test_file=blind)) == 0
    found = results(tmp_path / "out")
    assert found["status"] == "done"
    assert found["metric"] == "accuracy"
    assert found["eval_accuracy"] > 0.8
    assert "test_accuracy" not in found
    assert "eval_f1" not in found
    assert found["preflight_validation_overlong_share"] == 3 / 15
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"predictions.json", "predictions.csv", "journal.jsonl", "curves.png", "best", "validation"} <= names
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))
    assert predictions == json.loads((tmp_path / "out" / "validation" / "predictions.json").read_text("utf-8"))
    assert [len(tags) for tags in predictions.values()] == [len(one.words) for one in tiny_sentences(15, seed=2)]
    best = str(tmp_path / "out" / "best")
    again = arguments(best, validation_file=given["validation_file"], num_train_epochs=0, output_dir="again")
    assert token_classification.main(again) == 0
    second = results(tmp_path / "again")
    for name in ("accuracy", "loss"):
        assert second[f"eval_{name}"] == pytest.approx(found[f"eval_{name}"], abs=1e-6)
    assert "all of it from the checkpoint" in capsys.readouterr().out
    told = ["--model_name_or_path", best, "--test_file", blind, "--output_dir", "predicted", "--bf16", "false"]
    assert predict.main(told) == 0
    assert json.loads((tmp_path / "predicted" / "predictions.json").read_text("utf-8")) == predictions
    assert predict.main([*told, "--label_column", "x"]) == 2
    assert "--label_column x does nothing" in capsys.readouterr().err
    card = (tmp_path / "out" / "best" / "README.md").read_text("utf-8")
    assert "pipeline_tag: token-classification" in card
    assert "AutoModelForTokenClassification.from_pretrained" in card


def test_plain_transformers_and_its_pipeline_read_the_model(tmp_path, model):
    """Both see what the recipe saw: short sentences, in one window, with the same tags by name."""
    given = files(entities=True, long=False)
    assert token_classification.main(arguments(model, **given)) == 0
    assert results(tmp_path / "out")["metric"] == "f1"
    assert results(tmp_path / "out")["eval_f1"] > 0.8
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))
    plain, report = AutoModelForTokenClassification.from_pretrained(tmp_path / "out/best", output_loading_info=True)
    assert not any(report.values())
    assert plain.config.label2id == {"B-thing": 0, "I-thing": 1, "O": 2}
    assert plain.config.id2label == {0: "B-thing", 1: "I-thing", 2: "O"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out/best")
    tag = pipeline("token-classification", model=plain, tokenizer=tokenizer, device="cpu", ignore_labels=[])
    for one in tiny_sentences(15, prefix="v", seed=2, entities=True, long=False):
        assert [word["entity"] for word in tag(one.text)] == predictions[one.id]
    assert len({tuple(tags) for tags in predictions.values()}) > 1 or set(predictions["v0"]) == {
        "O",
        "B-thing",
        "I-thing",
    }
    own, _ = load(tmp_path / "out/best")
    assert type(own).__name__ == "BertForTokenClassification"


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(tmp_path, model, monkeypatch):
    given = {**files(), "learning_rate": 2e-3}
    assert token_classification.main(arguments(model, **given)) == 0
    stopped = arguments(model, **given, output_dir="stopped", save_steps=4)
    with monkeypatch.context() as patched:
        patched.setattr("runtime.processes.fault_points._specification", "finetuning.update:9:terminate")
        patched.setattr("runtime.processes.fault_points._passed", Counter())
        assert token_classification.main(stopped) == 75
    assert token_classification.main(stopped) == 0
    first, second = results(tmp_path / "out"), results(tmp_path / "stopped")
    assert second["updates"] == first["updates"]
    assert second["eval_loss"] == first["eval_loss"]
    for name in ("predictions.json", "predictions.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


@pytest.mark.parametrize(("begun", "continued"), [({"amx_bf16": True}, {}), ({}, {"amx_bf16": True})])
def test_an_interrupted_run_keeps_its_precision_whatever_the_processor(
    tmp_path, model, monkeypatch, capsys, begun, continued
):
    whole, given = (
        arguments(model, **files(), output_dir=name, save_steps=4, bf16="auto") for name in ("whole", "stopped")
    )
    with monkeypatch.context() as patched:
        patched.setattr(torch.cpu, "get_capabilities", lambda: begun)
        assert token_classification.main(whole) == 0
        patched.setattr("runtime.processes.fault_points._specification", "finetuning.update:9:terminate")
        patched.setattr("runtime.processes.fault_points._passed", Counter())
        assert token_classification.main(given) == 75
    capsys.readouterr()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: continued)
    assert token_classification.main(given) == 0
    assert "as this run began" in capsys.readouterr().out
    assert results(tmp_path / "stopped")["eval_loss"] == results(tmp_path / "whole")["eval_loss"]


def test_several_seeds_from_scratch_and_a_sweep(tmp_path, model):
    given = files()
    scratch = arguments(model, **given, from_scratch="true", num_train_epochs=1)
    assert token_classification.main([*scratch, "--seeds", "1", "2"]) == 0
    found = results(tmp_path / "out")
    assert len(found["eval_accuracy_by_seed"]) == 2
    assert (tmp_path / "out" / "seed-2" / "predictions.json").is_file()
    content = {"recipe": "token_classification", "base": {"model_name_or_path": model, **given}, "metric": "eval_f1"}
    sweep = make_sweep({**content, "grid": {"learning_rate": [1e-3, 1e-2]}})
    assert [row["doc_stride"] for row in sweep.rows] == [32, 32]
    with pytest.raises(ValueError, match="metric is 'eval_exact_match', not a validation score of token_class"):
        make_sweep({**content, "metric": "eval_exact_match"})
    empty = make_sweep({"recipe": "token_classification", "base": {"model_name_or_path": model}})
    assert empty.rows[0]["max_seq_length"] == 64  # the small world's


def test_odd_sentences_are_counted_scored_and_refused_by_strict(tmp_path, model, capsys):
    odd = [
        TaggedSentence("w", ("\u200b", "red"), ("FILLER", "COLOUR")),
        TaggedSentence("u", ("red", "old"), ("COLOUR", None)),
        TaggedSentence("n", ("red", "old"), ("COLOUR", "NEW")),
        TaggedSentence("e", (), ()),
        TaggedSentence("x", ("red",), (None,)),
    ]
    train = write_rows(tmp_path / "train.jsonl", [*tiny_sentences(20, prefix="t"), *odd[:2], *odd[3:]])
    test = write_rows(tmp_path / "test.jsonl", odd[:4])
    given = arguments(model, train_file=train, validation_file=test, test_file=test, num_train_epochs=1)
    assert token_classification.main(given) == 0
    found = results(tmp_path / "out")
    expected = {
        "train_unlabelled": 2, "train_words_without_tokens": 1, "train_untagged_words": 1, "train_unseen_tags": 0,
        "validation_unlabelled": 1, "validation_examples": 3, "test_examples": 4, "test_without_words": 1,
        "test_unseen_tags": 1, "test_words_without_tokens": 1,
    }  # fmt: skip
    assert {name: found[f"preflight_{name}"] for name in expected} == expected
    assert found["test_accuracy"] == found["eval_accuracy"]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["e"] == []
    out = capsys.readouterr().out
    assert "1 words of test have a tag that is not among those learnt, such as 'NEW': they count as wrong" in out
    assert token_classification.main([*given, "--output_dir", "strict", "--strict", "true"]) == 2
    assert "they count as wrong" in capsys.readouterr().err


def test_entities_of_iob1_are_read_and_noted(tmp_path, model, capsys):
    def iob1(sentences):
        return [
            TaggedSentence(one.id, one.words, tuple(str(tag).replace("B-", "I-") for tag in one.tags))
            for one in sentences
        ]

    train = write_rows(tmp_path / "train.jsonl", iob1(tiny_sentences(24, prefix="t", entities=True)))
    test = write_rows(tmp_path / "test.jsonl", tiny_sentences(6, entities=True, seed=5))
    given = arguments(model, train_file=train, validation_file=test, num_train_epochs=4)
    assert token_classification.main(given) == 0
    assert "entities begin with I-, as in IOB1: they are read as conlleval reads them" in capsys.readouterr().out
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        assert {row["prediction"] for row in csv.DictReader(file)} == {"O", "I-thing"}
    assert results(tmp_path / "out")["eval_f1"] > 0.8  # the same entities, whatever marks their first word


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train_file": "none.conllu"}, "none.conllu: no such file"),
        ({"tag_column": "lemma"}, "the columns of tags of train.conllu are upos and xpos"),
        ({"tag_column": "xpos"}, "the train set has 48 of 48 sentences without a tag"),
        ({"dataset_name": "some/set"}, "--dataset_name and --train_file"),
        (
            {"train_file": "a.conll", "validation_file": "b.bio", "tag_column": "upos"},
            "does nothing with a.conll, b.bio",
        ),
        ({"doc_stride": -1}, "--doc_stride -1"),
    ],
)
def test_what_cannot_be_used_is_refused(model, capsys, change, told):
    assert status_of(token_classification.main, arguments(model, **{**files(), **change})) == 2
    assert told in capsys.readouterr().err


def test_a_validation_set_of_other_tags_is_refused(model, capsys):
    other = write_conllu(Path("entities.conllu"), tiny_sentences(4, entities=True))
    assert status_of(token_classification.main, arguments(model, **{**files(), "validation_file": other})) == 2
    assert "and none of them is the same: check --tag_column and the files" in capsys.readouterr().err


def test_a_head_of_other_tags_is_refused(model, capsys):
    given = files()
    assert token_classification.main(arguments(model, **given, max_steps=1)) == 0
    other = write_conllu(Path("other.conllu"), tiny_sentences(4, entities=True))
    again = arguments("out/best", validation_file=other, num_train_epochs=0, output_dir="again")
    assert token_classification.main(again) == 2
    assert "was made for the tags" in capsys.readouterr().err


def test_without_options_it_runs_on_the_small_world(tmp_path, monkeypatch):
    sizes = WorldSizes(documents=30, names_per_class=40, train=40, validation=20, test=20)
    world = write_small_world("runs/small_world", sizes=sizes)
    words = sorted({word for names in world["names"].values() for name in names for word in name.split()})
    source = save_tiny_model(tmp_path / "known", "bert", words)
    options = for_small_world(TokenOptions(model_name_or_path=source))
    assert (options.max_seq_length, options.learning_rate, options.num_train_epochs) == (64, 1e-3, 8.0)
    monkeypatch.setattr("finetuning.run.command.write_small_world", lambda directory: world)
    given = ["--model_name_or_path", source, "--num_train_epochs", "1", "--bf16", "false", "--report_to", "none"]
    assert token_classification.main(given) == 0
    found = results(tmp_path / "runs/finetuning/token_classification")
    assert {"eval_f1", "test_f1", "test_accuracy", "test_precision", "test_recall"} <= found.keys()
