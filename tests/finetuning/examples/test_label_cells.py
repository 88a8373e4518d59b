"""Parsing of label cells, and examples with an empty label cell."""

import json
import math
import os

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, Value
from datasets.table import InMemoryTable
from tiny_examples import reviews, write_reviews, write_tiny_model

from finetuning import classification, glue, multiple_choice
from finetuning.examples.dataset_records import read_dataset
from finetuning.examples.label_cells import doubtful_labels, read_label
from finetuning.examples.unlabelled import drop_unlabelled
from finetuning.recipes.choices.choice_files import choices_from_rows
from finetuning.recipes.texts.glue_tasks import GLUE_TASKS, from_dataset, read_glue
from finetuning.recipes.texts.labelled_text import from_records, label_names, read_examples, read_splits
from gap.tasks.specification import parse_tasks, read_task

NOTHING = [None, "", " ", "nan", "NaN", " NaN ", "<NA>", math.nan, "\u00a0", "\ufeff"]
FAST = ["--num_train_epochs", "1", "--report_to", "none", "--save_model", "false"]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Tiny models gain nothing from a second thread, and lose much on a busy machine."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})


@pytest.mark.parametrize("cell", NOTHING)
def test_null_blanks_and_nan_are_no_label(cell):
    assert read_label(cell, "x") is None


def test_one_class_has_one_name_however_it_is_written():
    same = {
        "1": [1, 1.0, "1", "1.0", "1.00", " 1 ", "\ufeff1", True],
        "0": [0, 0.0, "0.0", False],
        "-1": [-1, -1.0, "-1.0"],
        "neg": ["neg", "neg ", "\tneg", "\u00a0neg\u200b"],
    }
    assert {name: {read_label(cell, "x") for cell in cells} for name, cells in same.items()} == {
        name: {name} for name in same
    }
    assert [read_label(cell, "x") for cell in ("0.5", 2.5, "None", "not  it")] == ["0.5", "2.5", "None", "not  it"]
    for cell in ([1], {"a": 1}, math.inf):
        with pytest.raises(ValueError, match="here: the label is"):
            read_label(cell, "here")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\na,NaN\nb,1.0\nc,\nd,1\ne, 0 \n"),
        ("a.tsv", "text\tlabel\na\tnan\nb\t1.0\nc\t \nd\t1\ne\t 0\n"),
        ("a.json", '[{"text":"a","label":NaN},{"text":"b","label":1.0},{"text":"c"},{"text":"d","label":true},'
                   '{"text":"e","label":"0"}]'),
        ("a.jsonl", '{"text":"a","label":null}\n{"text":"b","label":1}\n{"text":"c","label":""}\n'
                    '{"text":"d","label":"1"}\n{"text":"e","label":0}\n'),
    ],
)  # fmt: skip
def test_every_format_has_the_same_two_classes(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    found = read_examples(tmp_path / name)
    assert [one.label for one in found] == [None, "1", None, "1", "0"]
    assert label_names(found) == ["0", "1"]
    assert [one.text for one in drop_unlabelled({"train": found})["train"]] == ["b", "d", "e"]


def test_folders_that_differ_in_blanks_are_one_class(tmp_path):
    for number, folder in enumerate(("neg", "neg ", "pos")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{number}.txt").write_text(f"text {number}")
    assert label_names(read_splits(tmp_path)["train"]) == ["neg", "pos"]


def test_minus_one_is_unknown_in_every_row_or_where_the_classes_are_known():
    rows = [{"text": "a", "label": -1}, {"text": "b", "label": None}, {"text": "c", "label": "-1.0"}]
    assert [one.label for one in from_records(rows, source="x")] == [None] * 3
    rows.append({"text": "d", "label": 1})
    assert [one.label for one in from_records(rows, source="x")] == ["-1", None, "-1", "1"]
    known = from_records(rows, source="x", minus_one_is_unknown=True)
    assert [one.label for one in known] == [None, None, None, "1"]


def test_sets_without_any_label_and_test_sets_are_left_whole():
    rows = from_records([{"text": "a", "label": "x"}, {"text": "b", "label": ""}], source="x")
    kept = drop_unlabelled({"train": rows, "validation": rows[1:], "test": rows, "test_mismatched": rows[1:]})
    assert {name: len(split) for name, split in kept.items()} == {
        "train": 1,
        "validation": 1,
        "test": 2,
        "test_mismatched": 1,
    }


def nli(*labels):
    return [{"premise": f"a {number}", "hypothesis": "b", "label": label} for number, label in enumerate(labels)]


def test_numbers_of_a_saved_set_are_classes_unknown_or_refused_by_name():
    task = GLUE_TASKS["mnli"]
    found = from_dataset(task, {"train": nli(-1, 0, 2.0, math.nan, 1), "test_matched": nli(-1, -1)})
    assert [one.label for one in found["train"]] == [None, "entailment", "contradiction", None, "neutral"]
    assert [one.label for one in found["test"]] == [None, None]
    for split in ("train", "validation_matched", "test_matched"):
        with pytest.raises(ValueError, match=r"row 1: the label is 3, but the classes are 0 \(entailment\), 1 \(neu"):
            from_dataset(task, {split: nli(0, 3, -1)})
        with pytest.raises(ValueError, match="row 1: the label is -2, but the classes are 0"):
            from_dataset(task, {split: nli(0, -2)})
    with pytest.raises(ValueError, match="row 0: the label is '-'; MNLI needs entailment or neutral"):
        from_dataset(task, {"train": nli("-")})


def test_a_score_that_is_none_or_out_of_range():
    task = GLUE_TASKS["stsb"]
    rows = [{"sentence1": "a", "sentence2": "b", "label": label} for label in (4.5, math.nan, -1.0, 0.0)]
    assert [one.label for one in from_dataset(task, {"train": rows})["train"]] == ["4.5", None, None, "0"]
    for wrong in (5.5, -0.5, "high"):
        with pytest.raises(ValueError, match=r"row 0: the label is .*; STS-B needs a number from \(0.0, 5.0\)"):
            from_dataset(task, {"validation": [{**rows[0], "label": wrong}]})


def test_glue_files_with_unknown_and_wrong_labels(tmp_path):
    for stem in ("train", "dev"):
        (tmp_path / f"{stem}.tsv").write_text("sentence\tlabel\nfine\t1\nso\t-1\nwell\tNaN\nbad\t0 \n")
    found = read_glue(GLUE_TASKS["sst2"], tmp_path)
    assert [one.label for one in found["train"]] == ["1", None, None, "0"]
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nfine\t2\n")
    with pytest.raises(ValueError, match=r"dev\.tsv, row 0: the label is '2'; SST-2 needs 0 or 1"):
        read_glue(GLUE_TASKS["sst2"], tmp_path)


def test_class_labels_of_a_data_set_are_names_none_or_refused(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    whole = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, -1, None]}, features=features)
    DatasetDict({"train": whole}).save_to_disk(tmp_path / "set")
    rows = read_dataset(str(tmp_path / "set"))["train"]
    assert [one.label for one in from_records(rows, source="x")] == ["good", None, None]
    table = pa.table({"text": ["a", "b"], "label": pa.array([0, 2], pa.int64())})
    Dataset(InMemoryTable(table), info=DatasetInfo(features=features)).save_to_disk(tmp_path / "wrong")
    with pytest.raises(ValueError, match=r"train, row 1: label is 2, but the classes are 0 \(bad\), 1 \(good\)"):
        read_dataset(str(tmp_path / "wrong"))


def choice(**fields):
    return {"id": "a", "context": "c", "question": "q", "choices": ["x", "y"], **fields}


@pytest.mark.parametrize("cell", [*NOTHING, -1, "-1", -1.0, "-1.0"])
def test_choices_whose_answer_is_none(cell):
    layouts = [
        choice(label=cell),
        {"id": "a", "sent1": "s", "ending0": "x", "ending1": "y", "label": cell},
        {"id": "a", "question": "q", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": cell},
        [["c"], [{"question": "q", "choice": ["x", "y"], "answer": cell}], "a"],
    ]
    for row in layouts:
        assert choices_from_rows([row], "x")[0].label is None
    two_stage = {"id": "a", "question": "q", "paragraphs": [0, 1], "relevant": cell}
    assert choices_from_rows([two_stage], "x", ["c", "d"])[0].label is None


def test_choices_whose_answer_is_written_otherwise_or_wrong():
    for label in (1, 1.0, "1", "1.0", " 1"):
        assert choices_from_rows([choice(label=label)], "x")[0].label == 1
    lettered = {"id": "a", "question": "q", "choices": {"label": ["A", "B"], "text": ["x", "y"]}}
    assert choices_from_rows([{**lettered, "answerKey": "B "}], "x")[0].label == 1
    spoken = [["c"], [{"question": "q", "choice": ["x", "nan"], "answer": "nan"}], "a"]
    assert choices_from_rows([spoken], "x")[0].label == 1
    for label in (2, -2, 5):
        with pytest.raises(ValueError, match=rf"entry 0: question a has label {label}, but its choices are 0 to 1"):
            choices_from_rows([choice(label=label)], "x")
    with pytest.raises(ValueError, match=r"answerKey 'C' is not one of the letters \('A', 'B'\)"):
        choices_from_rows([{**lettered, "answerKey": "C"}], "x")


def test_doubtful_labels():
    found = doubtful_labels(["-", "Neg", "neg", "0", "-1", "N/A"])
    assert list(found) == ["-", "-1", "N/A", "neg"]
    assert "differs from 'Neg' only in case" in found["neg"]
    assert doubtful_labels(["-1", "1"]) == doubtful_labels(["bad", "good"]) == {}


def test_classification_counts_what_it_leaves_out_and_strict_refuses(tmp_path, capsys):
    rows = reviews(40, seed=1)
    for row in rows[:4]:
        row["label"] = math.nan
    rows[5]["label"] += " "
    rows[6]["label"] = "-"
    train = write_reviews(tmp_path / "train.json", rows)
    validation = write_reviews(
        tmp_path / "validation.json", [*reviews(9, seed=2), {"id": "n", "text": "a", "label": ""}]
    )
    model = write_tiny_model(tmp_path / "model")
    arguments = ["--model_name_or_path", model, "--train_file", train, "--validation_file", validation, *FAST]
    assert classification.main([*arguments, "--output_dir", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "warning: 4 of 40 examples of train have no label" in shown
    assert "warning: 1 of 10 examples of validation have no label" in shown
    assert "warning: 1 examples have the label '-', a separate class here; often means" in shown
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert (results["preflight_train_unlabelled"], results["preflight_train_examples"]) == (4, 36)
    assert results["preflight_train_unknown_share"] == 0
    header = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[0]
    assert header == "id,prediction,label,probability_-,probability_bad,probability_good"
    assert classification.main([*arguments, "--strict", "true", "--output_dir", str(tmp_path / "strict")]) == 2
    assert "have no label" in capsys.readouterr().err


def test_glue_leaves_minus_one_out_and_scores_the_right_majority(tmp_path, capsys):
    rows = [{"sentence": row["text"], "label": int(row["label"] == "good")} for row in reviews(30, seed=1)]
    for row in rows[:18]:
        row["label"] = -1
    hidden = [{**row, "label": -1} for row in rows]
    sets = {name: Dataset.from_list(split) for name, split in (("train", rows), ("validation", rows), ("test", hidden))}
    DatasetDict(sets).save_to_disk(tmp_path / "sst2")
    arguments = ["--task_name", "sst2", "--dataset_name", str(tmp_path / "sst2"), *FAST]
    model = write_tiny_model(tmp_path / "model")
    assert glue.main([*arguments, "--model_name_or_path", model, "--output_dir", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    good = sum(row["label"] == 1 for row in rows)
    assert results["preflight_train_unlabelled"] == results["preflight_validation_unlabelled"] == 18
    assert results["preflight_train_majority_share"] == pytest.approx(max(good, 12 - good) / 12)
    assert len((tmp_path / "run" / "submission" / "SST-2.tsv").read_text().splitlines()) == 31
    assert "18 of 30 examples of validation have no label" in capsys.readouterr().out


def test_multiple_choice_leaves_out_questions_without_an_answer(tmp_path, capsys):
    rows = [choice(id=str(i), context=f"the day {i}", label=(-1 if i < 3 else i % 2)) for i in range(12)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    model = write_tiny_model(tmp_path / "model")
    files = ["--train_file", str(tmp_path / "a.json"), "--validation_file", str(tmp_path / "a.json")]
    arguments = [*files, "--model_name_or_path", model, *FAST, "--max_seq_length", "16"]
    assert multiple_choice.main([*arguments, "--output_dir", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "warning: 3 of 12 examples of train have no label" in shown
    assert "of the characters of train become [UNK]" in shown  # the tiny vocabulary has no single letters
    assert json.loads((tmp_path / "run" / "all_results.json").read_text())["preflight_train_examples"] == 9
    assert multiple_choice.main([*arguments, "--strict", "true", "--output_dir", str(tmp_path / "strict")]) == 2


def test_a_gap_task_trains_and_scores_on_labelled_examples_only(tmp_path, caplog):
    rows = [{"id": str(i), "text": f"text {i}", "label": math.nan if i < 5 else i % 2} for i in range(60)]
    (tmp_path / "texts.json").write_text(json.dumps(rows))
    data = read_task(parse_tasks(f"classification:{tmp_path / 'texts.json'}")[0])
    assert data.labels == ("0", "1")
    assert {one.label for one in (*data.train.values(), *data.scored.values())} == {"0", "1"}
    assert "task texts: 5 of 60 examples of all have no label" in caplog.text
    questions = [choice(id=str(i), context=f"c {i}", label=-1 if i < 5 else i % 2) for i in range(60)]
    (tmp_path / "choices.json").write_text(json.dumps(questions))
    data = read_task(parse_tasks(f"multiple_choice:{tmp_path / 'choices.json'}")[0])
    assert len(data.train) + len(data.scored) == 55
