"""Extractive QA files: SQuAD 1.1 and 2.0, CMRC2018, DRCD, flat rows, and the two-stage format with a context file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from finetuning.examples.record_files import NotAnObject, OnBadText, examples_of, read_content, whole_number
from runtime.plurals import counted

InArticle = TypeVar("InArticle", bound="HasArticle")


class HasArticle(Protocol):
    """A dataclass of an example that may be from an article."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def article(self) -> str | None: ...


@dataclass(frozen=True)
class Answer:
    """A gold answer; `start` counts characters of the context, -1 if the text does not occur in it."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question on one paragraph; no answers means unanswerable in a labelled v2 file, unknown in a test file.

    `stated` is False if the row has no answers and does not say whether there are any; `numbered` is True if it names
    its paragraphs by their numbers in a context file; `article` is the title that its paragraph's file gives, if it
    gives several.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()
    stated: bool = field(default=True, repr=False)
    numbered: bool = field(default=False, repr=False, compare=False)
    article: str | None = field(default=None, repr=False)

    @property
    def group(self) -> str:
        """What questions on one article, or else on one paragraph, have in common: a short hash."""
        return self.paragraph if self.article is None else _short_hash(f"article\n{self.article}")

    @property
    def paragraph(self) -> str:
        """A short hash of the context."""
        return _short_hash(self.context)

    def span(self) -> tuple[int, int] | None:
        """Characters [start, end) of the first answer that occurs in the context."""
        return next(iter(self.spans()), None)

    def spans(self) -> list[tuple[int, int]]:
        """Characters [start, end) of every answer that occurs in the context."""
        placed = [answer for answer in self.answers if answer.start >= 0 and answer.text.strip()]
        return [(answer.start, answer.start + len(answer.text)) for answer in placed]


@dataclass(frozen=True)
class AnswerRepairs:
    """What was wrong with the answers of a file."""

    answers: int = 0
    off: int = 0  # not at their offset
    repaired: int = 0  # found elsewhere, once
    ambiguous: int = 0  # found elsewhere, several times
    absent: int = 0  # not in the context
    without_span: int = 0  # questions that have answers, none of which is in the context


def read_questions(
    path: str | Path, *, context_file: str | Path | None = None, on_bad_text: OnBadText = "stop"
) -> list[Question]:
    """All questions of a file, in file order.

    Raises ValueError, naming the file and the field, for anything that is not one of the known layouts, and listing
    duplicate ids.
    """
    where = Path(path)
    content = read_content(where, on_bad_text=on_bad_text)
    if isinstance(content, dict) and "data" in content:
        content = content["data"]
    if not isinstance(content, list) or not content:
        raise ValueError(
            f"{where}: no questions; a SQuAD file has a list under 'data', other formats are a list of rows"
        )
    contexts = None if context_file is None else read_contexts(context_file, on_bad_text)
    return questions_from_rows(content, str(where), contexts)


def questions_from_rows(rows: Iterable[Any], where: str, contexts: Sequence[str] | None = None) -> list[Question]:
    """Questions from entries of any known layout; errors name `where` and the entry."""
    questions = examples_of(
        rows,
        where,
        lambda item, number: _questions_of(item, number, contexts),
        "rows need id, context, question and answers, or the layout of SQuAD or CMRC",
    )
    if not questions:
        raise ValueError(f"{where}: no questions: the file has paragraphs but no 'qas'")
    require_unique_ids([question.id for question in questions], where)
    return in_articles(questions)


def in_articles(examples: Sequence[InArticle]) -> list[InArticle]:
    """The examples of a file, without their article if it is the only one: it groups nothing."""
    if len({example.article for example in examples}) > 1:
        return list(examples)
    return [replace(example, article=None) for example in examples]


def article_of(entry: Mapping[str, Any], name: str = "title") -> str | None:
    """The title that an entry gives its article, None for an empty one or none."""
    title = entry.get(name)
    return None if title is None or not str(title).strip() else str(title).strip()


def read_contexts(path: str | Path, on_bad_text: OnBadText = "stop") -> list[str]:
    """The paragraphs of a two-stage data set: a JSON list of strings."""
    contexts = read_content(path, on_bad_text=on_bad_text)
    if not isinstance(contexts, list) or not all(isinstance(text, str) for text in contexts):
        raise ValueError(f"{path}: a context file is a JSON list of paragraphs (strings)")
    return contexts


def require_unique_ids(ids: Sequence[str], where: str) -> None:
    """ValueError that lists the ids that occur more than once."""
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{where}: {counted(len(twice), 'id')} given more than once ({first_names(twice)}): "
            "give each example its own id"
        )


def first_names(ids: Sequence[str], limit: int = 10) -> str:
    """The first ids, separated by commas, each once, and dots if there are more."""
    different = list(dict.fromkeys(ids))
    return ", ".join([*different[:limit], *(["..."] if len(different) > limit else [])])


def place_answers(
    questions: Sequence[Question], *, strict: bool = False, where: str = "questions"
) -> tuple[list[Question], AnswerRepairs]:
    """Move answers that are not at their offset to where their text occurs, if it occurs once; count the rest.

    An answer that cannot be placed keeps its text (it still counts in the metric) with the start -1.
    Raises ValueError in strict mode, naming the set (`where`) and the first ids.
    """
    placed, counts, wrong = [], Counter[str](), []
    for question in questions:
        answers = []
        for answer in question.answers:
            placed_answer, kind = _place(answer, question.context)
            counts[kind] += 1
            answers.append(placed_answer)
            if kind != "right":
                wrong.append(question.id)
        fixed = replace(question, answers=tuple(answers))
        counts["without_span"] += bool(answers) and fixed.span() is None
        placed.append(fixed)
    off = counts["repaired"] + counts["ambiguous"] + counts["absent"]
    if strict and off:
        raise ValueError(
            f"{where}: {off} answers are not at their answer_start (ids {first_names(wrong)}): correct the file, "
            "or omit --strict, which repairs those that occur once"
        )
    total = off + counts["right"]
    return placed, AnswerRepairs(
        total, off, counts["repaired"], counts["ambiguous"], counts["absent"], counts["without_span"]
    )


def check_answers(questions: Sequence[Question], *, version_2: bool, where: str) -> bool:
    """Whether the set is labelled. A v2 set is, unless no row states its answers or, in a test set, no row has one.

    Raises ValueError when only some have answers and `version_2` is off.
    """
    without = [question.id for question in questions if not question.answers]
    if not without:
        return True
    if len(without) == len(questions) and (not version_2 or where.startswith("test")):
        return False
    if version_2:
        return any(question.stated for question in questions)
    raise ValueError(
        f"{where}: {len(without)} of {len(questions)} questions have no answer ({', '.join(without[:5])}): "
        "pass --version_2_with_negative for data with unanswerable questions"
    )


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _place(answer: Answer, context: str) -> tuple[Answer, str]:
    if answer.start >= 0 and context[answer.start : answer.start + len(answer.text)] == answer.text:
        return answer, "right"
    first = context.find(answer.text) if answer.text else -1
    if first < 0:
        return Answer(answer.text, -1), "absent"
    if context.find(answer.text, first + 1) >= 0:
        return Answer(answer.text, -1), "ambiguous"
    return Answer(answer.text, first), "repaired"


def _questions_of(item: Mapping[str, Any], number: int, contexts: Sequence[str] | None) -> list[Question]:
    if not isinstance(item, Mapping):
        raise NotAnObject(item)
    if "paragraphs" in item and "question" in item:
        return [_two_stage_question(item, number, contexts)]
    if "paragraphs" in item:
        parts = [(part, "context") for part in objects_of(item, "paragraphs")]
    elif "qas" in item:  # CMRC2018's own layout, one paragraph per entry
        parts = [(item, "context_text" if "context_text" in item else "context")]
    else:
        return [_question(item, text_of(item, "context"), str(number), article_of(item))]
    article = article_of(item)
    asked = [(entry, text_of(part, name)) for part, name in parts for entry in objects_of(part, "qas")]
    return [_question(entry, context, f"{number}-{place}", article) for place, (entry, context) in enumerate(asked)]


def _question(entry: Mapping[str, Any], context: str, place: str, article: str | None) -> Question:
    """`place`: the id where the entry has none."""
    name = id_of(entry, place, "query_id" if "query_id" in entry else "id")
    question = text_of(entry, "query_text" if "query_text" in entry else "question")
    stated = any(name in entry for name in ("answers", "answer", "answer_text", "is_impossible"))
    return Question(name, question, context, _answers_of(entry), stated, article=article)


def _answers_of(entry: Mapping[str, Any]) -> tuple[Answer, ...]:
    """From `answers`, `answer` or `answer_text`: a list of objects or texts, {"text": ..., "answer_start": ...} with a
    list or a single value in each, or a text with its place beside it in the entry's `answer_start`.
    """
    field = next((name for name in ("answers", "answer", "answer_text") if entry.get(name)), None)
    if field is None or entry.get("is_impossible"):
        return ()
    given = entry[field]
    if isinstance(given, str):
        given = {"text": [given], "answer_start": [entry.get("answer_start")]}
    if isinstance(given, Mapping):
        texts, starts = given["text"], given.get("answer_start")
        if isinstance(texts, str):
            texts, starts = [texts], starts if isinstance(starts, list) else [starts]
        starts = [None] * len(texts) if starts is None and isinstance(texts, list) else starts
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise ValueError(f"'{field}' is {given!r}: text and answer_start must be lists of one length, or one each")
        given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(given, list):
        raise ValueError(f"'{field}' is {given!r}: a list of {{text, answer_start}} is expected")
    return tuple(_answer(answer, field) for answer in given)


def _two_stage_question(item: Mapping[str, Any], number: int, contexts: Sequence[str] | None) -> Question:
    """A question with paragraph numbers; without `relevant` it is from a test file and has no paragraph yet."""
    relevant = None if item.get("relevant") is None else whole_number(item["relevant"], "relevant")
    texts = dict(paragraphs_of(item, contexts, relevant))
    context = "" if relevant is None else texts[relevant]
    answer = item.get("answer")
    answers = () if answer is None else (Answer(text_of(answer, "text"), whole_number(answer["start"], "start")),)
    name = id_of(item, str(number))
    return Question(name, text_of(item, "question"), context, answers, answer is not None, numbered=True)


def paragraphs_of(
    item: Mapping[str, Any], contexts: Sequence[str] | None, relevant: int | None
) -> list[tuple[int, str]]:
    """The paragraphs that a two-stage entry names by number, each with its number, in the entry's order.

    Raises ValueError without a context file, for a number outside it, and if `relevant` is not among them.
    """
    if contexts is None:
        raise ValueError("its paragraphs are numbers: name the list of paragraphs with --context_file")
    numbers = [whole_number(number, "paragraphs") for number in item["paragraphs"]]
    for number in numbers:
        if not 0 <= number < len(contexts):
            raise ValueError(f"paragraph {number} is not among the {len(contexts)} of --context_file")
    if relevant is not None and relevant not in numbers:
        raise ValueError(f"the relevant paragraph {relevant} is not one of its paragraphs {numbers}")
    return [(number, contexts[number]) for number in numbers]


def _answer(answer: Any, field: str) -> Answer:
    if isinstance(answer, str):
        return Answer(answer, -1)
    if not isinstance(answer, Mapping):
        raise ValueError(f"'{field}' holds {answer!r}: a text, or an object with text and answer_start, is expected")
    start = answer.get("answer_start")
    return Answer(text_of(answer, "text"), -1 if start in (None, "") else whole_number(start, "answer_start"))


def id_of(entry: Mapping[str, Any], place: str, name: str = "id") -> str:
    """An entry's id; its place in the file where it has none."""
    return place if entry.get(name) is None else str(entry[name])


def objects_of(entry: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The objects in a field; ValueError naming the field for anything but a list of objects."""
    value = entry[name]
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError(f"'{name}' is {value!r:.80}: a list of objects is expected")
    return value


def text_of(entry: Mapping[str, Any], name: str) -> str:
    """The text of a field; ValueError naming the field for null, a number or anything else."""
    value = entry[name]
    if not isinstance(value, str):
        raise ValueError(f"'{name}' is {type(value).__name__} where text is expected")
    return value
