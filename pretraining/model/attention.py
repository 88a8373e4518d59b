"""The attention kernel of a run: what --attn_implementation means for an architecture, a device and a length."""

from __future__ import annotations

from transformers import MODEL_FOR_MASKED_LM_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from pretraining.names import ATTENTION_IMPLEMENTATIONS

# Longest rows for which the plain product is faster than torch's fused kernel, by device and precision, with the
# families it was measured for (benchmarks/attention.md). Everywhere else the fused kernel is faster or unmeasured.
EAGER_UP_TO = {("cpu", "bf16"): 256}
MEASURED_FAMILIES = ("bert", "modernbert")


def faster_attention(config: PreTrainedConfig, *, bf16: bool, device_type: str, length: int) -> str:
    """sdpa or eager by the measured table, for a family that has both; `length` in tokens of the longest row."""
    limit = EAGER_UP_TO.get((device_type, "bf16" if bf16 else "fp32"), 0)
    return "eager" if config.model_type in MEASURED_FAMILIES and length <= limit else "sdpa"


def attention_for(
    implementation: str, config: PreTrainedConfig, *, bf16: bool, device_type: str = "cuda", length: int = 512
) -> str:
    """The attention that `--attn_implementation` means for this architecture: auto takes the fastest that it supports.

    Raises ValueError for an unknown name, and for one that the architecture, precision or machine does not support.
    """
    if implementation not in ATTENTION_IMPLEMENTATIONS:
        choices = ", ".join(ATTENTION_IMPLEMENTATIONS)
        raise ValueError(f"--attn_implementation {implementation!r} is not known: choose one of {choices}")
    model_class = MODEL_FOR_MASKED_LM_MAPPING.get(type(config), PreTrainedModel)
    has_flash, has_sdpa = model_class._supports_flash_attn, model_class._supports_sdpa
    if implementation == "auto":
        if bf16 and has_flash and is_flash_attn_2_available():
            return "flash_attention_2"
        if not has_sdpa:
            return "eager"
        return faster_attention(config, bf16=bf16, device_type=device_type, length=length)
    if implementation == "sdpa" and not has_sdpa:
        raise ValueError(f"--attn_implementation sdpa: {config.model_type} does not support it; use auto or eager")
    if implementation == "flash_attention_2":
        if not is_flash_attn_2_available():
            raise ValueError(
                "--attn_implementation flash_attention_2 needs the package flash-attn and a CUDA device: install it "
                "(pip install flash-attn), or use sdpa"
            )
        if not bf16 or not has_flash:
            lacking = f"{config.model_type} does not support it" if not has_flash else "it computes in bf16 only"
            raise ValueError(f"--attn_implementation flash_attention_2: {lacking}; use auto")
    return implementation
