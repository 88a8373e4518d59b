"""Readers of multiple-choice files: SWAG-like, C3, DREAM, CommonsenseQA, plain rows, and the two-stage format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finetuning.examples.label_cells import MINUS_ONE, read_label
from finetuning.examples.record_files import NotAnObject, OnBadText, examples_of, read_content, whole_number
from finetuning.recipes.questions.squad import (
    article_of,
    id_of,
    in_articles,
    paragraphs_of,
    read_contexts,
    require_unique_ids,
    text_of,
)
from runtime.files.schemas import shown
from runtime.plurals import counted


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question with choices; `label` is the right one's index, None where it is not known.

    The model reads a choice as the pair (`first`, `second` of that choice): what is asked, and what can be chosen.
    `article` is what its file says that several questions are from (a title, a video), if it names several.
    """

    id: str
    firsts: tuple[str, ...]  # one per choice, usually the same text
    seconds: tuple[str, ...]
    label: int | None
    names: tuple[str, ...]  # the choices' names in the file: numbers, letters or texts
    numbered: bool = field(default=False, repr=False, compare=False)  # the choices are paragraphs of a context file
    article: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.seconds) < 2:
            raise ValueError(f"question {self.id} has {counted(len(self.seconds), 'choice')}: give at least 2")
        if self.label is not None and not 0 <= self.label < len(self.seconds):
            raise ValueError(
                f"question {self.id} has label {self.label}, but its choices are 0 to {len(self.seconds) - 1}"
            )


def read_choices(
    path: str | Path, *, context_file: str | Path | None = None, on_bad_text: OnBadText = "stop"
) -> list[ChoiceQuestion]:
    """All questions of a file, in file order.

    Raises ValueError, naming the file and the entry, for anything that is not one of the known layouts, and listing
    duplicate ids.
    """
    where = Path(path)
    contexts = None if context_file is None else read_contexts(context_file, on_bad_text)
    return choices_from_rows(_entries(where, on_bad_text), str(where), contexts)


def choices_from_rows(rows: Iterable[Any], where: str, contexts: Sequence[str] | None = None) -> list[ChoiceQuestion]:
    """Questions from entries of any known layout; errors name `where` and the entry."""
    layouts = "rows need id, context, question, choices and label, or the layout of SWAG, C3, DREAM or CommonsenseQA"
    questions = examples_of(rows, where, lambda item, number: _questions_of(item, number, contexts), layouts)
    if not questions:
        raise ValueError(f"{where}: no questions; give a file with at least one")
    require_unique_ids([question.id for question in questions], where)
    return in_articles(questions)


def has_labels(questions: Sequence[ChoiceQuestion], where: str) -> bool:
    """Whether all questions have a label; ValueError when only some do."""
    without = [question.id for question in questions if question.label is None]
    if without and len(without) < len(questions):
        raise ValueError(
            f"{where}: {len(without)} of {len(questions)} questions have no label ({', '.join(without[:5])}): "
            "label all of them or none"
        )
    return not without


def _entries(path: Path, on_bad_text: OnBadText) -> list[Any]:
    content = read_content(path, on_bad_text=on_bad_text)
    content = content.get("data", content) if isinstance(content, dict) else content
    if not isinstance(content, list):
        raise ValueError(f"{path}: a list of questions is needed")
    return content


def _questions_of(item: Any, number: int, contexts: Sequence[str] | None) -> list[ChoiceQuestion]:
    if not isinstance(item, (list, Mapping)):
        raise NotAnObject(item)
    if isinstance(item, list):
        return _dialogue_questions(*item)
    if "documents" in item:  # C3 as `datasets` stores it
        return _dialogue_questions(item["documents"], _rows_of(item["questions"]), item["document_id"])
    if "dialogue" in item:  # DREAM as `datasets` stores it: one row per question
        first = whole_number(item.get("id", number), "id")
        return _dialogue_questions(item["dialogue"], [item], item["dialogue_id"], first=first)
    if isinstance(item.get("paragraphs"), list) and any(isinstance(entry, Mapping) for entry in item["paragraphs"]):
        raise KeyError("choices")  # SQuAD's layout: questions without choices
    if "paragraphs" in item:
        return [_two_stage(item, number, contexts)]
    if "ending0" in item:
        return [_endings(item, number)]
    if isinstance(item.get("question"), Mapping):
        return [_lettered(item, str(number))]
    if "choices" in item:
        is_lettered = "answerKey" in item or ("context" not in item and not _are_texts(item["choices"]))
        return [(_lettered if is_lettered else _plain)(item, str(number))]
    raise KeyError("choices")


def _rows_of(questions: Any) -> list[Mapping[str, Any]]:
    """A list of {name: value}, also from the form that `datasets` gives one: {name: list of values}."""
    if not isinstance(questions, Mapping):
        return list(questions)
    return [dict(zip(questions, values, strict=True)) for values in zip(*questions.values(), strict=True)]


def _dialogue_questions(
    lines: Sequence[str], questions: Sequence[Any], name: Any, first: int = 0
) -> list[ChoiceQuestion]:
    """C3 and DREAM: paragraphs or turns, questions, id; the answer is the text of the right choice."""
    if isinstance(lines, str):
        raise ValueError(f"the text is {shown(lines)}; a list of paragraphs or turns is needed")
    context = "\n".join(lines)
    choice_questions = []
    for number, entry in enumerate(questions, first):
        choices = _texts_of(entry["choice"])
        label = _place(entry.get("answer"), choices, f"the answer {{}} of question {number} is not one of its choices")
        choice_questions.append(
            _with_context(f"{name}-{number}", context, text_of(entry, "question"), choices, label, choices)
        )
    return choice_questions


def _plain(item: Mapping[str, Any], place: str) -> ChoiceQuestion:
    """Rows of id, context, question, choices, and label (an index) or else answer (the text of a choice)."""
    choices = _texts_of(item["choices"])
    index = _index(item.get("label"), "label")
    if index is None:
        index = _place(item.get("answer"), choices, "the answer {} is not one of the choices")
    name = id_of(item, place)
    question = _with_context(name, text_of(item, "context"), text_of(item, "question"), choices, index, choices)
    return replace(question, article=article_of(item))


def _lettered(item: Mapping[str, Any], place: str) -> ChoiceQuestion:
    """CommonsenseQA: a stem and lettered choices; as released or as `datasets` stores it."""
    stem: Mapping[str, Any] = item["question"] if isinstance(item["question"], Mapping) else item
    question = text_of(stem, "stem" if stem is not item else "question")
    choices = stem.get("choices") or []
    if _are_texts(choices) and choices:
        raise ValueError(
            "'answerKey' is a letter, but the choices have none: write 'answer', the text of the right one"
        )
    if not isinstance(choices, Mapping):
        choices = {name: [choice[name] for choice in choices] for name in ("label", "text")}
    letters, texts = _texts_of(choices["label"]), _texts_of(choices["text"])
    if len(letters) != len(texts):
        raise ValueError(f"{counted(len(letters), 'letter')} for {counted(len(texts), 'choice')}: give each choice one")
    label = _place(item.get("answerKey"), letters, "answerKey {} is not one of the letters")
    return ChoiceQuestion(id_of(item, place), (question,) * len(texts), texts, label, letters)


def _endings(item: Mapping[str, Any], number: int) -> ChoiceQuestion:
    """SWAG: sent1, and sent2 continued by ending0, ending1, ...; without ids the row number is the id."""
    given: list[Any] = []
    while f"ending{len(given)}" in item:
        given.append(item[f"ending{len(given)}"])
    endings = _texts_of(given)
    starts = text_of(item, "sent2") if item.get("sent2") else ""
    seconds = tuple(f"{starts} {ending}".strip() for ending in endings)
    index = _index(item.get("label"), "label")
    name = str(item.get("id", item.get("", number)))
    names = tuple(map(str, range(len(seconds))))
    firsts = (text_of(item, "sent1"),) * len(seconds)
    return ChoiceQuestion(name, firsts, seconds, index, names, article=article_of(item, "video-id"))


def _two_stage(item: Mapping[str, Any], number: int, contexts: Sequence[str] | None) -> ChoiceQuestion:
    """A question and the numbers of its paragraphs, one of which is `relevant`."""
    relevant = _index(item.get("relevant"), "relevant")
    numbers, texts = zip(*paragraphs_of(item, contexts, relevant), strict=True)
    label = None if relevant is None else numbers.index(relevant)
    firsts = (text_of(item, "question"),) * len(texts)
    return ChoiceQuestion(id_of(item, str(number)), firsts, texts, label, tuple(map(str, numbers)), numbered=True)


def _index(value: Any, field: str) -> int | None:
    """A whole number; None where the label is not known: null, "", NaN or -1."""
    label = read_label(value, f"'{field}'")
    return None if label in (None, MINUS_ONE) else whole_number(label, field)


def _place(answer: Any, choices: Sequence[str], error: str) -> int | None:
    """The index of an answer among the choices, ignoring blanks around it; None if it is unknown, as in `_index`.

    Raises ValueError for any other answer: `error` with the answer filled in, and the choices.
    """
    if answer in choices:
        return choices.index(answer)
    label = read_label(answer, "the answer")
    bare = [read_label(choice, "a choice") for choice in choices]
    if label is not None and label in bare:
        return bare.index(label)
    if label in (None, MINUS_ONE):
        return None
    raise ValueError(f"{error.format(shown(answer))} {shown(tuple(choices))}")


def _are_texts(choices: Any) -> bool:
    return isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)


def _texts_of(choices: Any) -> tuple[str, ...]:
    """A list of texts or numbers; ValueError for a single text (its letters are no texts), null and objects."""
    if not isinstance(choices, list):
        raise ValueError(f"the choices are {shown(choices)}; a list of texts is needed")
    for choice in choices:
        if not isinstance(choice, (str, int, float)):
            raise ValueError(f"the choice {shown(choice)} is not a text")
    return tuple(map(str, choices))


def _with_context(
    name: str, context: str, question: str, choices: tuple[str, ...], label: int | None, names: tuple[str, ...]
) -> ChoiceQuestion:
    """(context, question choice); a gap "..." in the question's context is kept as it is."""
    seconds = tuple(f"{question} {choice}".strip() for choice in choices)
    return ChoiceQuestion(name, (context,) * len(choices), seconds, label, names)
