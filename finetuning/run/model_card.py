"""The README.md of a fine-tuned model: starting checkpoint, data, budget, scores, how to load it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from huggingface_hub import EvalResult

from finetuning.examples.batches import BatchShape
from finetuning.examples.recipe import DATA_PLACE, FinetuningOptions, Recipe
from finetuning.loop.result import Result
from finetuning.model.heads import AUTO_CLASSES, PIPELINES, OwnHead, TaskModel
from pretraining.publishing.model_card import front_matter, hub_name, named, table, versions_text
from runtime.options.declaration import names_marked


def finetuning_card(
    recipe: Recipe, model: TaskModel, options: FinetuningOptions, result: Result, shape: BatchShape
) -> str:
    """Markdown with the front matter that hubs read; names of files and folders without the path before them."""
    task = recipe.head.task
    source = named(str(options.model_name_or_path))
    start = f"random weights in the shape of `{source}`" if options.from_scratch else f"`{source}`"
    data = [(name, named(value)) for name, value in _data_options(options).items()]
    examples = [("training rows", f"{len(recipe.train_features):,}")]
    examples += [
        (f"{name} examples", f"{len(evaluation_set.examples):,}")
        for name, evaluation_set in recipe.evaluation_sets.items()
    ]
    budget = [
        ("updates", f"{result.updates:,}"),
        ("epochs", f"{result.epochs:g} (best: {result.best_epoch:g})" if result.best_epoch else f"{result.epochs:g}"),
        ("rows of an update", f"{shape.global_rows:,}"),
        ("learning rate", f"{options.learning_rate:g}"),
        ("seed", str(options.seed)),
        ("seconds of training", f"{result.train_seconds:,.0f}"),
        ("versions", versions_text()),
    ]
    scores = [(name, f"{value:.4f}") for name, value in result.scores.items()]
    status = "" if result.status == "done" else f"\n**This run failed ({result.status}):** {result.reason}\n"
    return "\n".join(
        [
            front_matter(
                PIPELINES[task],
                tags=(recipe.name,),
                base_model=None if options.from_scratch else hub_name(options.model_name_or_path),
                scores=measured_scores(recipe, options, result),
            ),
            f"# {recipe.name}: {type(model.transformer).__name__} from {start}",
            status,
            "## Data\n",
            table([*data, *examples]),
            "## Budget\n",
            table(budget),
            "## Scores\n",
            table(scores) if scores else "No labelled set was scored.\n",
            "## Use\n",
            _use(model, task),
        ]
    )


def measured_scores(recipe: Recipe, options: FinetuningOptions, result: Result) -> list[EvalResult]:
    """The scores of a run that did not fail, as a model-index lists them: by set and metric, finite ones."""
    if result.status != "done":
        return []
    places = _data_options(options)
    name, scores = ", ".join(dict.fromkeys(map(named, places.values()))), []
    for score, value in result.scores.items():
        split, _, metric = score.partition("_")
        if math.isfinite(value):
            scores.append(
                EvalResult(
                    task_type=PIPELINES[recipe.head.task],
                    dataset_type=places.get("dataset_name", recipe.name),
                    dataset_name=name,
                    dataset_split="validation" if split == "eval" else split,
                    metric_type=metric,
                    metric_name=metric.replace("_", " "),
                    metric_value=value,
                )
            )
    return scores


def _data_options(options: FinetuningOptions) -> Mapping[str, str]:
    given = {name: getattr(options, name) for name in names_marked(options, DATA_PLACE)}
    return {name: str(value) for name, value in given.items() if value} or {"data": "the embedded small world"}


def _use(model: TaskModel, task: str) -> str:
    if isinstance(model.transformer, OwnHead):
        return (
            f"`transformers` has no class for this head ({model.transformer.pooling} pooling): with this project "
            'installed, `from finetuning import load` and `model, tokenizer = load("this folder")`.\n'
        )
    name = AUTO_CLASSES[task].__name__
    return (
        "```python\n"
        f"from transformers import {name}, AutoTokenizer\n\n"
        f'model = {name}.from_pretrained("this folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("this folder")\n'
        "```\n"
    )
