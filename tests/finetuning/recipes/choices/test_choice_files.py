"""Multiple-choice files: every layout, and the recipe on any number of choices."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_encoder import FAMILIES, tiny_model, tiny_tokenizer
from tiny_examples import WORDS, tiny_choices

from finetuning.examples.batches import batch_shape
from finetuning.examples.recipe import FinetuningOptions
from finetuning.loop.evaluation import evaluate
from finetuning.loop.training import finetune, open_engine
from finetuning.recipes.choices.choice_files import ChoiceQuestion, choices_from_rows, has_labels, read_choices
from finetuning.recipes.choices.recipe import ChoiceRecipe, cut_sizes, encode_choices

TOKENIZER = tiny_tokenizer(WORDS)
OPTIONS = FinetuningOptions(report_to="none", bf16="false", learning_rate=5e-3, global_batch_rows=16)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Tiny models gain nothing from a second thread, and lose much on a busy machine."""
    monkeypatch.setattr("finetuning.loop.training.choose_device", lambda ranks: torch.device("cpu"))


def write(path, content):
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def model_of(recipe, family="modernbert"):
    return tiny_model(recipe, family, len(TOKENIZER), seed=3)


def scored(recipe, model, name="validation", batch_rows=8):
    engine = open_engine(model, OPTIONS, batch_shape(OPTIONS, 1))
    return evaluate(recipe, engine, recipe.evaluation_sets[name], batch_rows=batch_rows)


def test_plain_rows(tmp_path):
    row = {"id": "a", "context": "c", "question": "q ?", "choices": ["x", "y", "z"], "label": 2}
    expected = ChoiceQuestion("a", ("c",) * 3, ("q ? x", "q ? y", "q ? z"), 2, ("x", "y", "z"))
    assert read_choices(write(tmp_path / "f.json", [row])) == [expected]
    assert read_choices(write(tmp_path / "g.json", [{**row, "label": None}])) == [replace(expected, label=None)]


def test_plain_rows_may_name_the_right_choice_by_its_text_and_lack_an_id(tmp_path):
    row = {"context": "c", "question": "q ?", "choices": ["x", "y", "z"], "answer": " z"}
    expected = ChoiceQuestion("0", ("c",) * 3, ("q ? x", "q ? y", "q ? z"), 2, ("x", "y", "z"))
    assert read_choices(write(tmp_path / "f.json", [row])) == [expected]
    assert read_choices(write(tmp_path / "f.json", [{**row, "label": None}])) == [expected]
    assert read_choices(write(tmp_path / "f.json", [{**row, "label": 1}]))[0].label == 1
    assert read_choices(write(tmp_path / "f.json", [{**row, "answer": None}]))[0].label is None
    for fields, message in (
        ({"answer": "w"}, "entry 0: the answer 'w' is not one of the choices"),
        ({"answerKey": "A"}, "entry 0: 'answerKey' is a letter, but the choices have none: write 'answer'"),
        ({"context": 3}, "entry 0: 'context' is int"),
    ):
        with pytest.raises(ValueError, match=message):
            read_choices(write(tmp_path / "g.json", [{**row, **fields}]))
    del row["context"]
    with pytest.raises(ValueError, match=r"entry 0 is not a known layout \(it has no 'context'\)"):
        read_choices(write(tmp_path / "g.json", [row]))
    with pytest.raises(ValueError, match=r"entry 1 is not a known layout \(it is int, not an object\)"):
        read_choices(write(tmp_path / "g.json", [{**row, "context": "c"}, 1]))


def test_c3_and_dream_count_their_choices(tmp_path):
    content = [
        [["one", "two"], [{"question": "q", "choice": ["x", "y"], "answer": "y"}], "1"],
        [
            ["three"],
            [{"question": "r", "choice": ["x", "y", "z"], "answer": "x"}, {"question": "s", "choice": ["u", "v"]}],
            "2",
        ],
    ]
    found = read_choices(write(tmp_path / "f.json", content))
    assert [(one.id, one.label, len(one.seconds)) for one in found] == [("1-0", 1, 2), ("2-0", 0, 3), ("2-1", None, 2)]
    assert found[0].firsts[0] == "one\ntwo"
    with pytest.raises(ValueError, match="1 of 3 questions have no label"):
        has_labels(found, "f")
    content[0][1][0]["answer"] = "w"
    with pytest.raises(ValueError, match="the answer 'w' of question 0 is not one of its choices"):
        read_choices(write(tmp_path / "g.json", content))


def test_c3_and_dream_as_datasets_has_them_are_those_of_the_files(tmp_path):
    asked = [
        {"question": "q", "choice": ["x", "y"], "answer": "y"},
        {"question": "r", "choice": ["u", "v", "w"], "answer": "u"},
    ]
    file = read_choices(write(tmp_path / "f.json", [[["one", "two"], asked, "m1"]]))
    c3 = {"documents": ["one", "two"], "document_id": "m1", "questions": {k: [a[k] for a in asked] for k in asked[0]}}
    assert choices_from_rows([c3], "c3") == choices_from_rows([{**c3, "questions": asked}], "c3") == file
    dream = [{"id": i, "dialogue_id": "m1", "dialogue": ["one", "two"], **one} for i, one in enumerate(asked)]
    assert choices_from_rows(dream, "dream") == file


@pytest.mark.parametrize("number", ["Infinity", "1e999", "NaN", "0.5", '"m1-0"'])
def test_a_number_of_a_dream_question_that_is_not_whole_is_refused(tmp_path, number):
    row = f'{{"id": {number}, "dialogue_id": "m1", "dialogue": ["one"], "question": "q", "choice": ["x", "y"]}}'
    (tmp_path / "f.jsonl").write_text(row, encoding="utf-8")
    with pytest.raises(ValueError, match=r"entry 0: 'id' is .* a whole number is expected"):
        read_choices(tmp_path / "f.jsonl")


def test_commonsense_qa_as_released_and_as_rows(tmp_path):
    stem = {"stem": "q", "choices": [{"label": letter, "text": text} for letter, text in zip("AB", "xy", strict=True)]}
    expected = ChoiceQuestion("a", ("q", "q"), ("x", "y"), 1, ("A", "B"))
    lines = tmp_path / "f.jsonl"
    lines.write_text(json.dumps({"id": "a", "answerKey": "B", "question": stem}) + "\n", encoding="utf-8")
    assert read_choices(lines) == [expected]
    row = {"id": "a", "question": "q", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": ""}
    assert read_choices(write(tmp_path / "g.json", [row])) == [replace(expected, label=None)]


def test_swag_endings(tmp_path):
    file = tmp_path / "f.csv"
    file.write_text(",sent1,sent2,ending0,ending1,label\n7,s,t,x,y,1\n8,s,,x,y,\n", encoding="utf-8")
    first, second = read_choices(file)
    assert first == ChoiceQuestion("7", ("s", "s"), ("t x", "t y"), 1, ("0", "1"))
    assert (second.seconds, second.label) == (("x", "y"), None)


def test_two_stage_paragraphs(tmp_path):
    contexts = write(tmp_path / "context.json", ["zero", "one", "two"])
    row = {"id": "a", "question": "q", "paragraphs": [2, 0], "relevant": 0}
    file = write(tmp_path / "f.json", [row])
    assert read_choices(file, context_file=contexts) == [
        ChoiceQuestion("a", ("q", "q"), ("two", "zero"), 1, ("2", "0"))
    ]
    with pytest.raises(ValueError, match="--context_file"):
        read_choices(file)
    with pytest.raises(ValueError, match=r"relevant paragraph 1 is not one of its paragraphs \[2, 0\]"):
        read_choices(write(tmp_path / "g.json", [{**row, "relevant": 1}]), context_file=contexts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"id": "a"}], "entry 0 is not a known layout"),
        ({"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]}, "known layout .it has no 'choices'"),
        ([], "no questions"),
        ([{"id": "a", "context": "c", "question": "q", "choices": ["x"], "label": 0}], "give at least 2"),
        ([{"id": "a", "context": "c", "question": "q", "choices": ["x", "y"], "label": 2}], "its choices are 0 to 1"),
        ([{"id": "a", "context": "c", "question": "q", "choices": ["x", "y"], "label": 0}] * 2, "id given more than"),
        ([{"id": "a", "context": "c", "question": "q", "choices": "xyz", "label": 0}], "'xyz'; a list of texts"),
        (
            [{"id": "a", "context": "c", "question": "q", "choices": ["x", {"text": "y"}], "label": 0}],
            "choice .* not a text",
        ),
        ([{"id": "a", "context": None, "question": "q", "choices": ["x", "y"], "label": 0}], "'context' is NoneType"),
        (
            [[["a line"], [{"question": "q", "choice": ["x", None], "answer": "x"}], "d"]],
            "the choice None is not a text",
        ),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_choices(write(tmp_path / "f.json", content))
    assert "f.json" in str(caught.value)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(2, 60))
def test_the_longer_text_is_cut_first(first, second, room):
    kept = cut_sizes(first, second, room)
    assert sum(kept) == min(first + second, room)
    assert kept[0] <= first
    assert kept[1] <= second
    assert min(kept) >= min(first, second, room // 2)


def test_rows_keep_their_limit_and_count_what_was_cut():
    questions = [ChoiceQuestion("a", ("old " * 30,) * 2, ("red", "blue " * 30), 0, ("0", "1"))]
    (feature,), counts = encode_choices(questions, TOKENIZER, max_seq_length=16)
    assert [len(ids) for ids in feature["input_ids"]] == [16, 16]
    assert (counts.questions, counts.choices, counts.cut) == (1, 2, 2)
    assert "red" in TOKENIZER.convert_ids_to_tokens(feature["input_ids"][0])


@pytest.mark.parametrize("family", FAMILIES)
def test_permuting_the_choices_permutes_the_prediction(family):
    questions = tiny_choices(21)
    turned = [
        replace(
            one,
            seconds=one.seconds[::-1],
            names=one.names[::-1],
            label=None if one.label is None else len(one.seconds) - 1 - one.label,
        )
        for one in questions
    ]
    recipe = ChoiceRecipe({"validation": questions, "turned": turned}, TOKENIZER, max_seq_length=32)
    model = model_of(recipe, family)
    plain, permuted = scored(recipe, model), scored(recipe, model, "turned")
    for name, one in plain.predictions.items():
        assert permuted.predictions[name]["name"] == one["name"]
        assert permuted.predictions[name]["logits"] == pytest.approx(one["logits"][::-1], abs=1e-5)
    assert permuted.scores["accuracy"] == plain.scores["accuracy"]


def test_scores_depend_on_neither_batch_size_nor_the_company_of_questions_with_more_choices():
    questions = tiny_choices(21)
    recipe = ChoiceRecipe({"validation": questions}, TOKENIZER, max_seq_length=32)
    model = model_of(recipe)
    plain = scored(recipe, model)
    for batch_rows in (1, 5, 64):
        again = scored(recipe, model, batch_rows=batch_rows)
        for name, one in plain.predictions.items():
            assert again.predictions[name]["choice"] == one["choice"]
            assert again.predictions[name]["logits"] == pytest.approx(one["logits"], abs=1e-5)
    few = [one for one in questions if len(one.seconds) == 2]
    alone = ChoiceRecipe({"validation": few}, TOKENIZER, max_seq_length=32)
    for name, one in scored(alone, model).predictions.items():
        assert one["logits"] == pytest.approx(plain.predictions[name]["logits"], abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_choices_give_finite_losses_and_gradients(family):
    questions = [
        ChoiceQuestion("a", ("", ""), ("", ""), 0, ("0", "1")),
        ChoiceQuestion("b", ("red",) * 4, ("", "blue", "", "old"), 2, tuple("0123")),
    ]
    recipe = ChoiceRecipe({"train": questions, "validation": questions}, TOKENIZER, max_seq_length=32)
    model = model_of(recipe, family)
    batch = recipe.collate(recipe.train_features)
    outputs = model(**{name: batch[name] for name in recipe.model_inputs})
    loss = recipe.measure(outputs, batch)["loss"]
    assert torch.isfinite(loss).all()
    assert loss[0].item() == pytest.approx(math.log(2), abs=1e-5)  # two equal choices, and no third or fourth
    loss.sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in model.parameters() if one.grad is not None)


def test_the_validation_file_scores_the_same_through_the_test_path():
    questions = tiny_choices(21)
    blind = [replace(one, label=None) for one in questions]
    recipe = ChoiceRecipe({"validation": questions, "test": blind}, TOKENIZER, max_seq_length=32, unlabelled=["test"])
    model = model_of(recipe)
    validation, test = scored(recipe, model), scored(recipe, model, "test")
    assert test.predictions == validation.predictions
    assert test.scores == {}
    examples = recipe.evaluation_sets["validation"].examples
    assert recipe.score(test.predictions, examples)["accuracy"] == validation.scores["accuracy"]


def test_it_learns_to_match(tmp_path):
    recipe = ChoiceRecipe(
        {"train": tiny_choices(160, seed=1, prefix="t"), "validation": tiny_choices(50, seed=2)},
        TOKENIZER,
        max_seq_length=24,
    )
    options = replace(OPTIONS, num_train_epochs=20, learning_rate=1e-2)
    result = finetune(recipe, model_of(recipe), options)
    assert result.status == "done"
    assert result.scores["eval_accuracy"] > recipe.majority_score(recipe.evaluation_sets["validation"].examples) + 0.2
    recipe.write(result.predictions["validation"], recipe.evaluation_sets["validation"], tmp_path)
    assert (tmp_path / "prediction.csv").read_text("utf-8").startswith("id,choice,name\nc0,")


def test_a_model_that_always_takes_the_first_choice_scores_the_share_of_first_labels():
    questions = [replace(one, label=0) for one in tiny_choices(6)]
    recipe = ChoiceRecipe(
        {"validation": [*questions[:4], replace(questions[4], label=1)]}, TOKENIZER, max_seq_length=24
    )
    assert recipe.majority_score(recipe.evaluation_sets["validation"].examples) == 0.8


@pytest.mark.parametrize(
    ("file", "questions", "choices"),
    [
        ("c3/c3-m-dev.json.gz", 1991, {2, 3, 4}),
        ("c3/c3-d-dev.json.gz", 1825, {3, 4}),
        ("dream/dev.json.gz", 2040, {3}),
        ("commonsenseqa/dev_rand_split.jsonl.gz", 1221, {5}),
    ],
)
def test_real_files_as_their_descriptions_count_them(real_data, file, questions, choices):
    found = read_choices(real_data / file)
    assert len(found) == questions
    assert {len(one.seconds) for one in found} == choices
    assert has_labels(found, file)
