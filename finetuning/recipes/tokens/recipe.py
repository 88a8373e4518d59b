"""The token-classification recipe: rows into batches, outputs into tags and scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from finetuning.examples.pair_template import padded_rows
from finetuning.examples.predictions import write_csv, write_finite_json
from finetuning.examples.recipe import Batch, EvaluationSet, Feature
from finetuning.model.heads import TAGS, Head, TaskModel
from finetuning.recipes.questions.windows import Windows
from finetuning.recipes.tokens.metrics import OUTSIDE, entity_scores, scheme_of
from finetuning.recipes.tokens.rows import IGNORED, RowCounts, encode_sentences
from finetuning.recipes.tokens.sentences import TaggedSentence

NO_LOGIT = -1e9  # of padding; finite, so that zero times it is zero


class TokenModel(TaskModel):
    """A logit for each token and tag, of `AutoModelForTokenClassification`."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """[B, T] each -> {"logits": [B, T, C] in fp32}; padding gets none."""
        logits = self.outputs(input_ids, attention_mask, token_type_ids).logits.float()
        return {"logits": logits.masked_fill((attention_mask == 0).unsqueeze(-1), NO_LOGIT).contiguous()}


class TokenRecipe:
    """Implements `finetuning.examples.recipe.Recipe`: a tag for every word."""

    name = "token_classification"
    metric_maximum = 1.0
    model_inputs = ("input_ids", "attention_mask", "token_type_ids")

    def __init__(
        self,
        splits: Mapping[str, Sequence[TaggedSentence]],
        tokenizer: PreTrainedTokenizerBase,
        windows: Windows,
        *,
        labels: Sequence[str],
        unlabelled: Sequence[str] = (),
    ) -> None:
        """`splits` has any evaluation sets and "train", if any; those in `unlabelled` are predicted, not scored.

        The tokenizer is one of `rows.for_words`. The first of `labels` should be the most frequent tag: words without
        a token get it.
        """
        self.labels, self.windows = tuple(labels), windows
        self.scheme = scheme_of(self.labels)
        self.metric = "accuracy" if self.scheme is None else "f1"
        self.pad_id = int(tokenizer.pad_token_id)
        self.counts: dict[str, RowCounts] = {}
        self.train_features: list[Feature] = []
        self.evaluation_sets: dict[str, EvaluationSet] = {}
        for name, sentences in splits.items():
            training = name == "train"
            rows, self.counts[name] = encode_sentences(sentences, self.labels, tokenizer, windows, training=training)
            if training:
                self.train_features = list(rows)
            else:
                examples = {sentence.id: sentence for sentence in sentences}
                groups = {sentence.id: sentence.document or sentence.id for sentence in sentences}
                self.evaluation_sets[name] = EvaluationSet(rows, examples, name not in unlabelled, groups)
        rows_of_sets = [
            self.train_features,
            *(evaluation_set.features for evaluation_set in self.evaluation_sets.values()),
        ]
        self.most_words = max((len(row["words"]) for rows in rows_of_sets for row in rows), default=0) or 1

    @property
    def head(self) -> Head:
        """One output for each tag."""
        return Head(TAGS, len(self.labels), self.labels)

    def build_model(self, transformer: nn.Module) -> TokenModel:
        """The model with this recipe's outputs."""
        return TokenModel(transformer)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Model inputs and labels [R, T] (-100: none), and `places` [R, W]: where the row's words begin, then zeros."""
        batch = padded_rows(
            [feature["input_ids"] for feature in features],
            [feature["token_type_ids"] for feature in features],
            pad_id=self.pad_id,
        )
        labels = np.full(batch["input_ids"].shape, IGNORED, dtype=np.int64)
        places = np.zeros((len(features), self.most_words), dtype=np.int64)
        for row, feature in enumerate(features):
            labels[row, : len(feature["labels"])] = feature["labels"]
            places[row, : len(feature["places"])] = feature["places"]
        return {**batch, "labels": torch.from_numpy(labels), "places": torch.from_numpy(places)}

    def measure(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Per row [R]: mean cross entropy over its labelled words, and the share predicted correctly."""
        labels = batch["labels"]
        known = labels != IGNORED
        number = known.sum(dim=1).clamp(min=1)
        right = (outputs["logits"].argmax(-1) == labels) & known
        return {"loss": _losses(outputs["logits"], labels).sum(dim=1) / number, "accuracy": right.sum(dim=1) / number}

    def predict(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """For each word of each row [R, W]: the best tag, its probability, and the loss of the true tag (0: none)."""
        places = batch["places"]
        rows = torch.arange(len(places), device=places.device).unsqueeze(1)
        logits = outputs["logits"][rows, places]
        probability, tag = logits.softmax(dim=-1).max(dim=-1)
        return {"tag": tag, "probability": probability, "loss": _losses(logits, batch["labels"][rows, places])}

    def finish(self, rows: Mapping[str, np.ndarray], evaluation_set: EvaluationSet) -> dict[str, Any]:
        """Example id -> {"tags", "probabilities": one per word, None for a word without tokens, "losses"}."""
        predictions: dict[str, dict[str, Any]] = {}
        for name, sentence in evaluation_set.examples.items():
            number = len(sentence.words)
            predictions[name] = {"tags": [self.labels[0]] * number, "probabilities": [None] * number, "losses": []}
        for row, feature in enumerate(evaluation_set.features):
            own = predictions[str(feature["example_id"])]
            for column, (word, place) in enumerate(zip(feature["words"], feature["places"], strict=True)):
                own["tags"][word] = self.labels[int(rows["tag"][row, column])]
                own["probabilities"][word] = float(rows["probability"][row, column])
                if feature["labels"][place] != IGNORED:
                    own["losses"].append(float(rows["loss"][row, column]))
        return predictions

    def score(self, predictions: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, float]:
        """Accuracy over all words with a tag and the loss over those that have a label; with entities also their
        precision, recall and f1."""
        pairs = [tagged_words(sentence, predictions[name]["tags"]) for name, sentence in examples.items()]
        words = sum(len(gold) for gold, _ in pairs)
        right = sum(true == guess for gold, guessed in pairs for true, guess in zip(gold, guessed, strict=True))
        scores = {"accuracy": right / max(1, words)}
        losses = [loss for name in examples for loss in predictions[name].get("losses", ())]
        if losses:
            scores["loss"] = float(np.mean(losses))
        if self.scheme is not None:
            scores |= entity_scores([gold for gold, _ in pairs], [guessed for _, guessed in pairs])
        return scores

    def predicted_labels(self, predictions: Mapping[str, Any]) -> list[str]:
        """The tag of every word; where tags mark entities, of words outside only as many as inside."""
        tags = [tag for prediction in predictions.values() for tag in prediction["tags"]]
        inside = [tag for tag in tags if tag != OUTSIDE]
        if self.scheme is None or not inside:
            return tags
        return inside + [OUTSIDE] * min(len(tags) - len(inside), len(inside))

    def majority_score(self, examples: Mapping[str, Any]) -> float | None:
        """The score of the same tag for every word; for entities 0, since the tag O predicts none."""
        if self.scheme is not None:
            return 0.0
        counts = Counter(tag for sentence in examples.values() for tag in sentence.tags if tag is not None)
        return max((counts[label] for label in self.labels), default=0) / max(1, counts.total())

    def write(self, predictions: Mapping[str, Any], evaluation_set: EvaluationSet, directory: Path) -> None:
        """predictions.json (the tags of each sentence) and predictions.csv, a line for each word."""
        tags = {name: predictions[name]["tags"] for name in evaluation_set.examples}
        write_finite_json(directory / "predictions.json", tags)
        rows = []
        for name, sentence in evaluation_set.examples.items():
            chances = ["" if chance is None else f"{chance:.6f}" for chance in predictions[name]["probabilities"]]
            words = zip(sentence.words, tags[name], sentence.tags, chances, strict=True)
            rows += [[name, number, *values] for number, values in enumerate(words)]
        header = ["id", "number", "word", "prediction", "label", "probability"]
        write_csv(directory / "predictions.csv", header, rows)


def tagged_words(sentence: TaggedSentence, predicted: Sequence[str]) -> tuple[list[str], list[str]]:
    """The true and the predicted tags of the words whose tag is known."""
    pairs = [(tag, guess) for tag, guess in zip(sentence.tags, predicted, strict=True) if tag is not None]
    return [tag for tag, _ in pairs], [guess for _, guess in pairs]


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy [R, N] of logits [R, N, C]; 0 where there is no label."""
    return functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
