"""Subsets of a data set are the same in every recipe, for any options and any order of the file."""

import itertools
import random

import pytest
from tiny_examples import tiny_questions

from finetuning.examples.dataset_records import subset
from finetuning.recipes.options.multiple_choice import MultipleChoiceOptions
from finetuning.recipes.options.qa import QAOptions
from finetuning.recipes.options.texts import TextOptions
from finetuning.recipes.questions.sets import read_question_sets
from finetuning.recipes.texts.labelled_text import LabelledText

NAMES = [f"id {number}" for number in range(200)]


def test_smaller_parts_lie_in_larger_ones_in_the_order_of_the_file():
    parts = [subset(NAMES, limit, str) for limit in (1, 7, 50, 199, 200, 999, None)]
    assert [len(part) for part in parts] == [1, 7, 50, 199, 200, 200, 200]
    for smaller, larger in itertools.pairwise(parts):
        assert set(smaller) <= set(larger)
        assert smaller == [name for name in NAMES if name in set(smaller)]


def test_the_order_of_the_file_chooses_nothing():
    shuffled = random.Random(1).sample(NAMES, len(NAMES))
    assert set(subset(shuffled, 20, str)) == set(subset(NAMES, 20, str))


def test_a_file_sorted_by_label_gives_all_labels():
    rows = [LabelledText(str(number), "text", label="bad" if number < 100 else "good") for number in range(200)]
    chosen = subset(rows, 20, lambda one: one.example_id)
    assert {one.label for one in chosen} == {"bad", "good"}


def test_questions_are_chosen_as_texts_are(tmp_path):
    from tests.finetuning.run.test_command import squad_file

    questions = tiny_questions(30, prefix="q")
    file = squad_file(tmp_path / "train.json", questions)
    found = read_question_sets(QAOptions(max_train_samples=8), {"train": file})["train"]
    texts = [LabelledText(one.id, one.question) for one in questions]
    assert [one.id for one in found] == [one.example_id for one in subset(texts, 8, lambda one: one.example_id)]
    assert [one.id for one in found] != [one.id for one in questions[:8]]


@pytest.mark.parametrize("options", [QAOptions, MultipleChoiceOptions, TextOptions])
def test_the_help_says_so(options):
    assert "chosen by a hash" in options.__dataclass_fields__["max_train_samples"].metadata["help"]
