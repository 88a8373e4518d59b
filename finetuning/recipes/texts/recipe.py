"""The recipe of classification and regression on one or two texts, used by `glue.py` and `classification.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from finetuning.examples.pair_template import padded_rows
from finetuning.examples.predictions import write_csv
from finetuning.examples.recipe import Batch, EvaluationSet, Feature
from finetuning.model.heads import CLASSIFICATION, Head, TaskModel
from finetuning.recipes.texts.glue_tasks import GlueTask, submission_lines
from finetuning.recipes.texts.labelled_text import LabelledText, content
from finetuning.recipes.texts.metrics import classification_metrics, probabilities, regression_metrics
from finetuning.recipes.texts.rows import TextSettings, by_id, encode_split, is_labelled
from runtime.files.whole_files import write_text

MINIMUM_UNSEEN = 2  # a correlation needs two
OFFICIAL_NAMES = {"matthews": "matthews_correlation", "spearman": "spearmanr"}  # as `transformers` reports them


class TextModel(TaskModel):
    """The logits of `AutoModelForSequenceClassification`; with one output it is a regression."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """[B, T] token ids, mask and types -> {"logits": [B, C] in fp32}."""
        return {"logits": self.outputs(input_ids, attention_mask, token_type_ids).logits.float()}


class TextRecipe:
    """Implements `finetuning.examples.recipe.Recipe`; with no labels it is a regression (STS-B)."""

    model_inputs = ("input_ids", "attention_mask", "token_type_ids")
    metric_maximum = 1.0

    def __init__(
        self,
        name: str,
        *,
        labels: Sequence[str],
        splits: Mapping[str, Sequence[LabelledText]],
        tokenizer: Any,
        settings: TextSettings,
        metrics: Sequence[str] = ("accuracy",),
        task: GlueTask | None = None,
    ) -> None:
        """`splits`: "validation", and "train" if any; `metrics` are the official ones, whose mean picks the best epoch.

        Raises ValueError for labels that do not occur in training, and for half-labelled sets.
        """
        self.name, self.labels, self.settings, self.task = name, tuple(labels), settings, task
        self.metrics = tuple(metrics)
        self.metric = self.metrics[0] if len(self.metrics) == 1 else "combined_score"
        self.pad_id = tokenizer.pad_token_id
        self.class_of = {label: number for number, label in enumerate(self.labels)}
        splits = {"train": (), **splits}
        remedy = ", or name another column with --id_column" if task is None else ""
        self.examples = {split: by_id(examples, f"{name} {split}", remedy) for split, examples in splits.items()}
        self.encoded = {
            split: encode_split(f"{name} {split}", list(examples.values()), self.labels, tokenizer, settings)
            for split, examples in self.examples.items()
        }
        self.train_features: Sequence[Feature] = self.encoded["train"].features
        self.evaluation_sets = {
            split: EvaluationSet(self.encoded[split].features, examples, labelled=is_labelled(examples, split))
            for split, examples in self.examples.items()
            if split != "train"
        }
        is_labelled(self.examples["train"], "train")
        self.train_contents = {content(example) for example in self.examples["train"].values()}

    @property
    def is_regression(self) -> bool:
        """True when the label is a number rather than a class."""
        return not self.labels

    @property
    def head(self) -> Head:
        """One output per class, or one value; pooling and dropout as the settings say."""
        settings = self.settings
        return Head(
            CLASSIFICATION,
            max(1, len(self.labels)),
            self.labels,
            pooling=settings.pooling,
            dropout=settings.head_dropout,
        )

    def build_model(self, transformer: nn.Module) -> nn.Module:
        """The model with this recipe's outputs."""
        return TextModel(transformer)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """[R, T] ids, mask and types padded to the longest row, and labels [R]."""
        rows = padded_rows(
            [feature["input_ids"] for feature in features],
            [feature["token_type_ids"] for feature in features],
            pad_id=self.pad_id,
        )
        kind = torch.float32 if self.is_regression else torch.long
        labels = torch.tensor([feature["label"] for feature in features], dtype=kind)
        return {**rows, "labels": labels}

    def measure(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Per row [R]: the loss (cross entropy or squared error), and whether the row is right or how far off it is."""
        logits, labels = outputs["logits"], batch["labels"]
        if self.is_regression:
            distance = (logits.squeeze(-1) - labels).abs()  # a correlation is not a mean over rows, nor over updates
            return {"loss": distance.square(), "absolute_error": distance.detach()}
        loss = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.settings.label_smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(dim=-1) == labels).float()}

    def predict(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """The logits [R, C] of each row."""
        return {"logits": outputs["logits"]}

    def finish(self, rows: Mapping[str, np.ndarray], evaluation_set: EvaluationSet) -> dict[str, Any]:
        """Example id -> {"label", "logits"} for classes, {"value"} for a regression."""
        predictions: dict[str, Any] = {}
        for feature, logits in zip(evaluation_set.features, rows["logits"], strict=True):
            if self.is_regression:
                predictions[feature["example_id"]] = {"value": float(logits[0])}
            else:
                label = self.labels[int(logits.argmax())]
                predictions[feature["example_id"]] = {"label": label, "logits": [float(value) for value in logits]}
        return predictions

    def score(self, predictions: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, float]:
        """Every metric of the kind, `combined_score` where GLUE averages two, and the metric on texts not in train.

        `<metric>_unseen` is included only if some of the texts also occur in the training set.
        """
        named = self._metrics(predictions, examples)
        unseen = {key: example for key, example in examples.items() if content(example) not in self.train_contents}
        if MINIMUM_UNSEEN <= len(unseen) < len(examples):
            named[f"{self.metric}_unseen"] = self._metrics(predictions, unseen)[self.metric]
        return named

    def _metrics(self, predictions: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, float]:
        if self.is_regression:
            values = [predictions[key]["value"] for key in examples]
            scores = regression_metrics(values, [float(example.label) for example in examples.values()])
        else:
            logits = np.array([predictions[key]["logits"] for key in examples])
            scores = classification_metrics(logits, [self.class_of[example.label] for example in examples.values()])
        named = {OFFICIAL_NAMES.get(name, name): value for name, value in scores.items()}
        if len(self.metrics) > 1:
            named["combined_score"] = float(np.mean([named[name] for name in self.metrics]))
        return named

    def predicted_labels(self, predictions: Mapping[str, Any]) -> list[str]:
        """The predicted class of each example; a regression's value to one decimal."""
        if self.is_regression:
            return [f"{prediction['value']:.1f}" for prediction in predictions.values()]
        return [prediction["label"] for prediction in predictions.values()]

    def majority_score(self, examples: Mapping[str, Any]) -> float | None:
        """The metric of the best constant answer (a regression's constant correlates with nothing: 0)."""
        if self.is_regression:
            return 0.0
        constant = np.eye(len(self.labels))
        present = sorted({self.class_of[example.label] for example in examples.values()})
        return max(
            self.score({key: {"logits": constant[number]} for key in examples}, examples)[self.metric]
            for number in present
        )

    def write(self, predictions: Mapping[str, Any], evaluation_set: EvaluationSet, directory: Path) -> None:
        """`predictions.csv`, and GLUE's submission file for a test set."""
        split = next(name for name, candidate in self.evaluation_sets.items() if candidate is evaluation_set)
        if self.is_regression:
            header = ["id", "prediction", "label"]
            rows = [[key, predictions[key]["value"], example.label] for key, example in evaluation_set.examples.items()]
        else:
            header = ["id", "prediction", "label", *(f"probability_{label}" for label in self.labels)]
            chances = probabilities([predictions[key]["logits"] for key in evaluation_set.examples])
            rows = [
                [key, predictions[key]["label"], example.label, *(f"{chance:.6f}" for chance in row)]
                for (key, example), row in zip(evaluation_set.examples.items(), chances, strict=True)
            ]
        write_csv(directory / "predictions.csv", header, rows)
        if self.task is not None and split in self.task.submissions:
            answer = "value" if self.is_regression else "label"
            answers = {key: predictions[key][answer] for key in evaluation_set.examples}
            lines = submission_lines(self.task, answers)
            write_text(directory / self.task.submissions[split], "\n".join(lines) + "\n")
