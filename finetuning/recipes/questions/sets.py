"""The question sets of a run, from files or a `datasets` data set, and their preflight checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from finetuning.examples.dataset_records import read_dataset, subset
from finetuning.examples.preflight import Preflight
from finetuning.recipes.questions.squad import AnswerRepairs, Question, questions_from_rows, read_questions
from finetuning.recipes.questions.windows import WindowCounts
from finetuning.recipes.texts.labelled_text import SPLIT_NAMES
from runtime.options.declaration import BadText
from runtime.options.option_rules import refuse_given


class QuestionSource(Protocol):
    """The options that name the source of questions."""

    dataset_name: str | None
    dataset_config_name: str | None
    context_file: str | None
    on_bad_text: BadText
    max_train_samples: int | None
    max_eval_samples: int | None


def read_question_sets(options: QuestionSource, files: Mapping[str, str]) -> dict[str, list[Question]]:
    """Questions by split, or a subset of them where asked for (examples, never rows)."""
    if options.dataset_name:
        questions_by_split = {
            name: questions_from_rows(rows, f"{options.dataset_name} {name}")
            for name, rows in load_splits(options.dataset_name, options.dataset_config_name).items()
        }
    else:
        questions_by_split = {
            name: read_questions(file, context_file=options.context_file, on_bad_text=options.on_bad_text)
            for name, file in files.items()
        }
        refuse_idle_contexts(options, questions_by_split)
    return {
        name: subset(questions, sample_limit(options, name), lambda question: question.id)
        for name, questions in questions_by_split.items()
    }


def refuse_idle_contexts(options: Any, sets: Mapping[str, Sequence[Any]]) -> None:
    """ValueError for a context file whose paragraphs no question of any set refers to."""
    if not any(question.numbered for questions in sets.values() for question in questions):
        refuse_given(options, ("context_file",), "questions that have their own paragraphs or choices")


def sample_limit(options: QuestionSource, split: str) -> int | None:
    """The largest number of examples to use of a split."""
    return options.max_train_samples if split == "train" else options.max_eval_samples


def load_splits(name: str, config: str | None, *, asked: str | None = None, **remedy: str) -> dict[str, Any]:
    """Rows of the splits train, validation (or dev, ...) and test of a saved directory or a hub name of `datasets`.

    `asked` and `remedy` are for error messages, as in `read_dataset`.
    """
    loaded = read_dataset(name, config, class_names=False, asked=asked, **remedy)
    rows_by_split: dict[str, Any] = {SPLIT_NAMES[split]: loaded[split] for split in SPLIT_NAMES if split in loaded}
    if not rows_by_split:
        raise ValueError(
            f"{asked or f'--dataset_name {name}'} has none of the splits train, validation, test: {sorted(loaded)}"
        )
    return {split: rows_by_split[split] for split in ("train", "validation", "test") if split in rows_by_split}


def note_answers(preflight: Preflight, name: str, questions: Sequence[Question], repairs: AnswerRepairs) -> None:
    """Note unanswerable questions, and answers that were not at their offset."""
    none = sum(not question.answers for question in questions)
    preflight.note(f"{name}_examples", len(questions))
    preflight.note(f"{name}_unanswerable_share", none / len(questions))
    preflight.note(
        f"{name}_answers_off",
        repairs.off,
        f"{repairs.off} of {repairs.answers} answers of {name} are not at their answer_start: {repairs.repaired} were "
        f"found elsewhere once and repaired, {repairs.ambiguous} occur several times, {repairs.absent} nowhere",
    )
    preflight.note(f"{name}_answers_repaired", repairs.repaired)
    preflight.note(
        f"{name}_without_span",
        repairs.without_span,
        f"{repairs.without_span} questions of {name} have no answer that occurs in their context",
    )


def note_windows(preflight: Preflight, counts: Mapping[str, WindowCounts]) -> None:
    """Note contexts longer than a row, cut questions, and answers that no window contains whole."""
    for name, count in counts.items():
        preflight.note(f"{name}_overlong_share", count.long_contexts / max(1, count.questions))
        preflight.note(f"{name}_rows", count.rows)
        preflight.note(
            f"{name}_cut_questions", count.cut_questions, f"{count.cut_questions} questions of {name} were cut"
        )
        preflight.note(
            f"{name}_dropped", count.dropped, f"{count.dropped} questions of {name} have no answer position to train on"
        )
        preflight.note(
            f"{name}_unreachable",
            count.unreachable,
            f"{count.unreachable} answers of {name} do not fit into any window: raise --doc_stride or --max_seq_length",
        )
