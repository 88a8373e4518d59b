"""Options that would have no effect with others, or with the data, are refused."""

import json

import pytest
from tiny_examples import WORDS, reviews, tiny_questions, write_reviews, write_tiny_model

from finetuning import classification, multiple_choice, qa
from finetuning.recipes.options.classification import ClassificationOptions
from finetuning.recipes.texts.labelled_text import read_examples


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_context_file_beside_questions_with_their_own_paragraphs(here, capsys):
    (here / "contexts.json").write_text(json.dumps(["one paragraph"]))
    rows = [
        {"id": one.id, "question": one.question, "context": one.context, "answers": [one.answers[0].text]}
        for one in tiny_questions(4)
    ]
    choices = [{**row, "choices": [WORDS[0], WORDS[1]], "label": 0} for row in rows]
    model = write_tiny_model(here / "model")
    for command, content in ((qa, rows), (multiple_choice, choices)):
        (here / "train.json").write_text(json.dumps(content))
        given = ["--train_file", "train.json", "--context_file", "contexts.json", "--model_name_or_path", model]
        assert command.main(given) == 2
        assert "--context_file contexts.json does nothing with questions that have" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["text_column", "text_pair_column", "label_column", "id_column"])
def test_a_column_beside_a_folder_of_texts(here, capsys, column):
    for label in ("good", "bad"):
        (here / "texts" / label).mkdir(parents=True)
        (here / "texts" / label / "1.txt").write_text(label)
    for where in ("--data", "--train_file"):
        with pytest.raises(SystemExit) as ended:
            classification.main([where, "texts", f"--{column}", "body", "--model_name_or_path", "./nowhere"])
        assert ended.value.code == 2
        assert f"--{column} body does nothing with texts, where every text is a file" in capsys.readouterr().err
    table = write_reviews(here / "test.json", reviews(4))
    ClassificationOptions(train_file="texts", test_file=table, **{column: "body"})


def test_the_columns_of_a_folder_with_one_table_are_those_given(here):
    (here / "tables").mkdir()
    write_reviews(here / "tables" / "train.json", [{"body": "a", "label": "x"}, {"body": "b", "label": "y"}])
    found = read_examples("tables", columns=ClassificationOptions(text_column="body").columns)
    assert [one.text for one in found] == ["a", "b"]


def test_a_share_to_hold_out_beside_a_validation_set(here, capsys):
    model = write_tiny_model(here / "model")
    for split in ("train", "validation"):
        write_reviews(here / f"{split}.json", reviews(8, seed=len(split)))
    given = ["--train_file", "train.json", "--validation_file", "validation.json", "--validation_fraction", "0.2"]
    assert classification.main([*given, "--model_name_or_path", model]) == 2
    told = "--validation_fraction 0.2 does nothing with a validation set (train, validation): drop it"
    assert told in capsys.readouterr().err
