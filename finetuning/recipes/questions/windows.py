"""Encoding of questions and contexts into rows, with overlapping windows over long contexts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetuning.examples.pair_template import PairTemplate, pair_template, token_ids, token_ids_with_offsets
from finetuning.recipes.questions.squad import Question

NO_ANSWER = (0, 0)  # row positions of the first token, which stands for no answer


@dataclass(frozen=True)
class WindowCounts:
    """Counts of the encoding into windows."""

    questions: int = 0
    rows: int = 0
    long_contexts: int = 0  # questions whose context takes more than one window
    cut_questions: int = 0  # questions longer than half a row
    answer_rows: int = 0  # rows that contain their whole answer
    dropped: int = 0  # training questions without a position for their answer
    unreachable: int = 0  # questions whose whole answer no window contains


@dataclass(frozen=True)
class Windows:
    """Settings of the windows. `doc_stride` is the overlap of neighbouring windows in tokens, as in `transformers`."""

    max_seq_length: int
    doc_stride: int = 128

    def question_limit(self, template: PairTemplate) -> int:
        """The longest question in tokens: half of a row."""
        return max(1, (self.max_seq_length - template.overhead) // 2)

    def spans(self, context_tokens: int, room: int) -> Iterator[tuple[int, int]]:
        """Token ranges [start, end) that cover a context, `room` tokens each; the overlap is at most half of that."""
        step = max(1, room - min(self.doc_stride, room // 2))
        start = 0
        while True:
            end = min(start + room, context_tokens)
            yield start, end
            if end >= context_tokens:
                return
            start += step


def encode_questions(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    windows: Windows,
    *,
    training: bool,
    keep_unplaced: bool = False,
) -> tuple[list[dict[str, Any]], WindowCounts]:
    """Rows of all questions; each context is tokenised once however many questions it has.

    A row: example_id, window, input_ids, token_type_ids, context_start (row position of its first context token),
    offsets [n, 2] (characters of its context tokens), start_position, end_position (row positions of the answer, 0
    when the window does not hold all of it), gold_spans [A, 2] (the row positions of every answer that the window
    holds; `NO_ANSWER` where none is right). In training, questions whose answer has no position are dropped unless
    `keep_unplaced` (v2, where no answer is an answer; a question whose answer was lost is dropped even then).
    """
    template = pair_template(tokenizer)
    contexts = {context: i for i, context in enumerate(dict.fromkeys(question.context for question in questions))}
    encoded = token_ids_with_offsets(tokenizer, list(contexts))
    limit = windows.question_limit(template)
    rows: list[dict[str, Any]] = []
    counts = dict.fromkeys(WindowCounts.__dataclass_fields__, 0)
    for question, ids in zip(questions, token_ids(tokenizer, [asked.question for asked in questions]), strict=True):
        span = question.span()
        if training and span is None and (question.answers or not keep_unplaced):
            counts["dropped"] += 1
            continue
        context_ids, offsets = encoded[contexts[question.context]]
        place = None if span is None else token_span(offsets, span)
        gold = _gold_places(question, offsets)
        own = _rows_of(question.id, ids[:limit], context_ids, offsets, place, template, windows, gold)
        counts["questions"] += 1
        counts["cut_questions"] += len(ids) > limit
        counts["long_contexts"] += len(own) > 1
        with_answer = sum(row["end_position"] > 0 for row in own)
        counts["answer_rows"] += with_answer
        counts["unreachable"] += span is not None and with_answer == 0
        rows.extend(own)
    counts["rows"] = len(rows)
    return rows, WindowCounts(**counts)


def token_span(offsets: np.ndarray, span: tuple[int, int]) -> tuple[int, int] | None:
    """First and last token that touch characters [start, end); None when no token does."""
    start, end = span
    touching = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < end) & (offsets[:, 1] > offsets[:, 0]))
    return None if not len(touching) else (int(touching[0]), int(touching[-1]))


def _gold_places(question: Question, offsets: np.ndarray) -> Sequence[tuple[int, int] | None]:
    """The context tokens of each answer that occurs in the context; None for the answer that there is none."""
    if not question.answers:
        return [None]
    places = (token_span(offsets, span) for span in question.spans())
    return sorted({place for place in places if place is not None})


def _rows_of(
    name: str,
    question_ids: Sequence[int],
    context_ids: Sequence[int],
    offsets: np.ndarray,
    place: tuple[int, int] | None,
    template: PairTemplate,
    windows: Windows,
    gold: Sequence[tuple[int, int] | None],
) -> list[dict[str, Any]]:
    rows = []
    room = windows.max_seq_length - template.overhead - len(question_ids)
    first = template.second_start(len(question_ids))
    for window, (start, end) in enumerate(windows.spans(len(context_ids), room)):
        input_ids, types = template.row(question_ids, context_ids[start:end])
        inside = place is not None and place[0] >= start and place[1] < end
        shift = first - start
        rows.append(
            {
                "example_id": name,
                "window": window,
                "input_ids": input_ids,
                "token_type_ids": types,
                "context_start": first,
                "offsets": offsets[start:end],
                "start_position": shift + place[0] if inside and place else 0,
                "end_position": shift + place[1] if inside and place else 0,
                "gold_spans": np.array(
                    [
                        NO_ANSWER if span is None else (shift + span[0], shift + span[1])
                        for span in gold
                        if span is None or (span[0] >= start and span[1] < end)
                    ],
                    dtype=np.int64,
                ).reshape(-1, 2),
            }
        )
    return rows
