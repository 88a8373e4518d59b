"""The recipe of extractive question answering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from finetuning.examples.pair_template import padded_rows
from finetuning.examples.predictions import write_csv, write_finite_json
from finetuning.examples.recipe import Batch, EvaluationSet, Feature
from finetuning.model.heads import SPANS, Head, TaskModel
from finetuning.recipes.questions.metrics import (
    chinese_exact_match,
    chinese_f1_version_2,
    chinese_scores,
    exact_match,
    f1_version_2,
    is_chinese,
    squad_scores,
)
from finetuning.recipes.questions.spans import (
    Candidate,
    SpanLimits,
    answers_by_example,
    best_spans,
    gold_by_example,
    gold_log_probabilities,
    probabilities,
)
from finetuning.recipes.questions.squad import Question
from finetuning.recipes.questions.version_2 import thresholds, version_2_scores
from finetuning.recipes.questions.windows import WindowCounts, Windows, encode_questions

NO_LOGIT = -1e9  # of padding; finite, so that zero times it is zero


@dataclass(frozen=True)
class QASettings:
    """Settings for encoding questions into rows and rows into answers."""

    windows: Windows = field(default_factory=lambda: Windows(384))
    limits: SpanLimits = field(default_factory=SpanLimits)
    version_2: bool = False
    null_score_diff_threshold: float = 0.0
    language: str = "auto"  # of the metric: en, zh, or auto, that of the gold answers


class QAModel(TaskModel):
    """A start and an end logit for each token, of `AutoModelForQuestionAnswering`."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """[B, T] each -> start_logits, end_logits [B, T], fp32; padding gets none."""
        outputs, padding = self.outputs(input_ids, attention_mask, token_type_ids), attention_mask == 0
        logits = {"start_logits": outputs.start_logits, "end_logits": outputs.end_logits}
        return {name: tensor.float().masked_fill(padding, NO_LOGIT).contiguous() for name, tensor in logits.items()}


class QARecipe:
    """Implements `examples.recipe.Recipe` for questions whose answers were placed (`squad.place_answers`)."""

    name = "qa"
    metric_maximum = 100.0
    head = Head(SPANS, num_outputs=2)
    model_inputs = ("input_ids", "attention_mask", "token_type_ids")

    def __init__(
        self,
        splits: Mapping[str, Sequence[Question]],
        tokenizer: PreTrainedTokenizerBase,
        settings: QASettings,
        *,
        unlabelled: Sequence[str] = (),
        metric: str = "f1",
    ) -> None:
        """`splits` has "train" and any evaluation sets; those in `unlabelled` are predicted, not scored."""
        self.settings, self.metric = settings, metric
        self.pad_id = int(tokenizer.pad_token_id)
        self.window_counts: dict[str, WindowCounts] = {}
        self.train_features: list[Feature] = []
        self.evaluation_sets: dict[str, EvaluationSet] = {}
        for name, questions in splits.items():
            rows, self.window_counts[name] = encode_questions(
                questions,
                tokenizer,
                settings.windows,
                training=name == "train",
                keep_unplaced=settings.version_2,
            )
            if name == "train":
                self.train_features = list(rows)
            else:
                examples = {question.id: question for question in questions}
                groups = {question.id: question.group for question in questions}
                self.evaluation_sets[name] = EvaluationSet(rows, examples, name not in unlabelled, groups)

    def build_model(self, transformer: nn.Module) -> QAModel:
        """The model with this recipe's outputs."""
        return QAModel(transformer)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Model inputs [R, T], start_positions and end_positions [R], `allowed` [R, T]: the context's tokens, and
        gold_spans [R, A, 2]: first and last positions of the right answers, else -1."""
        batch = padded_rows(
            [feature["input_ids"] for feature in features],
            [feature["token_type_ids"] for feature in features],
            pad_id=self.pad_id,
        )
        first = torch.tensor([feature["context_start"] for feature in features]).unsqueeze(1)
        length = torch.tensor([len(feature["offsets"]) for feature in features]).unsqueeze(1)
        place = torch.arange(batch["input_ids"].shape[1]).unsqueeze(0)
        batch["allowed"] = (place >= first) & (place < first + length)
        for name in ("start_positions", "end_positions"):
            batch[name] = torch.tensor([feature[name[:-1]] for feature in features])
        gold = [torch.from_numpy(feature["gold_spans"]) for feature in features]
        gold[0] = functional.pad(gold[0], (0, 0, 0, not len(gold[0])), value=-1)  # room for one at least
        batch["gold_spans"] = pad_sequence(gold, batch_first=True, padding_value=-1)
        return batch

    def measure(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Per row [R]: mean cross entropy of start and end, and whether both are right."""
        starts, ends = batch["start_positions"], batch["end_positions"]
        start_loss = functional.cross_entropy(outputs["start_logits"], starts, reduction="none")
        end_loss = functional.cross_entropy(outputs["end_logits"], ends, reduction="none")
        right = (outputs["start_logits"].argmax(-1) == starts) & (outputs["end_logits"].argmax(-1) == ends)
        return {"loss": (start_loss + end_loss) / 2, "span_accuracy": right.float()}

    def predict(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """The n best spans of each row, and the log-probability of its gold answer."""
        logits = outputs["start_logits"], outputs["end_logits"]
        found = best_spans(*logits, batch["allowed"], self.settings.limits)
        return {**found, "gold_log_probabilities": gold_log_probabilities(*logits, batch["gold_spans"])}

    def finish(self, rows: Mapping[str, np.ndarray], evaluation_set: EvaluationSet) -> dict[str, Any]:
        """The best answer over each question's windows; in v2, none if that scores better by the threshold.

        Of a labelled set also the gold answer's log-probability, see `spans.gold_by_example`.
        """
        contexts = {name: question.context for name, question in evaluation_set.examples.items()}
        predictions = answers_by_example(evaluation_set.features, rows, contexts, self.settings.limits)
        if evaluation_set.labelled:
            for name, value in gold_by_example(evaluation_set.features, rows["gold_log_probabilities"]).items():
                predictions[name]["gold_log_probability"] = value
        if self.settings.version_2:
            for prediction in predictions.values():
                if prediction["null_score"] - prediction["score"] > self.settings.null_score_diff_threshold:
                    prediction["text"] = ""
        return {name: predictions[name] for name in evaluation_set.examples}

    def score(self, predictions: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, float]:
        """exact_match and f1 in percent; in v2, also the official breakdown and best thresholds."""
        answers = {name: [answer.text for answer in question.answers] for name, question in examples.items()}
        texts = {name: prediction["text"] for name, prediction in predictions.items()}
        chinese = self._is_chinese(answers)
        if not self.settings.version_2:
            return chinese_scores(texts, answers) if chinese else squad_scores(texts, answers)
        scorers: Any = (
            {"exact": chinese_exact_match, "overlap": chinese_f1_version_2}
            if chinese
            else {"exact": exact_match, "overlap": f1_version_2}
        )
        best_texts = {name: prediction["best_text"] for name, prediction in predictions.items()}
        nulls = {name: prediction["null_score"] - prediction["score"] for name, prediction in predictions.items()}
        return {
            **version_2_scores(texts, answers, **scorers),
            **thresholds(best_texts, answers, nulls, **scorers),
        }

    def predicted_labels(self, predictions: Mapping[str, Any]) -> list[str]:
        """The predicted texts."""
        return [prediction["text"] for prediction in predictions.values()]

    def majority_score(self, examples: Mapping[str, Any]) -> float | None:
        """None, except in v2: the share of unanswerable questions, which the empty answer gets."""
        if not self.settings.version_2 or not examples:
            return None
        return 100.0 * sum(not question.answers for question in examples.values()) / len(examples)

    def write(self, predictions: Mapping[str, Any], evaluation_set: EvaluationSet, directory: Path) -> None:
        """predictions.json, nbest_predictions.json, prediction.csv; in v2 null_odds.json too."""
        texts = {name: predictions[name]["text"] for name in evaluation_set.examples}
        write_finite_json(directory / "predictions.json", texts)
        version_2 = self.settings.version_2
        nbest = {name: _nbest(predictions[name], version_2=version_2) for name in texts}
        write_finite_json(directory / "nbest_predictions.json", nbest)
        write_csv(directory / "prediction.csv", ["id", "answer"], texts.items())
        if self.settings.version_2:
            odds = {name: predictions[name]["null_score"] - predictions[name]["score"] for name in texts}
            write_finite_json(directory / "null_odds.json", odds)

    def _is_chinese(self, answers: Mapping[str, Sequence[str]]) -> bool:
        if self.settings.language != "auto":
            return self.settings.language == "zh"
        return is_chinese([text for texts in answers.values() for text in texts])


def _nbest(prediction: Mapping[str, Any], *, version_2: bool) -> list[dict[str, Any]]:
    """Candidates by score; in v2, "no answer" is one of them, as in the official files."""
    candidates = list(prediction["nbest"])
    if version_2:
        candidates.append(Candidate("", prediction["null_score"], 0, 0))
        candidates.sort(key=lambda candidate: -candidate.score)
    if not candidates:
        return [{"text": "", "probability": 1.0, "score": None}]
    shares = probabilities([candidate.score for candidate in candidates])
    return [
        {"text": candidate.text, "probability": share, "score": candidate.score, "start": candidate.start}
        for candidate, share in zip(candidates, shares, strict=True)
    ]
