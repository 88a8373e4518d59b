"""The text recipe: encoding, padding, class weights, scores, and refusals."""

import numpy as np
import pytest
import torch
from tiny_examples import reviews, write_tiny_model

from finetuning.examples.recipe import EvaluationSet
from finetuning.model.checkpoint_files import load_tokenizer
from finetuning.model.heads import load_headed
from finetuning.recipes.texts.glue_tasks import GLUE_TASKS
from finetuning.recipes.texts.inspection import inspect_texts
from finetuning.recipes.texts.labelled_text import LabelledText, from_records
from finetuning.recipes.texts.recipe import TextRecipe
from finetuning.recipes.texts.rows import TextSettings, class_weights


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokenizer(model_path):
    return load_tokenizer(model_path)


def splits(train=40, validation=13, **extra):
    found = {"train": reviews(train, seed=1), "validation": reviews(validation, seed=2), **extra}
    return {name: from_records(rows, source=name) for name, rows in found.items()}


def recipe_of(tokenizer, examples=None, *, labels=("bad", "good"), metrics=("accuracy",), task=None, **settings):
    return TextRecipe(
        "reviews",
        labels=labels,
        splits=examples or splits(),
        tokenizer=tokenizer,
        settings=TextSettings(**{"max_seq_length": 32, **settings}),
        metrics=metrics,
        task=task,
    )


def predictions_of(recipe, logits):
    evaluation = recipe.evaluation_sets["validation"]
    return recipe.finish({"logits": np.asarray(logits, dtype=float)}, evaluation), evaluation


def test_rows_are_those_of_the_tokenizer(tokenizer):
    recipe = recipe_of(tokenizer)
    rows = reviews(40, seed=1)
    assert [feature["input_ids"] for feature in recipe.train_features] == tokenizer([row["text"] for row in rows])[
        "input_ids"
    ]
    assert [feature["example_id"] for feature in recipe.train_features] == [row["id"] for row in rows]


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_row_scores_the_same_alone_and_beside_longer_ones(tokenizer, model_path, pooling):
    recipe = recipe_of(tokenizer, pooling=pooling)
    model = recipe.build_model(load_headed(model_path, recipe.head).draw(0)).eval()

    def logits(features):
        batch = recipe.collate(features)
        return model(**{name: batch[name] for name in recipe.model_inputs})["logits"]

    together = logits(recipe.train_features)
    alone = torch.cat([logits([feature]) for feature in recipe.train_features])
    assert torch.allclose(together, alone, atol=1e-5)


def test_measures_by_hand(tokenizer):
    recipe = recipe_of(tokenizer, label_smoothing=0.2)
    batch = recipe.collate(recipe.train_features[:2])
    batch["labels"] = torch.tensor([0, 1])
    logits = torch.log(torch.tensor([[0.8, 0.2], [0.6, 0.4]]))
    measured = recipe.measure({"logits": logits}, batch)
    assert measured["accuracy"].tolist() == [1.0, 0.0]
    expected = [-(0.9 * np.log(0.8) + 0.1 * np.log(0.2)), -(0.9 * np.log(0.4) + 0.1 * np.log(0.6))]
    assert measured["loss"].tolist() == pytest.approx(expected)


def test_rare_classes_weigh_as_much_as_frequent_ones():
    examples = [LabelledText(str(i), "a", label="rare" if i < 10 else "frequent") for i in range(100)]
    weights = class_weights(examples)
    assert weights["rare"] * 10 == pytest.approx(weights["frequent"] * 90)
    assert sum(weights[one.label] for one in examples) == pytest.approx(100)


def test_balancing_reaches_the_features_of_train_only(tokenizer):
    examples = {
        "train": [LabelledText(str(i), "a", label="bad" if i < 2 else "good") for i in range(10)],
        "validation": [LabelledText("v", "a", label="bad")],
    }
    recipe = recipe_of(tokenizer, examples, balance_classes=True)
    assert [feature["weight"] for feature in recipe.train_features[:3]] == pytest.approx([2.5, 2.5, 0.625])
    assert recipe.evaluation_sets["validation"].features[0]["weight"] == 1.0
    assert {feature["weight"] for feature in recipe_of(tokenizer, examples).train_features} == {1.0}


def test_scores_join_by_id_not_by_order(tokenizer):
    recipe = recipe_of(tokenizer)
    labels = [recipe.class_of[one.label] for one in recipe.evaluation_sets["validation"].examples.values()]
    predictions, evaluation = predictions_of(recipe, np.eye(2)[labels])
    assert recipe.score(predictions, evaluation.examples)["accuracy"] == 1.0
    shuffled = dict(sorted(predictions.items(), key=lambda item: hash(item[0])))
    assert recipe.score(shuffled, evaluation.examples)["accuracy"] == 1.0
    assert set(recipe.predicted_labels(predictions)) == {"bad", "good"}


def test_a_regression_is_scored_as_sts_b(tokenizer):
    rows = [LabelledText(str(i), "a film", "the film", str(i / 2)) for i in range(8)]
    recipe = recipe_of(
        tokenizer,
        {"train": rows, "validation": rows},
        labels=(),
        metrics=("pearson", "spearmanr"),
        task=GLUE_TASKS["stsb"],
    )
    predictions, evaluation = predictions_of(recipe, [[i * i] for i in range(8)])
    scores = recipe.score(predictions, evaluation.examples)
    assert scores["spearmanr"] == pytest.approx(1.0)
    assert scores["combined_score"] == pytest.approx((scores["pearson"] + 1) / 2)
    assert recipe.metric == "combined_score"
    assert recipe.majority_score(evaluation.examples) == 0.0
    batch = recipe.collate(recipe.train_features)
    assert batch["labels"].dtype == torch.float32
    measured = recipe.measure({"logits": torch.zeros(8, 1)}, batch)
    assert measured["loss"].tolist() == [(i / 2) ** 2 for i in range(8)]
    assert measured["absolute_error"].tolist() == [i / 2 for i in range(8)]


def test_the_majority_score_is_that_of_the_best_constant_answer(tokenizer):
    examples = splits()
    examples["validation"] = [LabelledText(str(i), "a", label="good" if i < 7 else "bad") for i in range(10)]
    assert recipe_of(tokenizer, examples).majority_score(
        recipe_of(tokenizer, examples).evaluation_sets["validation"].examples
    ) == pytest.approx(0.7)
    recipe = recipe_of(tokenizer, examples, metrics=("accuracy", "f1"))
    assert recipe.majority_score(recipe.evaluation_sets["validation"].examples) == pytest.approx((0.7 + 14 / 17) / 2)


def test_files_hold_every_prediction_under_its_id(tokenizer, tmp_path):
    test_rows = [LabelledText(str(i), "a film") for i in (7, 3, 5)]
    examples = {**splits(), "test": test_rows}
    examples = {
        split: [LabelledText(one.example_id, one.text, None, {"bad": "0", "good": "1"}.get(one.label)) for one in rows]
        for split, rows in examples.items()
    }
    recipe = recipe_of(tokenizer, examples, labels=("0", "1"), task=GLUE_TASKS["sst2"])
    evaluation = recipe.evaluation_sets["test"]
    assert not evaluation.labelled
    predictions = recipe.finish({"logits": np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])}, evaluation)
    recipe.write(predictions, evaluation, tmp_path)
    assert (tmp_path / "SST-2.tsv").read_text() == "index\tprediction\n7\t0\n3\t1\n5\t1\n"
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[0] == "id,prediction,label,probability_0,probability_1"
    assert lines[1].startswith("7,0,,0.731059,")


def test_the_same_file_as_validation_and_as_test_gives_the_same_rows(tokenizer):
    """Test files use the same reader: a second one once cost a report ten points."""
    same = reviews(13, seed=2)
    recipe = recipe_of(tokenizer, splits(test=same))
    sets = recipe.evaluation_sets
    assert list(sets["test"].features) == list(sets["validation"].features)
    assert sets["test"].examples == sets["validation"].examples


def test_bad_examples_are_refused(tokenizer):
    good = splits()
    one = good["train"][0]
    cases = {
        "id given more than once": {"train": [*good["train"], one]},
        "which is not a class of the head or of the training set": {
            "validation": [LabelledText("v", "a", label="neutral")]
        },
        "train: 1 of 41 examples have no label": {"train": [*good["train"], LabelledText("x", "a")]},
        "test: 1 of 2 examples have no label": {"test": [one, LabelledText("x", "a")]},
        "validation: 1 of 1 examples have no label": {"validation": [LabelledText("x", "a")]},
    }
    for message, change in cases.items():
        with pytest.raises(ValueError, match=message):
            recipe_of(tokenizer, {**good, **change})
    for task, names_the_option in ((None, True), (GLUE_TASKS["sst2"], False)):
        with pytest.raises(ValueError, match="id given more than once") as caught:
            recipe_of(tokenizer, {**good, "train": [*good["train"], one]}, task=task)
        assert ("--id_column" in str(caught.value)) == names_the_option
    with pytest.raises(ValueError, match="a regression needs a finite number"):
        recipe_of(tokenizer, labels=())


def test_preflight_says_what_misleads(tokenizer):
    examples = splits(test=[{"id": "t0", "text": "the day was fine", "label": "good"}])
    examples["train"] += [
        LabelledText("copy", "the day was fine", label="good"),
        LabelledText("other", "the day was fine", label="bad"),
        LabelledText("long", "a " * 100, label="bad"),
    ]
    found = inspect_texts(recipe_of(tokenizer, examples))
    assert found.figures["preflight_train_test_shared_texts"] == 1
    assert found.figures["preflight_train_contradicting_texts"] == 1
    assert found.figures["preflight_train_overlong_share"] == pytest.approx(1 / 43)
    assert 0.5 <= found.figures["preflight_validation_majority_accuracy"] < 1
    assert found.figures["preflight_test_blank_texts"] == 0
    assert any("both in train and in test" in line for line in found.lines())


def test_blank_texts_are_counted_and_said_aloud(tokenizer):
    examples = splits()
    examples["train"] += [LabelledText("a", " \n", label="bad"), LabelledText("b", "a day", "", label="good")]
    found = inspect_texts(recipe_of(tokenizer, examples))
    assert found.figures["preflight_train_blank_texts"] == 2
    assert "2 of 42 texts of train are blank" in found.warnings
    with pytest.raises(ValueError, match="--strict, and the preflight warns: 2 of 42 texts"):
        found.refuse_if(strict=True)


def test_a_validation_set_that_is_the_test_set_is_said_aloud(tokenizer):
    found = inspect_texts(recipe_of(tokenizer, splits(test=reviews(13, seed=2))))
    assert found.figures["preflight_validation_test_shared_texts"] == len({row["text"] for row in reviews(13, seed=2)})
    assert any("optimistic" in line for line in found.lines())


def test_an_evaluation_set_knows_whether_it_is_labelled(tokenizer):
    recipe = recipe_of(tokenizer, {**splits(), "test": [LabelledText("t", "a")]})
    assert isinstance(recipe.evaluation_sets["test"], EvaluationSet)
    assert not recipe.evaluation_sets["test"].labelled
    assert recipe.evaluation_sets["validation"].labelled


def test_the_score_without_copies_of_training_texts_stands_beside_the_score(tokenizer):
    examples = splits()
    assert len(examples["validation"]) == 13
    copies = [LabelledText(f"copy{i}", one.text, label=one.label) for i, one in enumerate(examples["train"][:7])]
    fresh = [
        LabelledText(f"fresh{i}", f"a very very {one.text} and its", label=one.label) for i, one in enumerate(copies)
    ]
    recipe = recipe_of(tokenizer, {**examples, "validation": [*copies, *fresh]})
    right = [recipe.class_of[one.label] for one in copies]
    wrong = [1 - recipe.class_of[one.label] for one in fresh]
    predictions, evaluation = predictions_of(recipe, np.eye(2)[[*right, *wrong]])
    scores = recipe.score(predictions, evaluation.examples)
    assert scores["accuracy"] == 0.5
    assert scores["accuracy_unseen"] == 0.0
    assert "accuracy_unseen" not in recipe_of(tokenizer, {**examples, "validation": fresh}).score(
        {one.example_id: predictions[one.example_id] for one in fresh},
        {one.example_id: one for one in fresh},
    )
