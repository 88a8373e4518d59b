"""Saving and loading of fine-tuned models: verified directories, written atomically, that `transformers` loads.

`recipe.json` next to the model names the recipe and stores its row settings; a head that `transformers` has no
class for is in `head.safetensors`, and the encoder is the model.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator
from safetensors.torch import save_file
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from finetuning.examples.recipe import KEPT, FinetuningOptions, Recipe
from finetuning.loop.evaluation import to_device
from finetuning.model.heads import (
    AUTO_CLASSES,
    CLASSIFICATION,
    HEAD_WEIGHTS,
    SPANS,
    TAGS,
    Head,
    OwnHead,
    TaskModel,
    load_headed,
)
from pretraining.engines.engine import Engine
from pretraining.publishing.export import CARD_NAME, TOLERANCES, WEIGHTS_NAME, ExportError, fit_tokenizer
from runtime.files.schemas import Count, Items, Number, Schema, read_object
from runtime.files.whole_files import whole_directory, write_json
from runtime.model_places import model_place
from runtime.options.declaration import names_marked

RECIPE_NAME, OLD_RECIPE_NAME = "recipe.json", "head.json"
PROOF_ROWS = 8
REMEDY = "save the model again with the recipe that trained it"
PADDING_LOGIT = -1e8  # smaller values are not logits: padding, choices that a question does not have


class _KeptOptions(Schema):
    max_seq_length: Count | None = None
    truncation: str | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    doc_stride: Count | None = None
    n_best_size: Count | None = None
    max_answer_length: Count | None = None
    version_2_with_negative: bool | None = None
    null_score_diff_threshold: Number | None = None
    answer_language: str | None = None
    tag_column: str | None = None


def _known_task(task: str) -> str:
    if task not in AUTO_CLASSES:
        raise ValueError(f"it must be one of {', '.join(AUTO_CLASSES)}")
    return task


class RecipeFile(Schema):
    """recipe.json."""

    schema_version: Literal[1] = 1
    recipe: str | None
    task: Annotated[str, AfterValidator(_known_task)]
    labels: Items[str]
    pooling: str | None
    own_head: bool
    metric: str | None = None
    options: _KeptOptions


class _OldRecipeFile(Schema):
    """head.json of earlier versions, which saved every head next to a bare encoder."""

    recipe: str
    labels: Items[str] = []  # noqa: RUF012
    pooling: str | None = None


@dataclass(frozen=True)
class Proof:
    """The live model's outputs for some rows, which a saved model must reproduce within the rounding of `dtype`."""

    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    dtype: torch.dtype

    @property
    def is_finite(self) -> bool:
        """False for a model that diverged in training."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.outputs.values())


def live_proof(recipe: Recipe, engine: Engine, *, bf16: bool) -> Proof:
    """The first rows of a set and the live model's outputs for them; every rank calls it."""
    sets = [*(evaluation_set.features for evaluation_set in recipe.evaluation_sets.values()), recipe.train_features]
    rows = next(features for features in sets if len(features))[:PROOF_ROWS]
    batch = recipe.collate(rows)
    inputs = {name: batch[name] for name in recipe.model_inputs if name in batch}
    was_training = engine.module.training
    engine.eval()
    with torch.no_grad():
        outputs = engine(**to_device(inputs, engine.device))
    if was_training:
        engine.train()
    kept = {name: tensor.detach().float().cpu() for name, tensor in outputs.items()}
    return Proof(inputs, kept, torch.bfloat16 if bf16 else torch.float32)


def save_model(
    weights: Mapping[str, torch.Tensor],
    model: TaskModel,
    directory: Path,
    *,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    proof: Proof,
    options: FinetuningOptions | None = None,
    card: str = "",
) -> None:
    """Write full weights (as `pretraining.engines.engine.full_weights` gives them); the main rank's work.

    The directory gets its name when the model read back from it gives the live model's outputs. It loads with the
    `transformers` class of its head (an `OwnHead`: with `finetuning.load`), with AutoTokenizer, and with
    --model_name_or_path. Raises ExportError when the outputs differ; then only what was there before remains.
    """
    transformer = model.transformer
    with whole_directory(directory) as temporary:
        config = copy.deepcopy(model.config)
        own = isinstance(transformer, OwnHead)
        body = transformer.encoder if own else transformer
        config.architectures = [type(body).__name__.removeprefix("FSDP")]
        config.dtype = "float32"
        config.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        fit_tokenizer(temporary, config)
        buffers = dict(transformer.named_buffers())
        tensors = {**weights, **{name: buffers[name] for name in transformer.state_dict() if name in buffers}}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if own:
            head = {name: tensor for name, tensor in tensors.items() if name.startswith("head.")}
            save_file(head, temporary / HEAD_WEIGHTS, metadata={"format": "pt"})
            tensors = {name.removeprefix("encoder."): tensors[name] for name in tensors if name not in head}
        save_file(tensors, temporary / WEIGHTS_NAME, metadata={"format": "pt"})
        write_json(temporary / RECIPE_NAME, recipe_facts(recipe, config, own=own, options=options))
        (temporary / CARD_NAME).write_text(card, encoding="utf-8")
        prove(recipe, temporary, proof)


def recipe_facts(
    recipe: Recipe, config: PretrainedConfig, *, own: bool, options: FinetuningOptions | None
) -> dict[str, Any]:
    """The content of recipe.json."""
    head = recipe.head
    pooling = head.pooling or getattr(config, "classifier_pooling", "cls")
    kept = {} if options is None else {name: getattr(options, name) for name in names_marked(options, KEPT)}
    return {
        "schema_version": 1,
        "recipe": recipe.name,
        "task": head.task,
        "labels": list(head.labels),
        "pooling": pooling if head.task == CLASSIFICATION else None,
        "own_head": own,
        "metric": recipe.metric,
        "options": kept,
    }


def prove(recipe: Recipe, directory: Path, proof: Proof) -> None:
    """ExportError unless the directory, read as a user would read it, gives the live model's outputs on the CPU."""
    transformer = read_back(directory)
    with torch.no_grad():
        outputs = recipe.build_model(transformer).eval()(**proof.inputs)
    tolerance = TOLERANCES[proof.dtype]
    for name, live in proof.outputs.items():
        real = live > PADDING_LOGIT
        difference = (outputs[name].float() - live)[real].abs().max().item()
        scale = max(1.0, live[real].abs().max().item())
        if not difference <= tolerance * scale:  # so that a NaN fails
            raise ExportError(
                f"{directory} does not give the live model's {name}: the largest difference is {difference:.3g}, "
                f"allowed is {tolerance:g} of the largest ({scale:.3g})"
            )


def read_back(directory: Path) -> torch.nn.Module:
    """The model of a saved directory in fp32 on the CPU, its head included; ExportError where anything is missing."""
    facts = read_object(directory / RECIPE_NAME, RecipeFile, REMEDY)
    if facts["own_head"]:
        return load_headed(str(directory), head_of(facts), keep_head=True).transformer.eval()
    model, report = AUTO_CLASSES[facts["task"]].from_pretrained(
        str(directory), local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    lost = sorted([*report["missing_keys"], *report["unexpected_keys"]])
    if lost:
        raise ExportError(f"{directory} cannot be read back completely: {', '.join(lost[:5])}")
    return model.eval()


def head_of(facts: Mapping[str, Any]) -> Head:
    """The head that recipe.json describes."""
    labels = tuple(facts["labels"])
    num_outputs = 2 if facts["task"] == SPANS else max(1, len(labels))
    return Head(facts["task"], num_outputs, labels, facts["pooling"], own=facts["own_head"])


def load(directory: str | Path) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """A fine-tuned model with its head, in evaluation mode, and its tokenizer; for any pooling.

    `directory` may also be an `s3://` or `gs://` address of one, or OWNER/NAME@REVISION on the hub, which is fetched.
    The model takes the tokenizer's tensors and gives `.logits` (spans: `.start_logits`, `.end_logits`), as the classes
    of `transformers` do. Raises ValueError where the directory was not written by a recipe.
    """
    directory = Path(directory if isinstance(directory, Path) else model_place(directory)).expanduser()
    if not (directory / RECIPE_NAME).is_file():
        raise ValueError(
            f"{directory} has no {RECIPE_NAME}: name the `best` folder of a fine-tuning run, or load another model "
            "with the Auto classes of `transformers`"
        )
    return read_back(directory), AutoTokenizer.from_pretrained(str(directory), local_files_only=True)


def saved_facts(model_name_or_path: str, config: PretrainedConfig) -> dict[str, Any] | None:
    """The description of a checkpoint's head: its recipe.json, or for a model from elsewhere its architecture,
    as its `config` names it.

    None where it has no head of a recipe: a pretraining checkpoint, or a bare encoder.
    """
    directory = Path(model_place(model_name_or_path)).expanduser()
    if (directory / RECIPE_NAME).is_file():
        return read_object(directory / RECIPE_NAME, RecipeFile, REMEDY)
    if (directory / OLD_RECIPE_NAME).is_file() and (directory / HEAD_WEIGHTS).is_file():
        return _old_facts(read_object(directory / OLD_RECIPE_NAME, _OldRecipeFile, REMEDY))
    named = (config.architectures or [""])[0]
    for task, auto in AUTO_CLASSES.items():
        mapping = auto._model_mapping
        if type(config) in mapping and mapping[type(config)].__name__ == named:
            regression = config.problem_type == "regression" or config.num_labels == 1
            has_labels = task == TAGS or (task == CLASSIFICATION and not regression)
            labels = list(config.id2label.values()) if has_labels else []
            return {
                "recipe": None,
                "task": task,
                "labels": labels,
                "pooling": None,
                "own_head": False,
                "metric": None,
                "options": {},
            }
    return None


def has_names(labels: Sequence[str]) -> bool:
    """False for LABEL_0, LABEL_1, ..., which `transformers` writes when the classes were not named."""
    return not all(re.fullmatch(r"LABEL_\d+", label) for label in labels)


def _old_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """head.json of earlier versions, which saved every head next to a bare encoder."""
    name = facts["recipe"]
    return {
        "recipe": name,
        "task": name if name in AUTO_CLASSES else CLASSIFICATION,
        "labels": facts.get("labels", []),
        "pooling": facts.get("pooling"),
        "own_head": True,
        "metric": None,
        "options": {},
    }
