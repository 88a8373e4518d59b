"""What a task tells the training loop: the Recipe protocol, and the options that all recipes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
import torch
from torch import nn

from runtime.options.command_line import COMMAS

if TYPE_CHECKING:
    from finetuning.loop.heads import Head

# One encoded row. Read by the loop: "example_id" (str), "input_ids" (for the length), and if present "window" (int,
# tells the rows of one example apart), "length" (int, what rows are grouped by) "weight" (float, share in the loss).
Feature = Mapping[str, Any]
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class EvaluationSet:
    """Rows to predict and the examples that score them; `labelled` is False for a test set without answers."""

    features: Sequence[Feature]
    examples: Mapping[str, Any]  # by example id, in file order
    labelled: bool = True
    groups: Mapping[str, str] = field(default_factory=dict)  # by example id: what some share, such as a paragraph


class Recipe(Protocol):
    """A task as the loop sees it; a plain class with these members is enough."""

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
        """Of these "validation" is scored after each epoch and picks the best; others are predicted at the end."""
        ...

    @property
    def head(self) -> Head:
        """The head that the task needs; `finetuning/loop/heads.py` finds or builds it."""
        ...

    def build_model(self, transformer: nn.Module) -> nn.Module:
        """A `finetuning.loop.heads.TaskModel` around the model with its head; its forward returns a dict of tensors."""
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
        """Metrics under the names `transformers` gives them, without the eval_ or test_ in front."""
        ...

    def predicted_labels(self, predictions: Mapping[str, Any]) -> list[str]:
        """What was predicted, one label an example: their entropy tells a collapsed run."""
        ...

    def majority_score(self, examples: Mapping[str, Any]) -> float | None:
        """The value of `metric` for the best constant answer; None where no constant answer makes sense."""
        ...

    def write(self, predictions: Mapping[str, Any], evaluation_set: EvaluationSet, directory: Path) -> None:
        """Write the prediction files of one set."""
        ...


def option(default: Any, text: str, **extra: Any) -> Any:
    """A dataclass field with a help text, as HfArgumentParser reads it."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text, **extra})
    return field(default=default, metadata={"help": text, **extra})


@dataclass
class FinetuningOptions:
    """Options of every recipe; a recipe's own dataclass inherits from it and may change defaults."""

    model_name_or_path: str | None = option(
        None, "Checkpoint directory or hub name; default: the newest checkpoint of the default pretraining run."
    )
    from_scratch: bool = option(False, "Keep the checkpoint's configuration and tokenizer, drop its weights.")
    output_dir: str | None = option(None, "Where results go; default: runs/finetuning/<recipe>.")
    train_file: str | None = option(None, "Training examples; default: the embedded small world.")
    validation_file: str | None = option(None, "Validation examples; they pick the best epoch.")
    test_file: str | None = option(None, "Test examples, with or without answers.")
    dataset_name: str | None = option(None, "Name or saved directory of a `datasets` data set, instead of files.")
    dataset_config_name: str | None = option(None, "Configuration of --dataset_name.")
    max_seq_length: int = option(384, "Longest row in tokens, special tokens included.")
    max_train_samples: int | None = option(None, "Use only N training examples, chosen by a hash of their ids.")
    max_eval_samples: int | None = option(None, "The same for the validation and the test examples.")
    on_bad_text: str = option("stop", "Text that is not UTF-8: stop, or replace and count.")
    strict: bool = option(False, "Refuse input that the preflight would otherwise repair or drop.")

    num_train_epochs: float = option(3.0, "Passes over the training rows; 0 only evaluates.")
    max_steps: int = option(-1, "Stop after N updates, whatever the epochs say; -1: no limit.")
    global_batch_rows: int | None = option(
        None, "Rows of one update over all ranks; default: batch x accumulation x ranks if given, else 32."
    )
    per_device_train_batch_size: int | None = option(None, "Rows of one micro-batch of one rank.")
    gradient_accumulation_steps: int | None = option(None, "Micro-batches of one update.")
    per_device_eval_batch_size: int = option(64, "Rows of one evaluation batch of one rank.")
    learning_rate: float = option(5e-5, "Peak learning rate.")
    lr_scheduler_type: str = option("linear", "linear (to zero) or constant, both after the warmup.")
    warmup_ratio: float = option(0.1, "Share of the updates over which the learning rate rises from zero.")
    weight_decay: float = option(0.01, "AdamW weight decay, not on norms and biases.")
    max_grad_norm: float = option(1.0, "Gradient clipping; 0: none.")
    dropout: float | None = option(None, "Replace every dropout rate of the model's configuration.")
    early_stopping_patience: int = option(0, "Stop after N validations without a better score; 0: never.")
    seed: int = option(42, "Seed of the head, of the order of the rows and of dropout.")
    seeds: list[int] = option([], "Several seeds, each in a folder of its own; default: --seed alone.")  # noqa: RUF009

    bf16: str = option("auto", "auto (where the hardware has it), true or false.", nargs="?", const="true")
    deepspeed: str | None = option(None, "DeepSpeed JSON file; without it PyTorch runs the training.")
    fsdp: str = option("full_shard", "full_shard, shard_grad_op or hybrid_shard (PyTorch, several ranks).")
    resume_from_checkpoint: bool = option(True, "Continue an interrupted run of the same options in --output_dir.")
    save_steps: int = option(0, "Save the state every N updates; 0: after every epoch.")
    save_model: bool = option(True, "Keep the best model as a `transformers` directory in output_dir/best.")
    report_to: Annotated[str, COMMAS] = option(
        "tensorboard", "tensorboard, wandb, mlflow (several with commas) or none."
    )

    def check_own(self) -> None:
        """ValueError for a recipe's own options outside their range; `run/option_checks.py` has the shared ones."""
