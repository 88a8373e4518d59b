"""Floating-point operations of an update, counted per matrix product, and the peak rate of a device.

A product of [m, k] by [k, n] is 2 m k n operations; the backward pass costs two products of the same size for each
one of the forward pass. Lookups, norms, activations and softmax are not matrix products and are left out. The MLM
head counts on the masked positions only. What a run *needs* (model FLOPs) counts the pairs inside ModernBERT's
attention windows; what a kernel with a dense mask *executes*, and what activation checkpointing does twice, is not
progress and is counted separately (`executed`). The rule 6 N D is not used: it counts embeddings, which multiply
nothing.
"""

import json
import re
import time
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedConfig

from pretraining.model.families import family_of

# Dense bf16 (fp16 where there is no bf16) peak of the tensor cores, operations per second, as the makers' data sheets
# give it (half of the figure "with sparsity"). The first entry that is a word of the device's name is used.
# Next to each: the maker's document, and whether the figure was verified in November 2026 ("seen": in a reprint of the
# sheet, or in several independent tables of published benchmarks and training code that agree).
PEAK_FLOPS = (
    ("B200", 2250e12),  # NVIDIA Blackwell architecture technical brief, HGX B200; seen
    ("H200 NVL", 835.5e12),  # NVIDIA H200 data sheet; not seen
    ("H200", 989e12),  # NVIDIA H200 data sheet, SXM; seen
    ("GH200", 989e12),  # NVIDIA GH200 data sheet; seen (1979 with sparsity)
    ("H100 NVL", 835.5e12),  # NVIDIA H100 NVL data sheet; seen (835)
    ("H100 PCIe", 756e12),  # NVIDIA H100 data sheet; seen (1513 with sparsity)
    ("H100", 989e12),  # NVIDIA H100 data sheet, SXM; seen
    ("H800", 989e12),  # as the H100 SXM; the interconnect differs
    ("A100", 312e12),  # NVIDIA A100 data sheet; seen
    ("A800", 312e12),  # as the A100; the interconnect differs
    ("A6000", 154.8e12),  # NVIDIA GA102 white paper, appendix; seen
    ("A40", 149.7e12),  # NVIDIA A40 data sheet; seen (reprint)
    ("A30", 165e12),  # NVIDIA A30 data sheet; not seen
    ("A10G", 70e12),  # the A10's variant in AWS g5, NVIDIA A10G brief; seen
    ("A10", 125e12),  # NVIDIA A10 data sheet; seen (250 with sparsity)
    ("L40S", 362e12),  # NVIDIA L40S data sheet; seen (733 with sparsity)
    ("L40", 181e12),  # NVIDIA L40 data sheet; seen
    ("L4", 121e12),  # NVIDIA L4 data sheet; seen (242 with sparsity)
    ("4090", 165.2e12),  # NVIDIA Ada GPU architecture white paper, fp32 accumulation; seen (330 accumulates in fp16)
    ("3090", 71e12),  # NVIDIA GA102 white paper, fp32 accumulation; seen (142 accumulates in fp16)
    ("V100", 125e12),  # NVIDIA V100 data sheet, fp16, SXM2; seen
    ("T4", 65e12),  # NVIDIA T4 data sheet, fp16; seen
    ("MI300X", 1307.4e12),  # AMD Instinct MI300X data sheet; seen
    ("MI250X", 383e12),  # AMD Instinct MI250X data sheet, both dies; seen (reprint)
)
_MEASURED_MATRIX_WIDTH = 1024
_MEASURED_SECONDS = 0.3


@dataclass(frozen=True)
class ForwardFlops:
    """Operations of a forward pass: `encoder` layers, and `head` (MLM, pooler, next sentence)."""

    encoder: float
    head: float


def update_flops(
    config: PreTrainedConfig,
    *,
    num_sequences: int,
    sequence_length: int,
    num_masked: int,
    next_sentence: bool = False,
    executed: bool = False,
    gradient_checkpointing: bool = False,
    head_only: bool = False,
) -> float:
    """Operations of forward and backward over `num_sequences` sequences with `num_masked` masked positions in all.

    With `executed` the windows are counted as dense attention and checkpointed layers run their forward twice;
    without it (for budgets and for the share of the peak) neither. With `head_only` the encoder is frozen, and the
    decoder, whose weight is the embedding: the encoder has no backward pass, a product of the head one more.
    """
    forward = forward_flops(
        config,
        num_sequences=num_sequences,
        sequence_length=sequence_length,
        num_masked=num_masked,
        next_sentence=next_sentence,
        dense_attention=executed,
    )
    if head_only:
        return forward.encoder + 2 * forward.head
    encoder_passes = 4 if executed and gradient_checkpointing else 3
    return encoder_passes * forward.encoder + 3 * forward.head


def forward_flops(
    config: PreTrainedConfig,
    *,
    num_sequences: int,
    sequence_length: int,
    num_masked: int,
    next_sentence: bool = False,
    dense_attention: bool = False,
) -> ForwardFlops:
    """Operations of one forward pass; a family without a formula of its own is traced on the meta device."""
    feed_forward_inputs = family_of(config).feed_forward_inputs
    if feed_forward_inputs is None:
        return ForwardFlops(
            num_sequences * _traced_forward(config.to_json_string(use_diff=False), sequence_length), 0.0
        )
    width, length = config.hidden_size, sequence_length
    weights = 4 * width * width + (feed_forward_inputs + 1) * width * config.intermediate_size
    encoder = 0.0
    for layer in range(config.num_hidden_layers):
        pairs = length * length if dense_attention else _attended_pairs(config, layer, length)
        encoder += 2.0 * weights * length + 2 * 2.0 * width * pairs  # queries by keys, weights by values
    head = 2.0 * num_masked * (width * width + width * config.vocab_size)
    if next_sentence:
        head += 2.0 * num_sequences * (width * width + width * 2)  # the pooler and the two-way head
    return ForwardFlops(num_sequences * encoder, head)


def _attended_pairs(config: PreTrainedConfig, layer: int, length: int) -> int:
    """Pairs (query, key) that a layer may attend to in a sequence: all, or those at most a half-window apart."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None or layer_types[layer] != "sliding_attention":
        return length * length
    reach = min(config.sliding_window, length - 1)
    return length * (2 * reach + 1) - reach * (reach + 1)


@lru_cache(maxsize=64)
def _traced_forward(config_json: str, length: int) -> float:
    """Operations of one sequence through a model on the meta device; through a real one if its code needs values.

    `transformers` leaves its checks of values out for fake tensors, not for those of the meta device.
    """
    settings = json.loads(config_json)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    try:
        with FakeTensorMode():
            return _counted_forward(config, length)
    except RuntimeError:
        with torch.random.fork_rng(devices=[]):
            return _counted_forward(config, length)


def _counted_forward(config: PreTrainedConfig, length: int) -> float:
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager")
    model.requires_grad_(False)  # the counter's hooks fail on parameters that a layer is handed without gradients
    token_ids = torch.ones(1, length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=token_ids, attention_mask=token_ids)
    return float(counter.get_total_flops())


def peak_flops(
    device: torch.device | str, device_name: str | None = None, *, dtype: torch.dtype = torch.float32
) -> float | None:
    """The device's peak rate in operations per second: by data sheet on a GPU, measured on a CPU.

    The CPU's rate is that of the best matrix product in `dtype` with this process's threads. None for an unknown
    device: then no share of the peak is shown, rather than a wrong one.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return measured_cpu_flops(torch.get_num_threads(), dtype)
    name = device_name or torch.cuda.get_device_name(device)
    for part, flops in PEAK_FLOPS:
        # An RTX A4000 is not an A40, and a 4090 Laptop GPU is not a 4090.
        if re.search(rf"\b{part}\b(?! (?:Ti|D|Laptop)\b)", name, re.IGNORECASE):
            return flops
    return None


@lru_cache(maxsize=8)
def measured_cpu_flops(num_threads: int, dtype: torch.dtype) -> float:
    """Best rate of a product of two 1024 x 1024 matrices over a third of a second; measured once per process."""
    assert num_threads == torch.get_num_threads()
    left = torch.ones(_MEASURED_MATRIX_WIDTH, _MEASURED_MATRIX_WIDTH, dtype=dtype)
    best_seconds = float("inf")
    started = time.perf_counter()
    while time.perf_counter() - started < _MEASURED_SECONDS:
        before = time.perf_counter()
        torch.mm(left, left)
        best_seconds = min(best_seconds, time.perf_counter() - before)
    return 2.0 * _MEASURED_MATRIX_WIDTH**3 / best_seconds
