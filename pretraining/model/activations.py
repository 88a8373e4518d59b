"""Activation memory (bytes kept for the backward pass), by tracing shapes on the meta device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig

from pretraining.model.configuration import rederived
from pretraining.model.families import shape_only
from pretraining.model.masked_lm import PretrainingModel

_TRACED_ATTENTION = "shapes_of_fused_attention"


@dataclass(frozen=True)
class Activations:
    """Bytes kept for the backward pass of one micro-batch, and `logits`, the additional bytes of the loss."""

    saved: int
    logits: int


class _FusedAttention(torch.autograd.Function):
    """Keeps what a fused kernel keeps: queries, keys, values, output, a log-sum per query; never the T x T weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        output = torch.empty_like(query)
        log_sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, log_sums, *([] if mask is None else [mask]))
        return output


def _attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    windowed = options.get("sliding_window") is not None
    mask = query.new_empty(query.shape[0], 1, query.shape[2], query.shape[2]) if windowed else None
    return _FusedAttention.apply(query, key, value, mask).transpose(1, 2).contiguous(), None


def activations(
    config: PreTrainedConfig,
    *,
    num_sequences: int,
    sequence_length: int,
    num_masked_per_sequence: int,
    bf16: bool = False,
    gradient_checkpointing: bool = False,
    next_sentence: bool = False,
    attention: str = "sdpa",
) -> Activations:
    """Activations of a micro-batch, with fused attention or "eager", for a model that exists as shapes only.

    With checkpointing: every layer's input, and one layer's activations while it is recomputed; as without it where
    the configuration does not count layers.
    """
    batch = (num_sequences, sequence_length, num_masked_per_sequence)
    dtype = torch.bfloat16 if bf16 else torch.float32
    saved = _saved_bytes(config, batch, dtype, next_sentence, attention)
    logits = dtype.itemsize * num_sequences * num_masked_per_sequence * config.vocab_size  # their gradient
    layers = config.num_hidden_layers
    name = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    if gradient_checkpointing and layers > 1 and name in config.to_dict():  # Funnel's layers come in blocks
        with_one_layer = _saved_bytes(rederived(config, {name: 1}), batch, dtype, next_sentence, attention)
        per_layer = (saved - with_one_layer) // (layers - 1)
        inputs = layers * num_sequences * sequence_length * config.hidden_size * dtype.itemsize
        saved = saved - (layers - 1) * per_layer + inputs
    return Activations(saved, logits)


def _saved_bytes(
    config: PreTrainedConfig,
    batch: tuple[int, int, int],
    dtype: torch.dtype,
    next_sentence: bool,
    attention: str,
) -> int:
    num_sequences, length, num_masked = batch
    AttentionInterface.register(_TRACED_ATTENTION, _attention)
    kernel = "eager" if attention == "eager" else _TRACED_ATTENTION
    transformer = shape_only(config, next_sentence=next_sentence, attn_implementation=kernel, dtype=dtype)
    with torch.device("meta"):
        token_ids = torch.ones(num_sequences, length, dtype=torch.long)
        slots = torch.ones(num_sequences, num_masked, dtype=torch.long)
        labels = torch.ones(num_sequences, dtype=torch.long)
    model = PretrainingModel(transformer.train(), "mlm+nsp" if next_sentence else "mlm")
    inputs = {"mask_positions": slots, "mask_labels": slots, "mask_weights": slots.float()}
    if model.family.sdpa_masks is None:  # without a mask `transformers` looks for padding, and there are no values here
        inputs["attention_mask"] = torch.ones_like(token_ids)
    if next_sentence:
        inputs |= {"next_sentence_labels": labels, "next_sentence_weights": labels.float()}
    return saved_bytes(model, lambda: model(token_ids, **inputs))


def saved_bytes(model: torch.nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes of the distinct storages that `forward` keeps for the backward pass, the model's parameters left out."""
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []  # alive until the end, so that no address is reused

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            sizes[storage._cdata] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept_output = forward()
    del kept_output
    return sum(sizes.values())
