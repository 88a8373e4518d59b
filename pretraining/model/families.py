"""Properties of `transformers` architectures that their classes and configurations do not give.

One record per family, read by all code that treats families differently: positions, MLM head, attention masks, FLOP
counts, objectives, and what a classifier needs. An architecture that is not listed has the defaults of `Family`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, BertForPreTraining, PreTrainedConfig

Logits = tuple[Tensor, Tensor | None]


def logits_everywhere(transformer: Any, inputs: Mapping[str, Any], positions: Tensor) -> Logits:
    """Run the whole model, its head on every position, and keep the logits at `positions` [S, K]: [S, K, V], None."""
    return gather(transformer(**inputs).logits, positions), None


def bert_logits(transformer: Any, inputs: Mapping[str, Any], positions: Tensor) -> Logits:
    """Run the head on `positions` [S, K] only: [S, K, V], and [S, 2] where there is a next-sentence head."""
    encoded = transformer.bert(**inputs)
    masked = gather(encoded.last_hidden_state, positions)  # [S, K, D]
    if isinstance(transformer, BertForPreTraining):
        return transformer.cls(masked, encoded.pooler_output)
    return transformer.cls(masked), None


def modernbert_logits(transformer: Any, inputs: Mapping[str, Any], positions: Tensor) -> Logits:
    """Run the head on `positions` [S, K] only: [S, K, V], None."""
    hidden = transformer.model(**inputs).last_hidden_state  # [S, T, D]
    return transformer.decoder(transformer.head(gather(hidden, positions))), None


def gather(hidden: Tensor, positions: Tensor) -> Tensor:
    """hidden [S, T, D], positions [S, K] -> hidden at the positions [S, K, D]."""
    return hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def full_mask(config: PreTrainedConfig, attention_mask: Tensor) -> Tensor:
    """Padding mask [S, T] -> boolean mask [S, 1, T, T]: every query sees every token."""
    return attention_mask[:, None, None, :].bool().expand(-1, 1, attention_mask.shape[1], -1)


def full_and_sliding_masks(config: PreTrainedConfig, attention_mask: Tensor) -> dict[str, Tensor]:
    """Padding mask [S, T] -> boolean masks [S, 1, T, T] of both kinds of layer, by the layer's type."""
    full = full_mask(config, attention_mask)
    position = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    near = (position[:, None] - position[None, :]).abs() <= config.sliding_window
    return {"full_attention": full, "sliding_attention": full & near}


@dataclass(frozen=True)
class Family:
    """The properties of an architecture; the defaults hold for an unknown one."""

    # Position ids start at pad_token_id + 1 (`create_position_ids_from_input_ids` in `transformers`), or after
    # `padding_id` where the code uses that constant instead of the configuration's.
    counts_from_padding: bool = False
    padding_id: int | None = None
    # (transformer, inputs, mask positions) -> logits of the masked positions and of the next sentence.
    logits: Callable[[Any, Mapping[str, Any], Tensor], Logits] = logits_everywhere
    # (configuration, padding mask) -> the boolean masks that the encoder takes in its place; None: it takes the mask.
    sdpa_masks: Callable[[PreTrainedConfig, Tensor], Any] | None = None
    # Products into the feed-forward width of a layer, for the count of FLOPs; None: the count is traced.
    feed_forward_inputs: int | None = None
    next_sentence_class: Any = None  # the class of `transformers` with both heads of --objective mlm+nsp
    # Constructor arguments that the configuration takes but does not keep as attributes.
    constructor_only: frozenset[str] = frozenset()
    # The configuration's name for the rate in front of a classifier.
    head_dropout: str = "classifier_dropout"
    fp32_only: str = ""  # why its code cannot run with bf16 weights; empty: it can
    # Hidden states change with the padding of the batch (no mask, or landmarks, convolutions and hashes over it).
    sees_padding: bool = False

    @property
    def runs_head_everywhere(self) -> bool:
        """Whether the MLM head runs on every position instead of the masked ones only."""
        return self.logits is logits_everywhere

    def position_offset(self, config: PreTrainedConfig) -> int:
        """Rows of the position table before the first token's."""
        if not self.counts_from_padding:
            return 0
        return 1 + ((config.pad_token_id or 0) if self.padding_id is None else self.padding_id)


_FROM_PADDING = Family(counts_from_padding=True)
FAMILIES: Mapping[str, Family] = {
    "bert": Family(
        logits=bert_logits, sdpa_masks=full_mask, feed_forward_inputs=1, next_sentence_class=BertForPreTraining
    ),
    "modernbert": Family(
        logits=modernbert_logits,
        sdpa_masks=full_and_sliding_masks,
        feed_forward_inputs=2,  # gated: value and gate
        constructor_only=frozenset({"global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"}),
    ),
    **dict.fromkeys(
        (
            *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm"),
            *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
        ),
        _FROM_PADDING,
    ),
    "mpnet": replace(_FROM_PADDING, padding_id=1),
    **dict.fromkeys(("albert", "rembert"), Family(head_dropout="classifier_dropout_prob")),
    **dict.fromkeys(("deberta", "deberta-v2"), Family(head_dropout="cls_dropout")),
    "distilbert": Family(head_dropout="seq_classif_dropout"),
    **dict.fromkeys(("canine", "convbert", "nystromformer", "yoso"), Family(sees_padding=True)),
    "fnet": Family(sees_padding=True, fp32_only="its Fourier transform has no bf16"),
    "mra": Family(fp32_only="its kernels mix bf16 with fp32"),
}
_UNLISTED = Family()


def family_of(config: PreTrainedConfig) -> Family:
    """The record of a configuration's architecture."""
    return FAMILIES.get(config.model_type, _UNLISTED)


def usable_positions(config: PreTrainedConfig) -> int | None:
    """Longest row that the model has positions for; None where there is no such limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 0:  # XLNet has -1 for no limit
        return None
    return int(positions) - family_of(config).position_offset(config)


def fp32_only(model_type: str) -> str:
    """Why an architecture cannot run with bf16 weights; empty if it can."""
    return FAMILIES.get(model_type, _UNLISTED).fp32_only


def takes_token_types(transformer: nn.Module) -> bool:
    """Whether token types change the model's output: RoBERTa and DeBERTa have one type or none, ModernBERT none."""
    takes = "token_type_ids" in inspect.signature(transformer.forward).parameters
    return takes and getattr(transformer.config, "type_vocab_size", 2) > 1


def model_class(config: PreTrainedConfig, objective: str) -> Any:
    """The class with the heads of an objective, mlm or mlm+nsp; ValueError where `transformers` has none."""
    if objective == "mlm":
        return AutoModelForMaskedLM
    if (chosen := family_of(config).next_sentence_class) is None:
        raise ValueError(
            f"--objective mlm+nsp needs a next-sentence head, which {config.model_type!r} does not have: "
            "use a BERT model, or --objective mlm"
        )
    return chosen


def from_configuration(config: PreTrainedConfig, objective: str, **loading: Any) -> Any:
    """A model with the heads of an objective and random weights; `config` is left unchanged."""
    chosen = model_class(config, objective)
    build = chosen.from_config if hasattr(chosen, "from_config") else chosen._from_config
    return build(copy.deepcopy(config), **loading)


def shape_only(config: PreTrainedConfig, *, next_sentence: bool = False, **loading: Any) -> Any:
    """The model on the meta device (shapes without memory), for counting and tracing."""
    with torch.device("meta"):
        return from_configuration(config, "mlm+nsp" if next_sentence else "mlm", **loading)


def repeated_layers(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of an encoder: the items of its largest ModuleList, each sharded and compiled alone."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        return []
    return list(max(lists, key=num_parameters))  # type: ignore[arg-type]


def num_parameters(module: nn.Module) -> int:
    """The elements of all parameters; a tied one counts once."""
    return sum(parameter.numel() for parameter in module.parameters())
