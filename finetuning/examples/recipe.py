"""The Recipe protocol between a task and the training loop, and the options that all recipes share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from pretraining.plan.options import PretrainingOptions
from runtime.options.declaration import (
    ALL_SEEDS,
    DATA,
    MACHINE,
    MODEL,
    OUTPUT,
    TRAINING,
    BadText,
    Options,
    option,
    option_as_in,
)
from shards.building.options import BuildOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from finetuning.model.heads import Head

SCHEDULES = ("linear", "constant")
SMALL_WORLD = "on the small world"  # there, some options have other defaults
OTHERWISE = "otherwise"
# Properties of some options, for code that depends on them.
SPLIT_FILE = "the file of a split"
NAMES_DATA = "names data: without any such option it is the small world"
DATA_PLACE = "where the data come from"
PATH, PATH_OR_HUB_NAME = "a path", "a path or a name on a hub"
MODEL_PLACE = "a model: a path, a name on the hub, or an address"
KEPT = "kept with the model: decides how new data become predictions"
SET_BY_A_SWEEP = "set by a sweep, not by its rows"
COLUMN = "a column of a table"

# One encoded row. Read by the loop: "example_id" (str), "input_ids" (for the length), and if present "window" (int,
# numbers the rows of an example), "length" (int, by which rows are grouped), "weight" (float, share in the loss).
Feature = Mapping[str, Any]
Batch: TypeAlias = "dict[str, torch.Tensor]"


@dataclass(frozen=True)
class EvaluationSet:
    """Rows to predict and the examples that score them; `labelled` is False for a test set without answers."""

    features: Sequence[Feature]
    examples: Mapping[str, Any]  # by example id, in file order
    labelled: bool = True
    groups: Mapping[str, str] = field(default_factory=dict)  # by example id: what some share, such as a paragraph


class Recipe(Protocol):
    """The interface of a task to the loop; any class with these members will do."""

    @property
    def name(self) -> str: ...

    @property
    def metric(self) -> str:
        """The key of score() that picks the best epoch; higher is better."""
        ...

    @property
    def metric_maximum(self) -> float:
        """The best value `metric` can take: 1.0, or 100.0 for percent."""
        ...

    @property
    def model_inputs(self) -> Sequence[str]:
        """The keys of a batch that go to the model."""
        ...

    @property
    def train_features(self) -> Sequence[Feature]: ...

    @property
    def evaluation_sets(self) -> Mapping[str, EvaluationSet]:
        """Among these, "validation" is scored after each epoch and picks the best; others are predicted at the end."""
        ...

    @property
    def head(self) -> Head:
        """The head that the task needs; `finetuning/model/heads.py` finds or builds it."""
        ...

    def build_model(self, transformer: nn.Module) -> nn.Module:
        """A `finetuning.model.heads.TaskModel` around the model and its head; its forward returns a dict of tensors."""
        ...

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Tensors whose first dimension is the row, padded to the batch's longest: the model's inputs and labels."""
        ...

    def measure(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Per-row values [R]: "loss" and any others worth a curve ("accuracy", ...)."""
        ...

    def predict(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Per-row predictions [R, ...]; the trailing shape must be the same for every batch of a set."""
        ...

    def finish(self, rows: Mapping[str, np.ndarray], evaluation_set: EvaluationSet) -> dict[str, Any]:
        """Rows [N, ...] in the order of `evaluation_set.features` -> one prediction per example id (JSON values)."""
        ...

    def score(self, predictions: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, float]:
        """Metrics under the names that `transformers` gives them, without the prefix eval_ or test_."""
        ...

    def predicted_labels(self, predictions: Mapping[str, Any]) -> list[str]:
        """The predicted labels, one per example: their entropy shows whether a run collapsed."""
        ...

    def majority_score(self, examples: Mapping[str, Any]) -> float | None:
        """The value of `metric` for the best constant answer; None where no constant answer makes sense."""
        ...

    def write(self, predictions: Mapping[str, Any], evaluation_set: EvaluationSet, directory: Path) -> None:
        """Write the prediction files of one set."""
        ...


@dataclass
class FinetuningOptions(Options):
    """Options of every recipe; a recipe's own dataclass inherits from it and may change defaults."""

    train_file: str | None = option(
        None,
        "training examples; default: the embedded small world",
        group=DATA,
        marks=(SPLIT_FILE, NAMES_DATA, DATA_PLACE, PATH),
    )
    validation_file: str | None = option(
        None,
        "validation examples; they pick the best epoch",
        group=DATA,
        marks=(SPLIT_FILE, NAMES_DATA, DATA_PLACE, PATH),
    )
    test_file: str | None = option(
        None,
        "test examples, with or without answers",
        group=DATA,
        marks=(SPLIT_FILE, NAMES_DATA, DATA_PLACE, PATH),
    )
    dataset_name: str | None = option(
        None,
        "name or saved directory of a `datasets` data set, instead of files",
        group=DATA,
        marks=(NAMES_DATA, DATA_PLACE, PATH_OR_HUB_NAME),
    )
    dataset_config_name: str | None = option(None, "configuration of --dataset_name", group=DATA, marks=(DATA_PLACE,))
    max_seq_length: int = option_as_in(
        384,
        PretrainingOptions,
        "max_seq_length",
        "longest row in tokens, special tokens included",
        at_least=8,
        by_data={SMALL_WORLD: 64},
        marks=(KEPT,),
        at_most=None,
    )
    max_train_samples: int | None = option(
        None, "use only N training examples, chosen by a hash of their ids", group=DATA, at_least=1
    )
    max_eval_samples: int | None = option(
        None, "use only N validation and N test examples, chosen by a hash of their ids", group=DATA, at_least=1
    )
    on_bad_text: BadText = option_as_in(
        "stop",
        BuildOptions,
        "on_bad_text",
        "text that is not UTF-8: stop, or replace and count",
        group=DATA,
        identity=True,
    )
    strict: bool = option(False, "refuse input that the preflight would otherwise repair or drop", group=DATA)

    model_name_or_path: str | None = option_as_in(
        None,
        PretrainingOptions,
        "model_name_or_path",
        "checkpoint: directory, s3:// or gs:// address, hub name or OWNER/NAME@REVISION; default: the newest of the "
        "default pretraining run",
        marks=(MODEL_PLACE,),
    )
    from_scratch: bool = option(
        False, "keep the checkpoint's configuration and tokenizer, drop its weights", group=MODEL
    )
    dropout: float | None = option(
        None,
        "replace every dropout rate of the model's configuration",
        group=MODEL,
        at_least=0,
        below=1,
        what="a rate such as 0.1",
    )

    num_train_epochs: float = option(
        3.0,
        "passes over the training rows; 0 only evaluates",
        group=TRAINING,
        at_least=0,
        below=math.inf,
        what="0 only evaluates",
        by_data={SMALL_WORLD: 8.0},
    )
    max_steps: int = option(
        -1,
        "stop after N updates, before the last epoch if need be; -1: no limit",
        group=TRAINING,
        at_least=-1,
        what="-1 is no limit",
    )
    global_batch_rows: int | None = option_as_in(
        None,
        PretrainingOptions,
        "global_batch_rows",
        "rows of one update over all ranks; micro-batch x accumulation x ranks if one of these is given",
        at_least=1,
        by_data={SMALL_WORLD: 16, OTHERWISE: 32},
    )
    learning_rate: float = option_as_in(5e-5, PretrainingOptions, "learning_rate", by_data={SMALL_WORLD: 1e-3})
    lr_scheduler_type: str = option(
        "linear", "learning rate after the warmup: linear (to zero) or constant", group=TRAINING, choices=SCHEDULES
    )
    warmup_ratio: float = option(
        0.1,
        "share of the updates over which the learning rate rises from zero",
        group=TRAINING,
        at_least=0,
        below=1,
        what="a share of the updates",
    )
    weight_decay: float = option_as_in(
        0.01, PretrainingOptions, "weight_decay", "AdamW weight decay, not on norms and biases"
    )
    max_grad_norm: float = option_as_in(1.0, PretrainingOptions, "max_grad_norm", "gradient clipping; 0: none")
    early_stopping_patience: int = option(
        0, "stop after N validations without a better score; 0: never", group=TRAINING, at_least=0
    )
    seed: int = option_as_in(
        42,
        PretrainingOptions,
        "seed",
        "seed of the head, of the order of the rows and of dropout",
        marks=(SET_BY_A_SWEEP,),
    )
    seeds: list[int] = option(
        [],
        "several seeds, each in its own folder; default: --seed alone",
        group=TRAINING,
        at_least=0,
        below=ALL_SEEDS,
        identity=False,
        marks=(SET_BY_A_SWEEP,),
    )

    # A run with auto is not the same run as one with true or false, which fix the precision on every machine.
    bf16: str = option_as_in("auto", PretrainingOptions, "bf16", "bfloat16; auto: if the hardware supports it")
    per_device_train_batch_size: int | None = option_as_in(
        None, PretrainingOptions, "per_device_train_batch_size", "rows of one micro-batch of one rank", at_least=1
    )
    gradient_accumulation_steps: int | None = option_as_in(
        None, PretrainingOptions, "gradient_accumulation_steps", "micro-batches of one update", at_least=1
    )
    per_device_eval_batch_size: int = option(
        64, "rows of one evaluation batch of one rank", group=MACHINE, at_least=1, identity=False
    )
    deepspeed: str | None = option_as_in(
        None, PretrainingOptions, "deepspeed", "DeepSpeed JSON file; without it PyTorch runs the training"
    )
    fsdp: str = option_as_in("full_shard", PretrainingOptions, "fsdp", "what PyTorch shards over several ranks")

    output_dir: str | None = option_as_in(
        None,
        PretrainingOptions,
        "output_dir",
        "folder of the results; default: runs/finetuning/<recipe>",
        marks=(SET_BY_A_SWEEP,),
    )
    resume_from_checkpoint: str = option_as_in(
        "auto",
        PretrainingOptions,
        "resume_from_checkpoint",
        "auto: continue (or, if finished, read) the same run in --output_dir; false: start again",
        choices=("auto", "false"),
        old_values={"true": "auto"},
        nargs="?",
        const="auto",
        marks=(SET_BY_A_SWEEP,),
    )
    save_steps: int = option_as_in(
        0, PretrainingOptions, "save_steps", "save the state every N updates; 0: after every epoch"
    )
    save_model: bool = option(
        True,
        "keep the best model as a `transformers` directory in output_dir/best",
        group=OUTPUT,
        identity=False,
    )
    report_to: str = option_as_in(
        "tensorboard", PretrainingOptions, "report_to", "trackers of the curves; separate several with commas"
    )

    def contradictions(self) -> list[str]:
        """Conflicts between options that hold for any data and any number of ranks."""
        repeated = len(set(self.seeds)) < len(self.seeds)
        return [f"--seeds {self.seeds}: name each once"] if repeated else []


RecipeOptions = TypeVar("RecipeOptions", bound=FinetuningOptions)
