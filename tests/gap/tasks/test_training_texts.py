"""The training texts of a task as a corpus: which there are, which never are, and what a study checks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny_gap import write_tasks, write_texts

from gap.tasks.build_options import TaskBuildOptions
from gap.tasks.kinds.task_data import ReadingOptions
from gap.tasks.specification import parse_tasks, read_task
from gap.tasks.training_texts import corpus_text, holds_training_texts, training_documents, write_training_texts
from launch import build_shards
from shards.storage.manifest import read_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    return folder


def task(folder, text):
    return read_task(parse_tasks(text.format(folder))[0])


def test_every_training_text_is_a_document_and_no_scored_one_is(folder):
    data = task(folder, "t=classification:{}/texts")
    documents = training_documents(data)
    assert sorted(documents) == sorted(example.text for example in data.train.values())
    assert len(documents) == 24
    assert not {example.text for example in data.scored.values()} & set(documents)


def test_a_paragraph_stands_once_with_all_of_its_questions(folder):
    data = replace(task(folder, "q=qa:{}/questions"), scored={})  # in the small data, the same questions are scored
    documents = training_documents(data)
    assert len(documents) == len(data.train) / 2 == 12
    for example in data.train.values():
        (own,) = [text for text in documents if text.startswith(f"{example.context}\n")]
        assert example.question in own.split("\n")


def test_a_passage_stands_once_with_all_choices_and_no_label(folder):
    data = task(folder, "c=multiple_choice:{}/choices")
    example = next(iter(data.train.values()))
    unscored = replace(data, scored={})  # in the small data, the same choices are scored
    own = next(text for text in training_documents(unscored) if text.startswith(example.firsts[0]))
    assert own.split("\n")[1:] == list(example.seconds)


def test_pairs_with_a_text_in_common_are_one_document(tmp_path):
    train, test = (
        [(f"premise {i // 2} {name}", f"hypothesis {i} {name}") for i in range(8)] for name in ("train", "test")
    )
    documents = training_documents(pair_task(tmp_path, "pairs", train, test))
    assert documents[0] == "premise 0 train\nhypothesis 0 train\nhypothesis 1 train"
    assert len(documents) == 4


def test_exactly_the_chosen_training_examples_are_written(folder, tmp_path):
    data = write_training_texts(f"t=classification:{folder}/texts@5", tmp_path / "texts.jsonl")
    lines = [json.loads(line)["text"] for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert lines == [example.text for example in data.train.values()]
    assert len(lines) == 5


def test_a_text_that_is_scored_too_is_left_out(tmp_path):
    write_texts(tmp_path / "train.json", 10, seed=1)
    rows = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "test.json").write_text(json.dumps([{**row, "id": f"again-{row['id']}"} for row in rows[:4]]))
    data = write_training_texts(f"t=classification:{tmp_path}", tmp_path / "texts.jsonl")
    assert len(data.train) == 6
    assert not any(row["text"] in (tmp_path / "texts.jsonl").read_text() for row in rows[:4])


def pair_task(folder, name, train, test, most=None):
    """A task of text pairs, each split in a file of its own; `most` of the scored ones are drawn."""
    for split, pairs in (("train", train), ("test", test)):
        rows = [
            {"id": f"{split}-{i}", "sentence1": first, "sentence2": second, "label": i % 2}
            for i, (first, second) in enumerate(pairs)
        ]
        (folder / f"{split}.json").write_text(json.dumps(rows))
    spec = parse_tasks(f"{name}=classification:{folder}")[0]
    return read_task(spec, ReadingOptions(max_eval_samples=most, on_overlap="drop"))


def test_a_text_of_a_scored_pair_is_left_out_wherever_it_stands(tmp_path):
    train = [("shared one", "own one"), ("own two", "shared two"), ("shared one", "shared two"), ("own three", "own")]
    data = pair_task(tmp_path, "pairs", train, [("shared one", "other"), ("shared two", "another")])
    assert len(data.train) == 4  # no pair is both in training and scored
    assert training_documents(data) == ["own one", "own two", "own three\nown"]


def test_a_scored_question_is_left_out_of_another_paragraphs_document(tmp_path):
    for split, start in (("train", 0), ("test", 5)):
        paragraphs = [
            {
                "context": f"in {year} it rained",
                "qas": [
                    {"id": f"{year}-{i}", "question": text, "answers": [{"text": str(year), "answer_start": 3}]}
                    for i, text in enumerate(("When ?", f"Rain in {year} ?"))
                ],
            }
            for year in range(1900 + start, 1905 + start)
        ]
        content = {"version": "1.1", "data": [{"title": split, "paragraphs": paragraphs}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    documents = training_documents(task(tmp_path, "q=qa:{}"))
    assert documents == [f"in {year} it rained\nRain in {year} ?" for year in range(1900, 1905)]


def test_the_texts_are_those_of_the_build_where_a_study_scores_a_sample(tmp_path):
    train, test = [(f"a{i}", f"b{i}") for i in range(20)], [(f"a{i}", f"b{i}") for i in range(10)]
    written = pair_task(tmp_path, "pairs", train, test)
    sources = [{"sha256": hashlib.sha256(corpus_text(written).encode()).hexdigest()}]
    manifest = SimpleNamespace(data={"sources": sources})
    sampled, reading = pair_task(tmp_path, "pairs", train, test, 3), ReadingOptions(max_eval_samples=3)
    assert (len(written.train), len(sampled.train)) == (10, 17)
    assert holds_training_texts(manifest, sampled, reading)
    assert not holds_training_texts(manifest, sampled)


def test_two_tasks_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="2 tasks; shards for self-pretraining hold the texts of one"):
        write_training_texts(f"a=classification:{folder}/texts,b=qa:{folder}/questions", tmp_path / "texts.jsonl")


def test_shards_are_recognised_by_their_only_source(folder):
    data, fewer = task(folder, "t=classification:{}/texts"), task(folder, "t=classification:{}/texts@5")
    digest = hashlib.sha256(corpus_text(data).encode()).hexdigest()

    def shards(*digests):
        return SimpleNamespace(data={"sources": [{"name": "x", "sha256": own} for own in digests]})

    assert holds_training_texts(shards(digest), data)
    assert not holds_training_texts(shards(digest), fewer)
    assert not holds_training_texts(shards(digest, "0" * 64), data)  # and something else
    assert not holds_training_texts(SimpleNamespace(data={}), data)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"task": "t=qa:x", "input": ["y"], "output_dir": "z"}, "give one of the two"),
        ({"output_dir": "z"}, "--input and --output_dir are needed"),
        ({"input": ["y"], "output_dir": "z", "data_dir": "w"}, "--data_dir w does nothing with --input"),
        ({"task": "t=qa:x", "output_dir": "z", "text_column": "body"}, "--text_column body does nothing with --task"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given, reason):
    with pytest.raises(ValueError, match=reason):
        TaskBuildOptions(**given)


def test_the_command_writes_the_texts_and_builds_shards_of_them(tmp_path, capsys):
    write_texts(tmp_path / "data" / "train.json", 200, seed=1)
    write_texts(tmp_path / "data" / "test.json", 10, seed=2)
    command = ["--task", f"t=classification:{tmp_path}/data", "--output_dir", str(tmp_path / "shards")]
    command += ["--vocab_size", "80", "--near_duplicates", "ignore", "--processes", "1", "--validation_fraction", "0.1"]
    assert build_shards.main(command) == 0
    assert "the texts of 200 training examples of t" in capsys.readouterr().out
    data, manifest = task(tmp_path, "t=classification:{}/data"), read_manifest(tmp_path / "shards")
    assert holds_training_texts(manifest, data)
    assert sum(split.documents for split in manifest.splits.values()) == 200
    assert build_shards.main(command) == 0  # finished: nothing is built again
