"""Token classification as the loop sees it: each word once over all windows, and scores over words and entities."""

import csv
import json

import numpy as np
import pytest
import torch
from tiny_encoder import tiny_model, tiny_tokenizer
from tiny_examples import WORDS, tiny_sentences

from finetuning.examples.collapse import collapse_reason
from finetuning.recipes.questions.windows import Windows
from finetuning.recipes.tokens.recipe import TokenRecipe
from finetuning.recipes.tokens.rows import IGNORED
from finetuning.recipes.tokens.sentences import TaggedSentence, tag_names

TOKENIZER = tiny_tokenizer(WORDS)


def recipe_of(sentences, labels=None):
    windows = Windows(16, 6)
    return TokenRecipe({"test": sentences}, TOKENIZER, windows, labels=labels or tag_names(sentences))


def predicted(recipe, model, batch_rows):
    """Predictions over batches of so many rows, put together as the loop does."""
    evaluation_set = recipe.evaluation_sets["test"]
    parts = []
    with torch.no_grad():
        for start in range(0, len(evaluation_set.features), batch_rows):
            batch = recipe.collate(evaluation_set.features[start : start + batch_rows])
            outputs = model(**{name: batch[name] for name in recipe.model_inputs})
            parts.append(recipe.predict(outputs, batch))
    rows = {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
    return recipe.finish(rows, evaluation_set)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_each_word_is_predicted_where_it_stands_whatever_the_batch(family):
    sentences = tiny_sentences(9)
    recipe = recipe_of(sentences)
    assert recipe.counts["test"].long_sentences == 2
    model = tiny_model(recipe, family, len(TOKENIZER), seed=3).eval()
    found = predicted(recipe, model, 64)
    alone = predicted(recipe, model, 1)
    assert {name: one["tags"] for name, one in found.items()} == {name: one["tags"] for name, one in alone.items()}
    logits_of = {}
    for row in recipe.evaluation_sets["test"].features:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]]), torch.ones(1, len(row["input_ids"]), dtype=torch.long))
        for word, place in zip(row["words"], row["places"], strict=True):
            logits_of[row["example_id"], word] = logits["logits"][0, place]
    for one in sentences:
        best = [recipe.labels[int(logits_of[one.id, word].argmax())] for word in range(len(one.words))]
        assert found[one.id]["tags"] == best
    losses = [
        float(torch.nn.functional.cross_entropy(logits_of[one.id, word], torch.tensor(recipe.labels.index(tag))))
        for one in sentences
        for word, tag in enumerate(one.tags)
    ]
    scores = recipe.score(found, recipe.evaluation_sets["test"].examples)
    assert scores["loss"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_the_loss_of_a_row_is_the_mean_over_its_labels_and_its_weight_their_number():
    recipe = recipe_of([TaggedSentence("a", ("red", "old", "balan"), ("X", None, "Y"))], labels=("X", "Y"))
    (row,) = recipe.evaluation_sets["test"].features
    batch = recipe.collate([row, {**row, "labels": [IGNORED] * 5, "weight": 0}])
    logits = torch.zeros(2, 5, 2)
    logits[0, 1] = torch.tensor([2.0, 0.0])
    measures = recipe.measure({"logits": logits}, batch)
    right, even = torch.log1p(torch.exp(torch.tensor(-2.0))), torch.log(torch.tensor(2.0))
    assert measures["loss"].tolist() == pytest.approx([float(right + even) / 2, 0.0])
    assert measures["accuracy"].tolist() == [0.5, 0.0]
    assert row["weight"] == 2


def test_words_that_no_row_holds_get_the_most_frequent_tag_and_are_scored(tmp_path):
    words, tags = ("red", "\u200b", "\x07", "old", "here"), ("B", "A", "B", "A", None)
    sentences = [TaggedSentence("a", words, tags), TaggedSentence("e", (), ())]
    recipe = recipe_of(sentences, labels=("A", "B"))
    model = tiny_model(recipe, "bert", len(TOKENIZER), seed=1).eval()
    found = predicted(recipe, model, 8)
    assert found["a"]["tags"][1:3] == ["A", "A"]
    assert [chance is None for chance in found["a"]["probabilities"]] == [False, True, True, False, False]
    assert found["e"]["tags"] == []
    found["a"]["tags"][0] = found["a"]["tags"][3] = "A"
    assert recipe.score(found, recipe.evaluation_sets["test"].examples)["accuracy"] == 2 / 4
    recipe.write(found, recipe.evaluation_sets["test"], tmp_path)
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"a": found["a"]["tags"], "e": []}
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["word"] for row in rows] == list(words)
    assert (rows[1]["probability"], rows[1]["prediction"], rows[4]["label"], rows[4]["number"]) == ("", "A", "", "4")


def test_scores_of_entities_leave_out_words_without_a_tag_and_count_unseen_tags_as_wrong():
    sentence = TaggedSentence("a", ("one",) * 5, ("B-x", "I-x", "O", None, "B-new"))
    recipe = recipe_of([sentence], labels=("O", "B-x", "I-x"))
    scores = recipe.score({"a": {"tags": ["B-x", "I-x", "O", "B-x", "B-x"]}}, {"a": sentence})
    assert recipe.metric == "f1"
    assert scores == pytest.approx({"accuracy": 3 / 4, "precision": 0.5, "recall": 0.5, "f1": 0.5})
    assert recipe.majority_score({"a": sentence}) == 0.0
    plain = recipe_of([TaggedSentence("a", ("red", "old", "old"), ("X", "Y", "Y"))])
    assert plain.majority_score(plain.evaluation_sets["test"].examples) == 2 / 3
    assert plain.metric == "accuracy"


def test_a_collapse_is_told_from_text_with_few_entities():
    recipe = recipe_of(tiny_sentences(3, entities=True))
    few = {"a": {"tags": ["O"] * 998 + ["B-thing", "I-thing"]}}
    assert collapse_reason(recipe.predicted_labels(few), 0.7, 0.0) is None
    for constant in ("O", "B-thing"):
        assert collapse_reason(recipe.predicted_labels({"a": {"tags": [constant] * 50}}), 0.1, 0.0)


def test_documents_are_what_sentences_share():
    recipe = recipe_of(tiny_sentences(7))
    assert recipe.evaluation_sets["test"].groups["s6"] == "id ds1"
