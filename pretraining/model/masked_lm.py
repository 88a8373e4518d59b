"""The model that is pretrained: a `transformers` encoder whose MLM head runs on the masked positions only."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForMaskedLM,
    BertForPreTraining,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import is_flash_attn_2_available

from pretraining.model.configuration import (
    check_fits_data,
    configuration_from,
    fit_to_data,
    named_configuration,
    overridden,
    parse_overrides,
    reading,
    unreadable,
)
from pretraining.model.source_checkpoint import check_checkpoint, load_checkpoint

OBJECTIVES = ("mlm", "mlm+nsp")
ATTENTION_IMPLEMENTATIONS = ("sdpa", "flash_attention_2", "eager", "auto")


class PretrainingModel(nn.Module):
    """A masked-language model (BERT also with a next-sentence head) that returns sums, never means.

    `transformer` is the `transformers` model; export it, not this. One that is neither BERT nor ModernBERT runs its
    head on every position, of which the plan warns. Whoever trains it normalises by counts taken over ranks and
    micro-batches. Nothing in `forward` waits for the device.
    """

    def __init__(self, transformer: PreTrainedModel, objective: str = "mlm") -> None:
        super().__init__()
        self.transformer = transformer
        self.objective = objective
        self.family = _family(transformer)

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
        loss_sum, mask_count, correct = _weighted_sums(logits, mask_labels, mask_weights)
        outputs = {"loss_sum": loss_sum, "mask_count": mask_count, "correct": correct}
        if self.objective == "mlm+nsp":
            if next_sentence_logits is None or next_sentence_labels is None or next_sentence_weights is None:
                raise ValueError(
                    "objective 'mlm+nsp' needs next_sentence_labels and next_sentence_weights: read the "
                    "shards with the same objective"
                )
            sums = _weighted_sums(next_sentence_logits, next_sentence_labels, next_sentence_weights)
            names = ("next_sentence_loss_sum", "next_sentence_count", "next_sentence_correct")
            outputs.update(zip(names, sums, strict=True))
        if with_logits:
            outputs["logits"] = logits
            if next_sentence_logits is not None:
                outputs["next_sentence_logits"] = next_sentence_logits
        return outputs

    def _logits(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None, positions: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of the masked positions [S, K, V] and of the next sentence [S, 2] where the model has that head."""
        transformer: Any = self.transformer
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": self._masks(attention_mask)}
        if token_type_ids is not None and self.family != "modernbert" and _has_segments(transformer):
            inputs["token_type_ids"] = token_type_ids
        if self.family == "modernbert":
            hidden = transformer.model(**inputs).last_hidden_state  # [S, T, D]
            return transformer.decoder(transformer.head(_gather(hidden, positions))), None
        if self.family == "other":
            return _gather(transformer(**inputs).logits, positions), None
        encoded = transformer.bert(**inputs)
        masked = _gather(encoded.last_hidden_state, positions)  # [S, K, D]
        if isinstance(transformer, BertForPreTraining):
            return transformer.cls(masked, encoded.pooler_output)
        return transformer.cls(masked), None

    def _masks(self, attention_mask: Tensor | None) -> Tensor | dict[str, Tensor] | None:
        """Padding mask [S, T] -> what the encoder takes.

        For SDPA the boolean masks [S, 1, T, T] are made here: `transformers` would first ask the device whether
        anything is padded at all, and the host would wait for the answer in every micro-batch.
        """
        if attention_mask is None or self.family == "other" or self.config._attn_implementation != "sdpa":
            return attention_mask
        length = attention_mask.shape[1]
        full = attention_mask[:, None, None, :].bool().expand(-1, 1, length, -1)
        if self.family == "bert":
            return full
        position = torch.arange(length, device=attention_mask.device)
        near = (position[:, None] - position[None, :]).abs() <= self.config.sliding_window
        return {"full_attention": full, "sliding_attention": full & near}


def runs_head_everywhere(config: PreTrainedConfig) -> bool:
    """Whether the MLM head runs on every position, as in all architectures that are not taken apart here."""
    return config.model_type not in ("bert", "modernbert")


def _family(transformer: PreTrainedModel) -> str:
    if transformer.config.model_type == "bert" and hasattr(transformer, "bert"):
        return "bert"
    return "modernbert" if transformer.config.model_type == "modernbert" else "other"


def _has_segments(transformer: PreTrainedModel) -> bool:
    return getattr(transformer.config, "type_vocab_size", 0) > 1


def _gather(hidden: Tensor, positions: Tensor) -> Tensor:
    """hidden [S, T, D], positions [S, K] -> hidden at the positions [S, K, D]."""
    return hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def _weighted_sums(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted cross-entropy, weight and number right, summed in fp32; a slot of weight zero adds exactly nothing."""
    flat = logits.reshape(-1, logits.shape[-1]).float()
    labels, weights = labels.reshape(-1), weights.reshape(-1).float()
    losses = nn.functional.cross_entropy(flat, labels, reduction="none")
    correct = (flat.detach().argmax(-1) == labels).float()
    return (losses * weights).sum(), weights.sum(), (correct * weights).sum()


def build_model(
    model: str | None = None,
    *,
    vocab_size: int,
    special_ids: Mapping[str, int],
    max_seq_length: int,
    config_overrides: str | Mapping[str, Any] | None = None,
    model_name_or_path: str | None = None,
    from_config: str | None = None,
    objective: str = "mlm",
    attn_implementation: str = "sdpa",
    bf16: bool = False,
    seed: int = 0,
    gradient_checkpointing: bool = False,
    pad_vocab_to_multiple_of: int = 1,
) -> PretrainingModel:
    """Build the model to train, in fp32 on the CPU, with random weights or trained ones.

    Exactly one of `model` (`bert-mini`), `from_config` (a `config.json`, its directory or a hub name) and
    `model_name_or_path` is given. Random weights depend on `seed` alone, so every rank has the same. `special_ids`
    are the manifest's (pad, unk, cls, sep, mask). `bf16` says whether the model will compute in bfloat16, the only
    precision of flash attention here. Raises ValueError with the remedy.
    """
    _check_choice("objective", objective, OBJECTIVES)
    named = [name for name in (model, from_config, model_name_or_path) if name]
    if len(named) != 1:
        raise ValueError(f"{named} given: name the model once, by --model, --from_config or --model_name_or_path")
    settings = parse_overrides(config_overrides)
    data = {"vocab_size": vocab_size, "special_ids": special_ids, "max_seq_length": max_seq_length}
    config = named_configuration(model, settings) if model else overridden(configuration_from(named[0]), settings)
    if model_name_or_path:
        check_fits_data(config, model_name_or_path, **data)  # type: ignore[arg-type]
    else:
        fit_to_data(config, **data, pad_vocab_to_multiple_of=pad_vocab_to_multiple_of)  # type: ignore[arg-type]
    model_class = _model_class(config, objective)
    loading = {"attn_implementation": attention_for(attn_implementation, config, bf16=bf16), "dtype": torch.float32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model_name_or_path:
            transformer = _load_weights(model_class, model_name_or_path, config, loading)
        elif model_class is AutoModelForMaskedLM:
            transformer = AutoModelForMaskedLM.from_config(config, **loading)
        else:
            transformer = model_class._from_config(config, **loading)
    if gradient_checkpointing:
        # Renamed within transformers 5; both take the arguments of torch's checkpoint first.
        renamed = getattr(transformer, "activation_checkpointing_enable", None)
        (renamed or transformer.gradient_checkpointing_enable)({"use_reentrant": False})
    return PretrainingModel(transformer.train(), objective)


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"--{option} {value!r} is not known: choose one of {', '.join(choices)}")


def _model_class(config: PreTrainedConfig, objective: str) -> Any:
    if objective == "mlm":
        return AutoModelForMaskedLM
    if config.model_type != "bert":
        raise ValueError(
            f"--objective mlm+nsp needs a next-sentence head, which {config.model_type!r} does not have: "
            "use a BERT model, or --objective mlm"
        )
    return BertForPreTraining


def attention_for(implementation: str, config: PreTrainedConfig, *, bf16: bool) -> str:
    """The attention that `--attn_implementation` means for this architecture: auto takes the fastest that it has.

    Raises ValueError for an unknown name, and for one that the architecture, the precision or the machine has not.
    """
    _check_choice("attn_implementation", implementation, ATTENTION_IMPLEMENTATIONS)
    model_class = MODEL_FOR_MASKED_LM_MAPPING.get(type(config), PreTrainedModel)
    has_flash, has_sdpa = model_class._supports_flash_attn, model_class._supports_sdpa
    if implementation == "auto":
        if bf16 and has_flash and is_flash_attn_2_available():
            return "flash_attention_2"
        return "sdpa" if has_sdpa else "eager"
    if implementation == "sdpa" and not has_sdpa:
        raise ValueError(f"--attn_implementation sdpa: {config.model_type} has no such attention; use auto or eager")
    if implementation == "flash_attention_2":
        if not is_flash_attn_2_available():
            raise ValueError(
                "--attn_implementation flash_attention_2 needs the package flash-attn and a CUDA device: install it "
                "(pip install flash-attn), or use sdpa"
            )
        if not bf16 or not has_flash:
            lacking = f"{config.model_type} has it not" if not has_flash else "it computes in bf16 only"
            raise ValueError(f"--attn_implementation flash_attention_2: {lacking}; use auto")
    return implementation


def _load_weights(model_class: Any, source: str, config: PreTrainedConfig, loading: dict[str, Any]) -> PreTrainedModel:
    """Trained weights from safetensors only; says which of the head's the checkpoint does not hold."""
    only = reading(source)["local_files_only"]
    try:
        transformer, drawn = load_checkpoint(source, config, model_class, local_files_only=only, **loading)
    except OSError as error:
        raise ValueError(unreadable(source, error)) from error
    if drawn:
        warnings.warn(f"{source} holds no {drawn}: these start at random", stacklevel=3)
    return transformer


def check_weights(config: PreTrainedConfig, source: str, objective: str) -> None:
    """ValueError where the weights of `source` do not fill the model; see `check_checkpoint`, nothing is loaded."""
    try:
        only = reading(source)["local_files_only"]
        check_checkpoint(source, config, _model_class(config, objective), local_files_only=only)
    except OSError as error:
        raise ValueError(unreadable(source, error)) from error
