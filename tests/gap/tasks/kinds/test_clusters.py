"""What examples share stays on one side of a split and is resampled whole: articles, premises, videos, documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuning.recipes.texts.labelled_text import LabelledText, hold_out
from gap.study.outlook import set_lines
from gap.tasks.kinds.task_data import TaskData
from gap.tasks.rows import held_out
from gap.tasks.specification import parse_tasks, read_task

ARTICLES, PARAGRAPHS = 10, 4


def read(kind: str, path: Path, content: Any) -> TaskData:
    path.write_text("\n".join(map(json.dumps, content)) if path.suffix == ".jsonl" else json.dumps(content))
    return read_task(parse_tasks(f"task={kind}:{path}")[0])


def questions(titles: list[str]) -> dict[str, Any]:
    """A SQuAD file: an entry for each title, with several paragraphs of two questions."""
    data = []
    for number, title in enumerate(titles):
        paragraphs = [
            {
                "context": f"the answer of {number} is word{part}",
                "qas": [
                    {
                        "id": f"{number}-{part}-{question}",
                        "question": f"which {question} ?",
                        "answers": [{"text": f"word{part}", "answer_start": len(f"the answer of {number} is ")}],
                    }
                    for question in range(2)
                ],
            }
            for part in range(PARAGRAPHS)
        ]
        data.append({"title": title, "paragraphs": paragraphs})
    return {"version": "1.1", "data": data}


def sides(data: TaskData) -> list[set[str]]:
    """The first part of the ids, which names an article here, in training and among the scored examples."""
    return [{name.split("-")[0] for name in examples} for examples in (data.train, data.scored)]


def assert_divided(data: TaskData, grouping: str) -> None:
    """No article stands on both sides, of the split or of a search, and a cluster is one."""
    train, scored = sides(data)
    assert not train & scored
    assert len(scored) == round(0.2 * ARTICLES)
    assert len(set(data.scored_clusters.values())) == len(scored)
    assert data.grouping == grouping
    out = {name.split("-")[0] for name in held_out(data, data.train)}
    assert out
    assert not out & {name.split("-")[0] for name in set(data.train) - held_out(data, data.train)}


def test_a_question_file_is_divided_by_article(tmp_path: Path) -> None:
    data = read("qa", tmp_path / "all.json", questions([f"title {number}" for number in range(ARTICLES)]))
    assert_divided(data, "article")
    assert set_lines({"task": data}) == [
        f"task: {8 * PARAGRAPHS * 2} examples in 8 articles for training, {2 * PARAGRAPHS * 2} examples in 2 articles "
        "scored"
    ]


def test_rows_with_a_title_are_divided_by_it(tmp_path: Path) -> None:
    entries = questions([f"title {number}" for number in range(ARTICLES)])["data"]
    rows = [
        {"title": entry["title"], "context": part["context"], **question}
        for entry in entries
        for part in entry["paragraphs"]
        for question in part["qas"]
    ]
    assert_divided(read("qa", tmp_path / "all.jsonl", rows), "article")


@pytest.mark.parametrize("titles", [["only"] * ARTICLES, [""] * ARTICLES])
def test_without_several_titles_a_question_file_is_divided_by_paragraph(tmp_path: Path, titles: list[str]) -> None:
    data = read("qa", tmp_path / "all.json", questions(titles))
    assert data.grouping == "paragraph"
    assert len(set(data.scored_clusters.values())) == round(0.2 * ARTICLES * PARAGRAPHS)


def test_an_article_may_have_paragraphs_in_both_files_but_a_paragraph_may_not(tmp_path: Path) -> None:
    both = questions([f"title {number}" for number in range(ARTICLES)])
    test = json.loads(json.dumps(both).replace("the answer", "an answer"))
    for entry in test["data"]:
        for part in entry["paragraphs"]:
            for question in part["qas"]:
                question["id"] += "-test"
                question["answers"][0]["answer_start"] -= 1
    for name, content in (("train", both), ("test", test)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    data = read_task(parse_tasks(f"task=qa:{tmp_path}")[0])
    assert len(set(data.scored_clusters.values())) == ARTICLES
    (tmp_path / "test.json").write_text(json.dumps(both))
    with pytest.raises(ValueError, match="40 texts occur both in the training and in the scored examples"):
        read_task(parse_tasks(f"task=qa:{tmp_path}")[0])


def test_choices_are_divided_by_title_or_video(tmp_path: Path) -> None:
    places = [(number, part) for number in range(ARTICLES) for part in range(PARAGRAPHS)]
    plain = [
        {
            "id": f"{number}-{part}",
            "title": f"title {number}",
            "context": f"passage {part} of {number}",
            "question": "which ?",
            "choices": ["a", "b"],
            "label": part % 2,
        }
        for number, part in places
    ]
    assert_divided(read("multiple_choice", tmp_path / "plain.jsonl", plain), "article")
    swag = [
        {
            "id": f"{number}-{part}",
            "video-id": f"video {number}",
            "sent1": f"someone {part} of {number}",
            "sent2": "then",
            "ending0": "sits",
            "ending1": "stands",
            "label": part % 2,
        }
        for number, part in places
    ]
    assert_divided(read("multiple_choice", tmp_path / "swag.jsonl", swag), "article")


def test_rows_of_tagged_words_are_divided_by_document(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"{number}-{part}",
            "document_id": number,
            "tokens": [f"word{number}", f"part{part}"],
            "tags": ["A", "B"],
        }
        for number in range(ARTICLES)
        for part in range(PARAGRAPHS)
    ]
    assert_divided(read("tokens", tmp_path / "all.jsonl", rows), "document")
    rows[0]["document_id"] = 0.5
    with pytest.raises(ValueError, match=r"row 0: 'document_id' is 0\.5; name a document by text or a whole number"):
        read("tokens", tmp_path / "all.jsonl", rows)


@pytest.mark.parametrize("swapped", [False, True])
def test_pairs_are_divided_by_the_premise_or_passage_that_they_share(tmp_path: Path, swapped: bool) -> None:
    columns = ("text_pair", "text") if swapped else ("text", "text_pair")
    rows = [
        {
            "id": f"{number}-{part}",
            columns[0]: f"a premise of several words, number {number}",
            columns[1]: f"claim {part} {number}",
            "label": part % 2,
        }
        for number in range(ARTICLES)
        for part in range(PARAGRAPHS)
    ]
    assert_divided(read("classification", tmp_path / "all.jsonl", rows), "text")


def test_a_held_out_part_of_pairs_shares_no_premise_with_the_rest() -> None:
    pairs = [
        LabelledText(f"{number}-{part}", f"a premise of several words, number {number}", f"claim {part}", "yes")
        for number in range(20)
        for part in range(3)
    ]
    rest, held = hold_out(pairs, 0.3)
    assert len(rest) + len(held) == 60
    assert not {pair.text for pair in rest} & {pair.text for pair in held}
