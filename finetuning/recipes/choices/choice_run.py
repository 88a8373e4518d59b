"""The multiple-choice run, alone or as the first stage of the chain: data, and the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from finetuning.examples.dataset_records import subset
from finetuning.examples.pair_template import row_limit
from finetuning.examples.preflight import Preflight, note_label_balance, note_row_limit, note_shared_texts
from finetuning.examples.unknown_share import note_unknown_share
from finetuning.examples.unlabelled import drop_unlabelled, note_unlabelled
from finetuning.loop.stopping import Asked
from finetuning.recipes.choices.chain import check_chain, run_chain, second_start
from finetuning.recipes.choices.choice_files import ChoiceQuestion, choices_from_rows, has_labels, read_choices
from finetuning.recipes.choices.recipe import ChoiceRecipe
from finetuning.recipes.options.multiple_choice import MultipleChoiceOptions
from finetuning.recipes.questions.sets import load_splits, refuse_idle_contexts, sample_limit
from finetuning.run.command import Prepared, finish_world, given_files, open_world, output_directory, run_recipe
from finetuning.run.seed_runs import run_seeds
from finetuning.run.starting_point import StartingPoint, starting_point


def run(options: MultipleChoiceOptions, asked: Asked, start: StartingPoint | None = None) -> int:
    """Run the command with parsed options, from the model that they name, or from `start` if it is already open."""
    ranks = open_world(options)
    files = {} if options.dataset_name else given_files(options, "multiple_choice", ranks)
    if options.chain:
        check_chain(options, files, ranks)
    opened = start or starting_point(options)
    second = second_start(options, opened) if options.chain else opened
    rows = cache(lambda: prepare(options, files, opened))
    name = "chain" if options.chain else "multiple_choice"
    stages = ("multiple_choice", "qa") if options.chain else ("",)

    def run_seed(seed_options: MultipleChoiceOptions) -> dict[str, Any]:
        if seed_options.chain:
            return run_chain(seed_options, files, rows, second, ranks, asked)
        return run_recipe(seed_options, rows, ranks, asked=asked).results

    run_seeds(options, output_directory(options, name), name, run_seed, ranks, stages=stages)
    finish_world()
    return 0


def prepare(options: MultipleChoiceOptions, files: Mapping[str, str], start: StartingPoint) -> Prepared:
    """Read, check and encode the questions."""
    preflight = Preflight()
    splits: dict[str, list[ChoiceQuestion]] = {}
    unlabelled = []
    read = read_sets(options, files)
    labelled = read if options.chain else drop_unlabelled(read)  # the chain answers each question of its files
    note_unlabelled(preflight, read, labelled)
    for name, questions in labelled.items():
        splits[name] = subset(questions, sample_limit(options, name), lambda question: question.id)
        preflight.note(f"{name}_examples", len(splits[name]))
        if not has_labels(splits[name], name):
            if name != "test":
                raise ValueError(f"the {name} set has no labels: only a test set may have none")
            unlabelled.append(name)
    labels = {
        name: [str(question.label) for question in split] for name, split in splits.items() if name not in unlabelled
    }
    note_label_balance(preflight, labels)
    texts = {name: [choice_text(question) for question in split] for name, split in splits.items()}
    note_shared_texts(preflight, texts)
    note_unknown_share(preflight, start.tokenizer, texts)
    limit = row_limit(options.max_seq_length, start.config)
    recipe = ChoiceRecipe(splits, start.tokenizer, max_seq_length=limit, unlabelled=unlabelled)
    for name, counts in recipe.counts.items():
        preflight.note(f"{name}_overlong_share", counts.cut / counts.choices)
    note_row_limit(preflight, options.max_seq_length, limit)
    preflight.refuse_if(strict=options.strict)
    return Prepared(start, recipe, preflight)


def choice_text(question: ChoiceQuestion) -> str:
    """The text by which equal questions are recognised, whatever the order of the choices."""
    return "\n".join([*dict.fromkeys(question.firsts), *sorted(question.seconds)])


def read_sets(options: MultipleChoiceOptions, files: Mapping[str, str]) -> dict[str, list[ChoiceQuestion]]:
    """Questions by split, from files or a `datasets` data set."""
    if options.dataset_name:
        splits = load_splits(options.dataset_name, options.dataset_config_name)
        return {name: choices_from_rows(rows, f"{options.dataset_name} {name}") for name, rows in splits.items()}
    bad = options.on_bad_text
    contexts_by_split = {
        name: read_choices(file, context_file=options.context_file, on_bad_text=bad) for name, file in files.items()
    }
    refuse_idle_contexts(options, contexts_by_split)
    return contexts_by_split


def score_names() -> list[str]:
    """The one score of multiple choice."""
    return ["accuracy"]
