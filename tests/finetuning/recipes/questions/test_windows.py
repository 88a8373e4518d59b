"""Windows cover the context, keep their size, and agree with what `transformers` would cut."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_encoder import tiny_tokenizer
from tiny_examples import WORDS, tiny_questions

from finetuning.examples.pair_template import pair_template, row_limit
from finetuning.recipes.questions.squad import Answer, Question
from finetuning.recipes.questions.windows import Windows, encode_questions, token_span


@given(st.integers(0, 400), st.integers(1, 90), st.integers(0, 120))
def test_windows_cover_the_context_with_the_overlap_asked_for(context_tokens, room, doc_stride):
    spans = list(Windows(384, doc_stride).spans(context_tokens, room))
    assert spans[0][0] == 0
    assert spans[-1][1] == context_tokens
    for (start, end), (next_start, next_end) in itertools.pairwise(spans):
        assert end - start == room
        assert next_end > end
        assert end - next_start == min(doc_stride, room // 2)


def test_rows_are_those_of_transformers():
    tokenizer = tiny_tokenizer(WORDS)
    questions = tiny_questions(12)
    rows, counts = encode_questions(questions, tokenizer, Windows(32, 8), training=False)
    theirs = tokenizer(
        [one.question for one in questions],
        [one.context for one in questions],
        truncation="only_second",
        max_length=32,
        stride=8,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    assert [row["input_ids"] for row in rows] == theirs["input_ids"]
    assert [row["token_type_ids"] for row in rows] == theirs["token_type_ids"]
    for i, row in enumerate(rows):
        context = [place == 1 for place in theirs.sequence_ids(i)]
        assert context.index(True) == row["context_start"]
        offsets = np.array(theirs["offset_mapping"][i])[context]
        assert np.array_equal(offsets, row["offsets"])
    assert counts.long_contexts == 6
    assert counts.rows == len(rows) > 12


def test_every_answer_can_be_read_back_from_a_window():
    tokenizer = tiny_tokenizer(WORDS)
    questions = tiny_questions(40, seed=3)
    rows, counts = encode_questions(questions, tokenizer, Windows(32, 8), training=True)
    contexts = {one.id: one for one in questions}
    read = set()
    for row in rows:
        assert len(row["input_ids"]) <= 32
        if row["end_position"]:
            question = contexts[row["example_id"]]
            first, last = (row[name] - row["context_start"] for name in ("start_position", "end_position"))
            start, end = row["offsets"][first][0], row["offsets"][last][1]
            assert question.context[start:end] == question.answers[0].text
            read.add(question.id)
    assert read == set(contexts)
    assert counts.unreachable == 0


def test_a_window_that_holds_part_of_the_answer_points_to_the_first_token():
    tokenizer = tiny_tokenizer(WORDS)
    context = "old old old red blue green grey old old old"
    question = Question("a", "what?", context, (Answer("red blue green grey", 12),))
    rows, _ = encode_questions([question], tokenizer, Windows(11, 2), training=True)
    for row in rows:
        ids = tokenizer.convert_ids_to_tokens(row["input_ids"])
        whole = " ".join(ids).find("red blue green grey") >= 0
        assert (row["end_position"] > 0) == whole


def test_a_window_holds_the_places_of_all_its_answers():
    context = "red blue green grey red blue green grey"
    texts = [Answer("grey red", context.index("grey")), Answer("blue", context.index("blue")), Answer("old", -1)]
    asked = [
        Question("a", "what", context, tuple(texts)),
        Question("b", "what", context, (), stated=True),
        Question("c", "what", context, (texts[2],)),
    ]
    tokenizer = tiny_tokenizer(["red", "blue", "green", "grey", "what"])
    rows, _ = encode_questions(asked, tokenizer, Windows(9, 2), training=False)
    found = {}
    for row in rows:
        words = tokenizer.convert_ids_to_tokens(row["input_ids"])
        spans = [words[first : last + 1] for first, last in row["gold_spans"].tolist()]
        found.setdefault(row["example_id"], []).append([" ".join(span) for span in spans])
    assert found["a"] == [["blue", "grey red"], ["grey red"]]
    assert found["b"] == [["[CLS]"]] * 2
    assert found["c"] == [[]] * 2


def test_training_drops_what_cannot_be_learnt_and_prediction_drops_nothing():
    tokenizer = tiny_tokenizer(WORDS)
    questions = [
        Question("none", "what?", "red", ()),
        Question("lost", "what?", "red", (Answer("blue", -1),)),
        Question("good", "what?", "red", (Answer("red", 0),)),
    ]

    def ids(**how):
        return [row["example_id"] for row in encode_questions(questions, tokenizer, Windows(32), **how)[0]]

    assert ids(training=True) == ["good"]
    assert ids(training=True, keep_unplaced=True) == ["none", "good"]  # version 2: no answer is an answer
    assert ids(training=False) == ["none", "lost", "good"]


def test_a_question_takes_at_most_half_a_row_and_an_empty_context_one_row():
    tokenizer = tiny_tokenizer(WORDS)
    question = Question("a", "what " * 50, "", ())
    rows, counts = encode_questions([question], tokenizer, Windows(32), training=False)
    assert len(rows) == 1
    assert len(rows[0]["input_ids"]) == 14 + 3
    assert counts.cut_questions == 1


def test_spans_that_touch_spaces_or_parts_of_tokens():
    offsets = np.array([[0, 3], [4, 8], [8, 9]])
    assert token_span(offsets, (4, 8)) == (1, 1)
    assert token_span(offsets, (3, 8)) == (1, 1)  # a leading space belongs to no token
    assert token_span(offsets, (5, 9)) == (1, 2)
    assert token_span(offsets, (3, 4)) is None


def test_limits():
    class Config:
        model_type = "bert"
        max_position_embeddings = 64

    assert row_limit(384, Config()) == 64
    assert row_limit(48, Config()) == 48


def test_a_tokenizer_without_special_tokens_is_refused():
    tokenizer = tiny_tokenizer(WORDS)
    tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(ValueError, match="adds no token in front"):
        pair_template(tokenizer)
    tokenizer = tiny_tokenizer(WORDS)
    tokenizer.pad_token = None  # as GPT-2's and Llama's
    with pytest.raises(ValueError, match=r"no padding token, .*set pad_token in its tokenizer_config.json"):
        pair_template(tokenizer)
