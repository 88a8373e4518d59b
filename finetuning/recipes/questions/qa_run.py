"""The run of extractive question answering: data, and training and scoring of each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from transformers import PretrainedConfig

from finetuning.examples.pair_template import row_limit
from finetuning.examples.preflight import Preflight, note_row_limit, note_shared_texts
from finetuning.examples.recipe import FinetuningOptions
from finetuning.examples.unknown_share import note_unknown_share
from finetuning.loop.stopping import Asked
from finetuning.recipes.options.qa import QAOptions
from finetuning.recipes.questions.metrics import squad_scores
from finetuning.recipes.questions.recipe import QARecipe, QASettings
from finetuning.recipes.questions.sets import note_answers, note_windows, read_question_sets
from finetuning.recipes.questions.spans import SpanLimits
from finetuning.recipes.questions.squad import Question, check_answers, first_names, place_answers
from finetuning.recipes.questions.version_2 import thresholds, version_2_scores
from finetuning.recipes.questions.windows import Windows
from finetuning.run.command import Prepared, finish_world, given_files, open_world, output_directory, run_recipe
from finetuning.run.seed_runs import run_seeds
from finetuning.run.starting_point import StartingPoint, starting_point


def run(options: QAOptions, asked: Asked, start: StartingPoint | None = None) -> int:
    """Run the command with parsed options, from the model that they name, or from `start` if it is already open."""
    ranks = open_world(options)
    files = {} if options.dataset_name else given_files(options, "qa", ranks)
    opened = start or starting_point(options)
    rows = cache(lambda: prepare(options, files, opened))
    directory = output_directory(options, "qa")
    run_seeds(
        options, directory, "qa", lambda seed_options: run_recipe(seed_options, rows, ranks, asked=asked).results, ranks
    )
    finish_world()
    return 0


def prepare(options: QAOptions, files: Mapping[str, str], start: StartingPoint) -> Prepared:
    """Read, check and encode the question sets."""
    preflight = Preflight()
    splits: dict[str, list[Question]] = {}
    unlabelled = []
    for name, questions in read_question_sets(options, files).items():
        blank = [question.id for question in questions if not question.context.strip()]
        if blank:
            remedy = (
                "two-stage data whose `relevant` is unknown needs the chain, finetuning/multiple_choice.py --chain true"
                if options.context_file
                else "give each its context, or remove them"
            )
            raise ValueError(
                f"the {name} set has {len(blank)} questions without a paragraph ({first_names(blank)}): {remedy}"
            )
        if not check_answers(questions, version_2=options.version_2_with_negative, where=name):
            if name != "test":
                raise ValueError(f"the {name} set has no answers: only a test set may have none")
            unlabelled.append(name)
        splits[name] = with_places(options, preflight, name, questions)
    texts = {name: [f"{question.question}\n{question.context}" for question in split] for name, split in splits.items()}
    note_shared_texts(preflight, texts)
    note_unknown_share(preflight, start.tokenizer, texts)
    return encoded(options, preflight, splits, start, unlabelled)


def with_places(
    options: FinetuningOptions, preflight: Preflight, name: str, questions: Sequence[Question]
) -> list[Question]:
    """The questions with their answers at their offsets; the preflight notes those that are not."""
    placed, repairs = place_answers(questions, strict=options.strict, where=f"the {name} set")
    note_answers(preflight, name, placed, repairs)
    return placed


def encoded(
    options: QAOptions,
    preflight: Preflight,
    splits: Mapping[str, Sequence[Question]],
    start: StartingPoint,
    unlabelled: Sequence[str],
) -> Prepared:
    """The recipe for these questions; ValueError if --strict forbids a warning of the preflight."""
    recipe = QARecipe(splits, start.tokenizer, settings_of(options, start.config), unlabelled=unlabelled)
    note_windows(preflight, recipe.window_counts)
    note_row_limit(preflight, options.max_seq_length, recipe.settings.windows.max_seq_length)
    preflight.refuse_if(strict=options.strict)
    return Prepared(start, recipe, preflight)


def settings_of(options: QAOptions, config: PretrainedConfig | None) -> QASettings:
    """Settings from options, within the model's positions if a model is given; ValueError outside their range."""
    return QASettings(
        windows=Windows(row_limit(options.max_seq_length, config), options.doc_stride),
        limits=SpanLimits(options.n_best_size, options.max_answer_length),
        version_2=options.version_2_with_negative,
        null_score_diff_threshold=options.null_score_diff_threshold,
        language=options.answer_language,
    )


def score_names() -> list[str]:
    """The names that the scoring functions give, of both versions."""
    answers = {"a": ["x"], "b": []}
    texts, nulls = dict.fromkeys(answers, ""), dict.fromkeys(answers, 0.0)
    scores = (squad_scores(texts, {"a": ["x"]}), version_2_scores(texts, answers), thresholds(texts, answers, nulls))
    return [*(name for names in scores for name in names), "span_accuracy"]
