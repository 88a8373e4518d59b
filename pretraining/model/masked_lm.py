"""The model that is pretrained: a `transformers` encoder whose MLM head runs on the masked positions only."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pretraining.model.attention import attention_for
from pretraining.model.configuration import reading, unreadable
from pretraining.model.cross_entropy import weighted_sums
from pretraining.model.dropout import encoder_dropout, with_dropout
from pretraining.model.families import family_of, from_configuration, model_class, takes_token_types
from pretraining.model.source.checkpoint import check_checkpoint, load_checkpoint


class PretrainingModel(nn.Module):
    """A masked-language model (BERT also with a next-sentence head) that returns sums, never means.

    `transformer` is the `transformers` model; export it, not this wrapper. In families that require it, the head runs
    on every position, and the plan warns of it. The training loop normalises by counts over all ranks and
    micro-batches. Nothing in `forward` makes the host wait for the device.
    """

    def __init__(
        self,
        transformer: PreTrainedModel,
        objective: str = "mlm",
        *,
        exported_dropout: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        # The architecture's rates by name, where the model is pretrained with others.
        self.exported_dropout = dict(exported_dropout or {})
        self.transformer = transformer
        self.objective = objective
        self.family = family_of(transformer.config)
        self.takes_token_types = takes_token_types(transformer)

    @property
    def config(self) -> PreTrainedConfig:
        """The `transformers` configuration."""
        return self.transformer.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        mask_positions: Tensor,
        mask_labels: Tensor,
        mask_weights: Tensor,
        next_sentence_labels: Tensor | None = None,
        next_sentence_weights: Tensor | None = None,
        with_logits: bool = False,
    ) -> dict[str, Tensor]:
        """Sums over a micro-batch, as 0-d fp32 tensors.

        Shapes: input_ids, attention_mask, token_type_ids [S, T]; mask_positions, mask_labels, mask_weights [S, K];
        next_sentence_* [S] (label 0: the second sentence follows the first). Gives `loss_sum` (weighted
        cross-entropy), `mask_count` (sum of weights), `correct`; with next sentences `next_sentence_loss_sum`,
        `next_sentence_count`, `next_sentence_correct`; `with_logits` adds `logits` [S, K, V] and, with next
        sentences, `next_sentence_logits` [S, 2].
        """
        logits, next_sentence_logits = self._logits(input_ids, attention_mask, token_type_ids, mask_positions)
        loss_sum, mask_count, correct = self._sums(logits, mask_labels, mask_weights)
        outputs = {"loss_sum": loss_sum, "mask_count": mask_count, "correct": correct}
        if self.objective == "mlm+nsp":
            if next_sentence_logits is None or next_sentence_labels is None or next_sentence_weights is None:
                raise ValueError(
                    "objective 'mlm+nsp' needs next_sentence_labels and next_sentence_weights: read the "
                    "shards with the same objective"
                )
            sums = self._sums(next_sentence_logits, next_sentence_labels, next_sentence_weights)
            names = ("next_sentence_loss_sum", "next_sentence_count", "next_sentence_correct")
            outputs.update(zip(names, sums, strict=True))
        if with_logits:
            outputs["logits"] = logits
            if next_sentence_logits is not None:
                outputs["next_sentence_logits"] = next_sentence_logits
        return outputs

    def _sums(self, logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return weighted_sums(logits, labels, weights, exact_accuracy=not self.training)

    def _logits(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None, positions: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of the masked positions [S, K, V] and of the next sentence [S, 2] where the model has that head."""
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": self._masks(attention_mask)}
        if token_type_ids is not None and self.takes_token_types:
            inputs["token_type_ids"] = token_type_ids
        return self.family.logits(self.transformer, inputs, positions)

    def _masks(self, attention_mask: Tensor | None) -> Any:
        """Padding mask [S, T] -> the mask that the encoder takes.

        For SDPA and eager attention the masks [S, 1, T, T] are made here: `transformers` would first ask the device
        whether anything is padded at all, and the host would wait for the answer in every micro-batch.
        """
        make, kernel = self.family.sdpa_masks, self.config._attn_implementation
        if attention_mask is None or make is None or kernel not in ("sdpa", "eager"):
            return attention_mask
        masks = make(self.config, attention_mask)
        if kernel == "sdpa":
            return masks
        # Read without naming a weight: under ZeRO-3 each `module.weight` outside of its module gathers it over the
        # ranks, and a rank comes here only if its own rows are padded.
        dtype = self.transformer.dtype
        if isinstance(masks, dict):
            return {name: added_to_scores(mask, dtype) for name, mask in masks.items()}
        return added_to_scores(masks, dtype)


def added_to_scores(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as what eager attention adds to its scores: 0, or the lowest number of `dtype`."""
    lowest = torch.finfo(dtype).min
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)


def build_model(
    config: PreTrainedConfig,
    *,
    objective: str = "mlm",
    attention: str | None = None,
    seed: int = 0,
    dropout: float | None = None,
    weights: str | None = None,
    gradient_checkpointing: bool = False,
) -> PretrainingModel:
    """Build the model of a finished configuration (`build_configuration`), in fp32 on the CPU; `config` is copied.

    Random weights depend on `seed` alone, so every rank has the same; `weights`, a directory or hub name, gives trained
    ones. `attention` is an implementation that the architecture supports (`attention_for`); None: torch's fused one
    where it supports that, else its own. Raises ValueError for weights that do not fill the model.
    """
    attention = attention or attention_for("auto", config, bf16=False)
    rates, config = encoder_dropout(config), with_dropout(config, dropout)
    loading = {"attn_implementation": attention, "dtype": torch.float32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights:
            transformer = _load_weights(model_class(config, objective), weights, config, loading)
        else:
            transformer = from_configuration(config, objective, **loading)
    if gradient_checkpointing:
        # Renamed within transformers 5; both take the arguments of torch's checkpoint first.
        renamed = getattr(transformer, "activation_checkpointing_enable", None)
        (renamed or transformer.gradient_checkpointing_enable)({"use_reentrant": False})
    return PretrainingModel(transformer.train(), objective, exported_dropout=rates)


def _load_weights(model_class: Any, source: str, config: PreTrainedConfig, loading: dict[str, Any]) -> PreTrainedModel:
    """Load trained weights, from safetensors only; warns of head weights that the checkpoint lacks."""
    only = reading(source)["local_files_only"]
    try:
        transformer, drawn = load_checkpoint(source, config, model_class, local_files_only=only, **loading)
    except OSError as error:
        raise ValueError(unreadable(source, error)) from error
    if drawn:
        warnings.warn(f"{source} holds no {drawn}: these start at random", stacklevel=3)
    return transformer


def check_weights(config: PreTrainedConfig, source: str, objective: str) -> list[str]:
    """The head's tensors that `source` lacks, by name; nothing is loaded.

    Raises ValueError where the weights do not fill the encoder; see `check_checkpoint`.
    """
    try:
        only = reading(source)["local_files_only"]
        return check_checkpoint(source, config, model_class(config, objective), local_files_only=only)
    except OSError as error:
        raise ValueError(unreadable(source, error)) from error
