"""The two-stage chain: multiple choice picks a question's paragraph, extractive QA answers in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field

from finetuning.examples.dataset_records import subset
from finetuning.examples.predictions import write_csv, write_finite_json
from finetuning.examples.preflight import Preflight
from finetuning.loop.result import Result
from finetuning.loop.run_log import closing_table
from finetuning.loop.schedule import makes_updates
from finetuning.loop.stopping import Asked
from finetuning.recipes.options.qa import QAOptions
from finetuning.recipes.questions.qa_run import encoded, with_places
from finetuning.recipes.questions.recipe import QARecipe
from finetuning.recipes.questions.sets import sample_limit
from finetuning.recipes.questions.squad import Question, read_contexts, read_questions
from finetuning.run.command import Prepare, Prepared, run_recipe
from finetuning.run.finished import RESULTS_NAME, read_results
from finetuning.run.option_checks import check_options
from finetuning.run.starting_point import StartingPoint, open_start
from runtime.files.schemas import Schema, checked, shown
from runtime.files.whole_files import read_json
from runtime.processes.ranks import Ranks

CHAINED = "_chain"  # suffix of the sets whose paragraphs were chosen by the first stage
CHOICES_REMEDY = "restore its predictions.json, or remove its folder and run the same command again"


@dataclass(frozen=True)
class Decomposition:
    """Exact match of the validation set in percent, and how much of it each stage loses."""

    examples: int
    choice_right: int
    with_right_paragraph: float
    of_chain: float
    where_choice_right: float | None
    where_choice_wrong: float | None

    def sentence(self) -> str:
        """What the choice of the paragraph costs."""
        lost = self.with_right_paragraph - self.of_chain
        wrong = self.examples - self.choice_right
        return (
            f"exact match {self.with_right_paragraph:.2f} with the right paragraph given, {self.of_chain:.2f} for the "
            f"chain: {lost:.2f} points are lost to the {wrong} of {self.examples} paragraphs that were chosen wrongly"
        )


def check_chain(options: Any, files: Mapping[str, str], ranks: Ranks) -> None:
    """ValueError, before the first stage runs, for input that the second stage cannot use.

    It needs a context file, a validation set and, where the first stage learns, a training set, and its own options.
    """
    needed = {"train", "validation"} if makes_updates(options) else {"validation"}
    if not options.context_file or not needed <= set(files):
        raise ValueError("--chain true needs two-stage data: --train_file, --validation_file and --context_file")
    check_options(second_stage_options(options, Path()), ranks)


def second_start(options: Any, start: StartingPoint) -> StartingPoint:
    """The second stage's checkpoint: --qa_model_name_or_path, or the first stage's. ValueError as `open_start`."""
    if options.qa_model_name_or_path is None:
        return start
    return open_start(
        options.qa_model_name_or_path, from_scratch=options.from_scratch, option="--qa_model_name_or_path"
    )


def run_chain(
    options: Any, files: Mapping[str, str], first_stage: Prepare, start: StartingPoint, ranks: Ranks, asked: Asked
) -> dict[str, Any]:
    """Both stages, then `prediction.csv` (id, answer) and `all_results.json` with the decomposition; all ranks call it.

    The two files are written when the second stage, which starts from `start`, has finished. A stage that has already
    finished is not run again.
    """
    directory = Path(str(options.output_dir))
    second = second_stage_options(options, directory / "qa")
    first = replace(options, output_dir=str(directory / "multiple_choice"))
    choice = run_recipe(first, first_stage, ranks, asked=asked)
    choices = read_choices_made(directory / "multiple_choice", [name for name in files if name != "train"])
    second_stage = cache(lambda: prepare_qa(second, chain_splits(options, files, choices), start))

    def write(answers: Result) -> None:
        last = "test" if "test" in files else "validation"
        texts = {name: answer["text"] for name, answer in answers.predictions[last + CHAINED].items()}
        write_csv(directory / "prediction.csv", ["id", "answer"], texts.items())
        decomposition = decompose(cast(QARecipe, second_stage().recipe), answers)
        write_finite_json(directory / RESULTS_NAME, chain_results(decomposition, choice.results, answers))
        print(decomposition.sentence())

    run_recipe(second, second_stage, ranks, asked=asked, finish=write)
    results = read_results(directory)
    if ranks.is_main:
        print(closing_table(f"chain in {directory}", results))
    return results


def second_stage_options(options: Any, directory: Path) -> Any:
    """The options of the second stage: the first's, except for those that are set for it alone."""
    return replace(
        options,
        output_dir=str(directory),
        model_name_or_path=options.qa_model_name_or_path or options.model_name_or_path,
        learning_rate=options.learning_rate if options.qa_learning_rate is None else options.qa_learning_rate,
        num_train_epochs=(
            options.num_train_epochs if options.qa_num_train_epochs is None else options.qa_num_train_epochs
        ),
    )


def read_choices_made(directory: Path, names: Sequence[str]) -> dict[str, Any]:
    """The first stage's predictions by set and example id, from its files."""
    main = "test" if "test" in names else "validation"
    places = {name: directory if name == main else directory / name for name in names}
    return {name: _choices_in(place / "predictions.json") for name, place in places.items()}


class _Choice(Schema):
    name: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]  # the paragraph's number


def _choices_in(path: Path) -> dict[str, Any]:
    content = read_json(path, remedy=CHOICES_REMEDY, largest=1 << 30)
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object of choices: {CHOICES_REMEDY}")
    for name, choice in content.items():
        checked(choice, _Choice, f"{path}: {shown(name)}", CHOICES_REMEDY)
    return content


def chain_splits(
    options: Any, files: Mapping[str, str], choices: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Question]]:
    """train and validation with the right paragraph; validation_chain and test_chain with the chosen one."""
    bad = options.on_bad_text
    contexts = read_contexts(options.context_file, bad)
    splits = {}
    for name, file in files.items():
        questions = read_questions(file, context_file=options.context_file, on_bad_text=bad)
        questions = subset(questions, sample_limit(options, name), lambda question: question.id)
        if name != "test":
            splits[name] = questions
        if name != "train":
            splits[name + CHAINED] = [
                in_chosen_paragraph(question, choices[name].get(question.id), contexts) for question in questions
            ]
    return splits


def in_chosen_paragraph(question: Question, choice: Mapping[str, Any] | None, contexts: Sequence[str]) -> Question:
    """The same question on the first stage's paragraph; in any other, its answers have a text but no position."""
    if choice is None or int(choice["name"]) >= len(contexts):
        raise ValueError(f"the first stage chose no paragraph for {question.id}: {CHOICES_REMEDY}")
    context = contexts[int(choice["name"])]
    if context == question.context:
        return question
    return replace(question, context=context, answers=tuple(replace(answer, start=-1) for answer in question.answers))


def prepare_qa(options: QAOptions, splits: Mapping[str, Sequence[Question]], start: StartingPoint) -> Prepared:
    """The second stage's recipe; chained sets are only predicted, since a loss on a wrong paragraph means nothing."""
    preflight = Preflight()
    chained = [name for name in splits if name.endswith(CHAINED)]
    placed = {
        name: questions if name in chained else with_places(options, preflight, name, questions)
        for name, questions in splits.items()
    }
    return encoded(options, preflight, placed, start, chained)


def decompose(recipe: QARecipe, answers: Result) -> Decomposition:
    """Exact match of the validation set: right paragraph given, chain, and chain by whether the choice was right."""
    examples = dict(recipe.evaluation_sets["validation" + CHAINED].examples)
    given = dict(recipe.evaluation_sets["validation"].examples)
    predictions = answers.predictions["validation" + CHAINED]
    right = [name for name, question in examples.items() if question.context == given[name].context]
    wrong = [name for name in examples if name not in set(right)]

    def exact(names: Sequence[str]) -> float | None:
        part = {name: examples[name] for name in names}
        return recipe.score({name: predictions[name] for name in names}, part)["exact_match"] if names else None

    return Decomposition(
        examples=len(examples),
        choice_right=len(right),
        with_right_paragraph=recipe.score(answers.predictions["validation"], given)["exact_match"],
        of_chain=exact(list(examples)) or 0.0,
        where_choice_right=exact(right),
        where_choice_wrong=exact(wrong),
    )


def chain_results(decomposition: Decomposition, choice: Mapping[str, Any], answers: Result) -> dict[str, Any]:
    """The flat content of the chain's all_results.json."""
    return {
        "schema_version": 1,
        "status": answers.status if choice["status"] == "done" else choice["status"],
        "metric": "exact_match_chain",
        "eval_choice_accuracy": choice.get("eval_accuracy"),
        "eval_choice_right": decomposition.choice_right,
        "eval_examples": decomposition.examples,
        "eval_exact_match_right_paragraph": decomposition.with_right_paragraph,
        "eval_exact_match_chain": decomposition.of_chain,
        "eval_exact_match_choice_right": decomposition.where_choice_right,
        "eval_exact_match_choice_wrong": decomposition.where_choice_wrong,
        "eval_points_lost_by_choice": decomposition.with_right_paragraph - decomposition.of_chain,
        "choice_status": choice["status"],
        "qa_status": answers.status,
        "seconds": choice["seconds"] + answers.seconds,
    }
