"""The multiple-choice recipe: any number of choices, each scored alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from finetuning.examples.pair_template import PairTemplate, padded_rows, pair_template, token_ids
from finetuning.examples.predictions import write_csv, write_finite_json
from finetuning.examples.recipe import Batch, EvaluationSet, Feature
from finetuning.model.heads import CHOICE, Head, TaskModel
from finetuning.recipes.choices.choice_files import ChoiceQuestion

NO_LOGIT = -1e9  # of a choice that a question does not have; finite, so that zero times it is zero


@dataclass(frozen=True)
class ChoiceCounts:
    """Counts of what was encoded."""

    questions: int = 0
    choices: int = 0
    cut: int = 0  # choices whose texts together were too long


class ChoiceModel(TaskModel):
    """One logit for each choice, of `AutoModelForMultipleChoice`."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        choice_places: torch.Tensor,
        choice_mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Real choices only: N rows [N, T] and their places [N] in the flattened `choice_mask` [R, C] -> logits [R, C].

        A choice that a question does not have is never run through the encoder, so that none is fully padded.
        """
        single = [rows.unsqueeze(1) for rows in (input_ids, attention_mask, token_type_ids)]  # one choice per row
        scores = self.outputs(*single).logits.squeeze(-1).float()
        empty = scores.new_full((choice_mask.numel(),), NO_LOGIT)
        return {"logits": empty.index_copy(0, choice_places, scores).view(choice_mask.shape).clone()}


class ChoiceRecipe:
    """Implements `finetuning.examples.recipe.Recipe`; the number of choices comes from the data."""

    name = "multiple_choice"
    metric = "accuracy"
    metric_maximum = 1.0
    head = Head(CHOICE, num_outputs=1)
    model_inputs = ("input_ids", "attention_mask", "token_type_ids", "choice_places", "choice_mask")

    def __init__(
        self,
        splits: Mapping[str, Sequence[ChoiceQuestion]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_seq_length: int,
        unlabelled: Sequence[str] = (),
    ) -> None:
        """`splits` has "train" and any evaluation sets; those in `unlabelled` are predicted, not scored."""
        self.pad_id = int(tokenizer.pad_token_id)
        self.most_choices = max(len(question.seconds) for split in splits.values() for question in split)
        self.counts: dict[str, ChoiceCounts] = {}
        self.train_features: list[Feature] = []
        self.evaluation_sets: dict[str, EvaluationSet] = {}
        for name, questions in splits.items():
            rows, self.counts[name] = encode_choices(questions, tokenizer, max_seq_length=max_seq_length)
            if name == "train":
                self.train_features = list(rows)
            else:
                examples = {question.id: question for question in questions}
                self.evaluation_sets[name] = EvaluationSet(rows, examples, name not in unlabelled)

    def build_model(self, transformer: nn.Module) -> ChoiceModel:
        """The model with this recipe's outputs."""
        return ChoiceModel(transformer)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Model inputs of the N real choices, `choice_mask` [R, C] and labels [R] (-100 for no label)."""
        batch = padded_rows(
            [ids for feature in features for ids in feature["input_ids"]],
            [types for feature in features for types in feature["token_type_ids"]],
            pad_id=self.pad_id,
        )
        mask = torch.zeros(len(features), self.most_choices, dtype=torch.bool)
        for row, feature in enumerate(features):
            mask[row, : len(feature["input_ids"])] = True
        batch["choice_mask"] = mask
        batch["choice_places"] = torch.nonzero(mask.flatten()).squeeze(-1)
        batch["labels"] = torch.tensor([-100 if feature["label"] is None else feature["label"] for feature in features])
        return batch

    def measure(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Per row [R]: cross entropy over its choices, and whether the best one is right."""
        logits, labels = outputs["logits"], batch["labels"]
        loss = functional.cross_entropy(logits, labels, reduction="none")
        return {"loss": loss, "accuracy": (logits.argmax(-1) == labels).float()}

    def predict(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """The logits [R, C] of each row."""
        return {"logits": outputs["logits"]}

    def finish(self, rows: Mapping[str, np.ndarray], evaluation_set: EvaluationSet) -> dict[str, Any]:
        """Example id -> {"choice": index, "name": what the file calls it, "logits": one per choice}."""
        predictions = {}
        for feature, logits in zip(evaluation_set.features, rows["logits"], strict=True):
            name = str(feature["example_id"])
            own = logits[: len(feature["input_ids"])]
            best = int(own.argmax())
            predictions[name] = {
                "choice": best,
                "name": evaluation_set.examples[name].names[best],
                "logits": [float(value) for value in own],
            }
        return predictions

    def score(self, predictions: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, float]:
        """The share of questions whose right choice was picked."""
        right = sum(predictions[name]["choice"] == question.label for name, question in examples.items())
        return {"accuracy": right / len(examples)}

    def predicted_labels(self, predictions: Mapping[str, Any]) -> list[str]:
        """The index of the chosen one."""
        return [str(prediction["choice"]) for prediction in predictions.values()]

    def majority_score(self, examples: Mapping[str, Any]) -> float | None:
        """The score of always picking the most frequent position."""
        counts = Counter(question.label for question in examples.values())
        return max(counts.values()) / len(examples)

    def write(self, predictions: Mapping[str, Any], evaluation_set: EvaluationSet, directory: Path) -> None:
        """predictions.json (with the logits) and prediction.csv (id, choice, name)."""
        ordered = {name: predictions[name] for name in evaluation_set.examples}
        write_finite_json(directory / "predictions.json", ordered)
        rows = [[name, prediction["choice"], prediction["name"]] for name, prediction in ordered.items()]
        write_csv(directory / "prediction.csv", ["id", "choice", "name"], rows)


def encode_choices(
    questions: Sequence[ChoiceQuestion], tokenizer: PreTrainedTokenizerBase, *, max_seq_length: int
) -> tuple[list[dict[str, Any]], ChoiceCounts]:
    """One feature per question: input_ids and token_type_ids (a list each, one row per choice), label, length.

    Each text is tokenised once however often it occurs. In a pair that is too long, the longer text loses its end.
    """
    template = pair_template(tokenizer)
    texts = list(dict.fromkeys(text for question in questions for text in (*question.firsts, *question.seconds)))
    ids_of = dict(zip(texts, token_ids(tokenizer, texts), strict=True))
    features, cut, total = [], 0, 0
    for question in questions:
        rows = [
            _pair_row(ids_of[first], ids_of[second], template, max_seq_length)
            for first, second in zip(question.firsts, question.seconds, strict=True)
        ]
        cut += sum(was_cut for _, _, was_cut in rows)
        total += len(rows)
        features.append(
            {
                "example_id": question.id,
                "input_ids": [ids for ids, _, _ in rows],
                "token_type_ids": [types for _, types, _ in rows],
                "label": question.label,
                "length": max(len(ids) for ids, _, _ in rows),
            }
        )
    return features, ChoiceCounts(len(questions), total, cut)


def cut_sizes(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens kept of two texts: the longer one is cut first, down to half the room; then both get half."""
    if first + second <= room:
        return first, second
    half = room // 2
    if first <= half:
        return first, room - first
    if second <= half:
        return room - second, second
    return room - half, half


def _pair_row(
    first: Sequence[int], second: Sequence[int], template: PairTemplate, max_seq_length: int
) -> tuple[list[int], list[int], bool]:
    sizes = cut_sizes(len(first), len(second), max_seq_length - template.overhead)
    ids, types = template.row(first[: sizes[0]], second[: sizes[1]])
    return ids, types, sum(sizes) < len(first) + len(second)
