"""Task specifications, scored sets, overlap, views of a task's rows, and per-example records."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_encoder import tiny_config, tiny_tokenizer
from tiny_gap import WORDS, write_choices, write_questions, write_tasks, write_texts

from finetuning.examples.recipe import EvaluationSet
from finetuning.recipes.questions.spans import Candidate
from gap.tasks.kinds.task_data import ReadingOptions, RowOptions, TaskSpec
from gap.tasks.records import calibration_error, cell_metrics, example_records
from gap.tasks.rows import SCORED, cell_view, encode_task, held_out, label_subset, search_view
from gap.tasks.specification import parse_tasks, read_task, spec_text


def encoded(data):
    tokenizer = tiny_tokenizer(WORDS)
    config = tiny_config("bert", len(tokenizer))
    return encode_task(data, tokenizer, config, RowOptions(32, 8))


def test_specifications_are_read_and_written():
    specs = parse_tasks("qa:a/squad.json, glue:sst2,reviews=classification:imdb,qa:x/train.json+x/test.json@500")
    assert [(one.name, one.kind) for one in specs] == [
        ("squad", "qa"), ("sst2", "glue"), ("reviews", "classification"), ("x", "qa"),
    ]  # fmt: skip
    assert [one.max_train_samples for one in specs] == [None, None, None, 500]
    assert [parse_tasks(spec_text(one))[0] for one in specs] == specs


@pytest.mark.parametrize(
    ("folder", "name"),
    [("SQuAD 1.1", "SQuAD-1.1"), ("a[1]", "a-1"), ("v@2", "v-2"), ("a:b=c", "a-b-c"), ("red, blue", "red-blue"),
     ("C++", "C"), ("..x", "x"), ("@", "qa"), ("数据 集", "数据-集")],
)  # fmt: skip
def test_a_folder_of_any_name_is_read_and_its_task_has_a_name_that_can_be_written(tmp_path, folder, name):
    whole = write_tasks(tmp_path)[0].place
    (tmp_path / "other").mkdir()
    place = Path(whole).rename(tmp_path / "other" / folder)
    glue, spec = parse_tasks(f"glue:sst2,qa:{place},")
    assert (spec.name, spec.place, spec.max_train_samples, glue.name) == (name, str(place), None, "sst2")
    assert parse_tasks(spec_text(spec)) == [spec]
    assert len(read_task(spec).train) == 24
    (limited,) = parse_tasks(f"qa:{place}@7")
    assert (limited.place, limited.max_train_samples) == (str(place), 7)


def test_a_folder_named_by_dots_has_the_name_of_the_folder_itself(tmp_path, monkeypatch):
    (tmp_path / "SQuAD").mkdir()
    monkeypatch.chdir(tmp_path / "SQuAD")
    assert [parse_tasks(f"qa:{place}")[0].name for place in (".", "../SQuAD/", "../SQuAD/train.json")] == ["SQuAD"] * 3


@pytest.mark.parametrize("name", ["SQuAD 1.1", "..", "a/b"])
def test_a_given_name_that_no_file_can_bear_is_refused(name):
    with pytest.raises(ValueError, match=f"--tasks: '{re.escape(name)}=qa:x' is not a task; .* with a NAME of letters"):
        parse_tasks(f"glue:sst2,{name}=qa:x")


@pytest.mark.parametrize("text", ["", "qa", "squad:x", "glue:none", "qa:a.json,qa:b/a.json"])
def test_wrong_specifications_are_refused(text):
    with pytest.raises(ValueError, match="--tasks"):
        parse_tasks(text)


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ("glue:sst2", r"--tasks glue:sst2 \(nyu-mll/glue\): .*; name the folder of GLUE's files with --data_dir$"),
        ("qa:nobody/nothing", "--tasks qa:nobody/nothing: .*; write qa:FOLDER or qa:TRAIN.TEST to name files, or save"),
        ("multiple_choice:nobody/nothing", "--tasks multiple_choice:nobody/nothing: .*; write multiple_choice:FOLDER"),
        ("classification:nobody/nothing", "--tasks classification:nobody/nothing: .*; write classification:FOLDER"),
    ],
)
def test_of_a_data_set_that_cannot_be_had_the_options_that_tasks_take_are_named(tmp_path, monkeypatch, spec, remedy):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", unplugged)
    with pytest.raises(ValueError, match=remedy) as refused:
        read_task(parse_tasks(spec)[0])
    assert "train_file" not in str(refused.value)
    assert "dataset_name" not in str(refused.value)


def unplugged(name, configuration):
    raise ConnectionError("no route")


@pytest.mark.parametrize("kind", range(3))
def test_a_folder_gives_training_and_scored_examples(tmp_path, kind):
    data = read_task(write_tasks(tmp_path)[kind])
    assert (len(data.train), len(data.scored)) == (24, 10)
    assert data.digest == read_task(data.spec).digest
    fewer = read_task(data.spec, ReadingOptions(max_train_samples=9))
    assert len(fewer.train) == 9
    assert set(fewer.train) < set(data.train)
    assert fewer.digest != data.digest
    with pytest.raises(ValueError, match="at most 0 examples leave none: name 1 or more after the @"):
        read_task(replace(data.spec, max_train_samples=0))


def test_a_single_file_is_split_by_paragraph(tmp_path):
    data = read_task(TaskSpec("one", "qa", str(write_questions(tmp_path / "one.json", 40))))
    assert not data.shared_texts
    assert 0 < len(data.scored) < len(data.train)
    assert len(data.scored) + len(data.train) == 40


def test_texts_in_training_and_in_the_scored_set_are_refused_or_dropped(tmp_path):
    train = write_texts(tmp_path / "train.json", 20, seed=1)
    test = write_texts(tmp_path / "test.json", 10, seed=2)
    rows = json.loads(test.read_text())
    rows[0]["text"] = json.loads(train.read_text())[3]["text"].upper()  # case aside it is the same
    test.write_text(json.dumps(rows))
    spec = TaskSpec("texts", "classification", f"{train}+{test}")
    with pytest.raises(ValueError, match="1 texts occur both"):
        read_task(spec)
    data = read_task(spec, ReadingOptions(on_overlap="drop"))
    assert len(data.train) == 19
    assert "t1-3" not in data.train
    assert len(data.scored) == 10


def test_questions_without_scored_answers_are_refused(tmp_path):
    train, test = write_choices(tmp_path / "train.json", 6), tmp_path / "test.json"
    rows = json.loads(write_choices(test, 6, seed=3).read_text())
    test.write_text(json.dumps([{**row, "label": None} for row in rows]))
    with pytest.raises(ValueError, match="a test or validation set with answers"):
        read_task(TaskSpec("c", "multiple_choice", f"{train}+{test}"))


def test_label_subsets_are_nested_and_the_held_out_part_keeps_paragraphs_together(tmp_path):
    data = read_task(write_tasks(tmp_path)[0])
    quarter, half = set(label_subset(data, 0.25)), set(label_subset(data, 0.5))
    assert quarter < half < set(data.train)
    assert (len(quarter), len(half)) == (6, 12)
    out = held_out(data, half)
    assert out < half
    assert not {data.train_clusters[one] for one in out} & {data.train_clusters[one] for one in half - out}
    with pytest.raises(ValueError, match="label fraction"):
        label_subset(data, 0.0)


def test_every_split_holds_out_other_paragraphs_and_the_first_is_what_it_was(tmp_path):
    data = read_task(write_tasks(tmp_path)[0])
    parts = [held_out(data, set(data.train), split) for split in range(4)]
    assert parts[0] == held_out(data, set(data.train))
    assert len({frozenset(part) for part in parts}) == 4
    assert all(5 <= len(part) <= 6 for part in parts)  # a fifth of 24, whole paragraphs of two
    recipe = encoded(data)
    for split, part in enumerate(parts):
        view = search_view(data, recipe, set(data.train), split)
        assert set(view.evaluation_sets["heldout"].examples) == part


@pytest.mark.parametrize("kind", range(3))
def test_the_search_never_trains_on_what_it_judges_by_and_cells_train_on_all(tmp_path, kind):
    data = read_task(write_tasks(tmp_path)[kind])
    recipe = encoded(data)
    ids = set(label_subset(data, 0.5))
    search, cell = search_view(data, recipe, ids), cell_view(data, recipe, ids)
    trained = {row["example_id"] for row in search.train_features}
    judged = set(search.evaluation_sets["heldout"].examples)
    assert not trained & judged
    assert trained | judged == ids == {row["example_id"] for row in cell.train_features}
    assert list(cell.evaluation_sets) == [SCORED]
    assert not judged & set(data.scored)
    assert len(recipe.train_features) == 24  # the whole is as it was


@pytest.mark.parametrize("kind", range(3))
def test_shuffled_labels_keep_the_rows_and_lose_the_labels(tmp_path, kind):
    data = read_task(write_tasks(tmp_path)[kind])
    rows = encoded(data).train_features
    mixed = data.shuffled(rows, np.random.default_rng(0))
    assert [row["input_ids"] for row in mixed] == [row["input_ids"] for row in rows]
    label = "start_position" if kind == 0 else "label"
    assert [row[label] for row in mixed] != [row[label] for row in rows]
    assert mixed == data.shuffled(rows, np.random.default_rng(0)) or kind == 0  # arrays of offsets do not compare
    if kind == 1:
        assert sorted(row["label"] for row in mixed) == sorted(row["label"] for row in rows)
    if kind == 0:
        for before, after in zip(rows, mixed, strict=True):
            assert after["end_position"] - after["start_position"] == before["end_position"] - before["start_position"]
            assert before["context_start"] <= after["start_position"]
            assert after["end_position"] < before["context_start"] + len(before["offsets"])
    if kind == 2:
        assert all(row["label"] < len(row["input_ids"]) for row in mixed)


def test_records_of_questions_average_to_the_recipes_score(tmp_path):
    data = read_task(write_tasks(tmp_path)[0])
    recipe = encoded(data)
    predictions = {
        name: {
            "text": question.answers[0].text if number % 3 else "the old",
            "nbest": [],
            "null_score": 0.0,
            "gold_log_probability": None if number == 1 else -0.5,
        }
        for number, (name, question) in enumerate(data.scored.items())
    }
    records = example_records(data, predictions, contaminated={next(iter(data.scored))})
    found = recipe.score(predictions, data.scored)
    assert np.mean([one["score"] for one in records]) == pytest.approx(found["exact_match"] / 100)
    assert np.mean([one["f1"] for one in records]) == pytest.approx(found["f1"] / 100)
    assert [one["id"] for one in records if one.get("contaminated")] == [next(iter(data.scored))]
    known = [one["gold_log_probability"] for one in records if "gold_log_probability" in one]
    assert known == [-0.5] * (len(records) - 1)  # in no window: left out, not made up
    assert len({one["cluster"] for one in records}) == 5
    metrics = cell_metrics(data, {"test_loss": 1.5, "test_f1": 3.0, "heldout_loss": 9.0}, "test_", records)
    assert metrics["loss"] == 1.5
    assert metrics["exact_match"] == pytest.approx(found["exact_match"] / 100)


def test_records_of_texts_and_choices_hold_label_and_prediction(tmp_path):
    _, texts, choices = write_tasks(tmp_path)
    data = read_task(texts)
    predictions = {name: {"label": "1", "logits": [0.0, 1.0]} for name in data.scored}
    records = example_records(data, predictions)
    sure = 1 / (1 + np.exp(-1.0))
    for one in records:
        chance = sure if one["label"] == "1" else 1 - sure
        assert (one["confidence"], one["gold_log_probability"]) == pytest.approx((sure, np.log(chance)), abs=1e-6)
    lost = example_records(data, {name: {"label": "1", "logits": [np.nan, 1.0]} for name in data.scored})
    assert not {"confidence", "gold_log_probability"} & set(lost[0])
    assert np.mean([one["score"] for one in records]) == 0.5
    assert {one["prediction"] for one in records} == {"1"}
    assert {one["label"] for one in records} == {"0", "1"}
    data = read_task(choices)
    assert isinstance(encoded(data).evaluation_sets[SCORED], EvaluationSet)
    predictions = {
        name: {"choice": one.label, "name": one.names[one.label], "logits": [2.0] + [0.0] * (len(one.names) - 1)}
        for name, one in data.scored.items()
    }
    records = example_records(data, predictions)
    assert all(one["score"] == 1.0 and one["label"] == one["prediction"] for one in records)
    for one, question in zip(records, data.scored.values(), strict=True):
        shares = np.exp([2.0] + [0.0] * (len(question.names) - 1))
        assert np.exp(one["gold_log_probability"]) == pytest.approx(shares[question.label] / shares.sum(), abs=1e-6)
        assert one["confidence"] == pytest.approx(shares.max() / shares.sum(), abs=1e-6)
    assert 0 < cell_metrics(data, {"test_accuracy": 1.0}, "test_", records)["expected_calibration_error"] < 0.3


def test_where_questions_may_have_no_answer_that_is_one_of_the_answers(tmp_path):
    data = replace(read_task(write_tasks(tmp_path)[0]), version_2=True)
    question = next(iter(data.scored.values()))
    prediction = {"best_text": "old", "null_score": 1.0, "nbest": [Candidate("old", 0.0, 0, 3)]}
    prediction["gold_log_probability"] = -2.0
    sure = 1 / (1 + np.exp(-1.0))
    assert data.record(question, {**prediction, "text": ""})["confidence"] == pytest.approx(sure, abs=1e-6)
    assert data.record(question, {**prediction, "text": "old"})["confidence"] == pytest.approx(1 - sure, abs=1e-6)
    data = replace(data, version_2=False)
    assert data.record(question, {**prediction, "text": "old"})["confidence"] == 1.0


def test_calibration_error_of_known_cases():
    assert calibration_error([1.0, 1.0], [1.0, 1.0]) == 0.0
    assert calibration_error([1.0, 1.0], [1.0, 0.0]) == pytest.approx(0.5)
    assert calibration_error([0.5, 0.9], [1.0, 0.0]) == pytest.approx(0.7)
