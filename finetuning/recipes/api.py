"""Fine-tuning from Python: `finetune` and `predict`, which the commands call too, and what they leave.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from finetuning.examples.recipe import FinetuningOptions
from finetuning.recipes.options.keywords import (
    ClassificationKeywords,
    GlueKeywords,
    MultipleChoiceKeywords,
    PredictionKeywords,
    QAKeywords,
    TokenKeywords,
)
from finetuning.recipes.options.prediction import PredictionOptions
from finetuning.run.option_checks import RECIPES, options_class
from finetuning.run.replaced_options import replaced_option
from runtime.options.keywords import options_of
from runtime.processes.ranks import read_ranks
from runtime.processes.restoring import restoring_process

RESULTS_NAME = "all_results.json"
SCORES = ("eval_", "test_")


@dataclass(frozen=True)
class FinetuningOutcome:
    """A run's folder, and what is in it: the main rank wrote it, and every property reads it again."""

    output_dir: Path

    @property
    def results(self) -> dict[str, Any]:
        """all_results.json: `status` ("done", "collapsed" or "not_finite"), scores, times, options that decided.

        Of several seeds, the summary; of several GLUE tasks, whose results are in `runs`, nothing.
        """
        from finetuning.run.finished import read_results

        return read_results(self.output_dir) if (self.output_dir / RESULTS_NAME).is_file() else {}

    @property
    def scores(self) -> dict[str, float]:
        """The scores of the best epoch: eval_... of the validation set, test_... of the test set if it has answers.

        Names and units are those of `transformers`: accuracy and F1 of texts and tags from 0 to 1, exact match and F1
        of answers in percent, losses in nats. Of several seeds, the mean, and the median and deviation beside it.
        """
        kept = {name: value for name, value in self.results.items() if name.startswith(SCORES)}
        return {name: float(value) for name, value in kept.items() if isinstance(value, int | float)}

    @property
    def predictions(self) -> Path | None:
        """The CSV file of the test set's predictions, by example id, or of the validation set's without a test set.

        Those of the other sets are in folders named after the sets. None where there are several `runs`.
        """
        files = (self.output_dir / name for name in ("predictions.csv", "prediction.csv"))
        return next((file for file in files if file.is_file()), None)

    @property
    def model(self) -> Path | None:
        """The best epoch's model, for `load` or `transformers`; None if none was saved, or there are several `runs`."""
        best = self.output_dir / "best"
        return best if best.is_dir() else None

    @property
    def runs(self) -> dict[str, FinetuningOutcome]:
        """The runs of several seeds ("seed-0", ...), of several GLUE tasks, and of the chain's two stages."""
        folders = sorted(file.parent for file in self.output_dir.glob(f"*/{RESULTS_NAME}"))
        return {folder.name: FinetuningOutcome(folder) for folder in folders}


@overload
def finetune(recipe: Literal["classification"], /, **options: Unpack[ClassificationKeywords]) -> FinetuningOutcome: ...


@overload
def finetune(recipe: Literal["glue"], /, **options: Unpack[GlueKeywords]) -> FinetuningOutcome: ...


@overload
def finetune(recipe: Literal["multiple_choice"], /, **options: Unpack[MultipleChoiceKeywords]) -> FinetuningOutcome: ...


@overload
def finetune(recipe: Literal["qa"], /, **options: Unpack[QAKeywords]) -> FinetuningOutcome: ...


@overload
def finetune(recipe: Literal["token_classification"], /, **options: Unpack[TokenKeywords]) -> FinetuningOutcome: ...


@overload
def finetune(recipe: FinetuningOptions, /) -> FinetuningOutcome: ...


def finetune(recipe: str | FinetuningOptions, /, **options: Any) -> FinetuningOutcome:
    """Fine-tune a checkpoint on a task and score it, as the command of the same name in finetuning/ does.

    The keywords are the options of that command, under the same names and with the same defaults (`--help` describes
    them); or give one object in place of the name, `finetune(QAOptions(...))`. A run that was interrupted continues,
    and one that is finished is only read, when it is called again.

    Under torchrun or deepspeed every rank calls it with the same options. The process is as before when it returns or
    raises: see `runtime.processes.restoring`. Progress and a table of scores are printed.

    `recipe` is "classification", "glue", "multiple_choice", "qa" or "token_classification"; the keywords are
    `train_file`, `model_name_or_path`, `output_dir` (default: runs/finetuning/RECIPE) and so on.

    Raises TypeError for an unknown keyword or a value of another type; ValueError for options, data or a checkpoint
    that cannot be used, and for a folder with another run; Interrupted on SIGTERM, SIGUSR1 or Ctrl-C, when the state is
    saved and the same call continues; Failed, OSError, MemoryError and torch.OutOfMemoryError of another rank, or of
    the machine.
    """
    name = recipe if isinstance(recipe, str) else recipe_of(recipe)
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r}: use one of {', '.join(RECIPES)}")
    given = None if isinstance(recipe, str) else recipe
    wanted = options_of(options_class(name), given, options, function="finetune", replaced=replaced_option)
    with restoring_process("finetune", read_ranks()):
        from finetuning.run.command import for_small_world, output_directory, run_until_asked

        filled = wanted if name == "glue" else for_small_world(wanted)
        directory = output_directory(filled, "chain" if getattr(filled, "chain", False) else name)
        run_until_asked(lambda asked: import_module(RECIPES[name]).run(filled, asked), directory, filled)
    return FinetuningOutcome(directory)


def recipe_of(options: FinetuningOptions) -> str:
    """The recipe whose options these are; TypeError for those that no recipe has."""
    for name in RECIPES:
        if type(options) is options_class(name):
            return name
    raise TypeError(f"finetune() takes the name of a recipe or its options, not {type(options).__name__}")


@overload
def predict(options: PredictionOptions, /) -> FinetuningOutcome: ...


@overload
def predict(**keywords: Unpack[PredictionKeywords]) -> FinetuningOutcome: ...


def predict(options: PredictionOptions | None = None, /, **keywords: Any) -> FinetuningOutcome:
    """Predict on new data with a fine-tuned model of any recipe, as launch/predict.py does.

    `model_name_or_path` is the `best` folder of a run, which stores its recipe and the form of its rows, and
    `test_file` has the examples, with or without answers; further keywords are the options of the command. Ranks,
    process and errors are as in `finetune`. Returns the predictions' file, and the scores if the file has answers.
    """
    wanted = options_of(PredictionOptions, options, keywords, function="predict")
    with restoring_process("predict", read_ranks()):
        from finetuning.recipes import prediction
        from finetuning.run.command import run_until_asked

        directory = Path(wanted.output_dir)
        run_until_asked(lambda asked: prediction.predict(wanted, asked), directory)
    return FinetuningOutcome(directory)
