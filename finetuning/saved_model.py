"""The fine-tuned model on disk: a `transformers` directory for the encoder, and the head beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from finetuning.encoder import Encoder
from finetuning.predictions import write_json
from pretraining.files import read_json

ENCODER_PREFIX = "encoder.transformer."
HEAD_WEIGHTS, HEAD_FACTS = "head.safetensors", "head.json"


def save_model(
    weights: Mapping[str, torch.Tensor],
    model: nn.Module,
    directory: Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    recipe_name: str,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write full weights (as `pretraining.engines.engine.full_weights` gives them); the main rank's work.

    The directory loads with AutoModel and AutoTokenizer, and with --model_name_or_path; `head.safetensors` holds what
    is not the encoder's, and `head.json` its recipe and what else its use needs (`facts`: pooling, labels).
    """
    directory.mkdir(parents=True, exist_ok=True)
    encoder_module = model.get_submodule("encoder")
    if not isinstance(encoder_module, Encoder):
        raise TypeError("a recipe's model has its Encoder as `encoder`")
    config = encoder_module.config
    config.architectures = [type(encoder_module.transformer).__name__.removeprefix("FSDP")]
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    encoder = {
        name.removeprefix(ENCODER_PREFIX): tensor.contiguous()
        for name, tensor in weights.items()
        if name.startswith(ENCODER_PREFIX)
    }
    head = {name: tensor.contiguous() for name, tensor in weights.items() if not name.startswith(ENCODER_PREFIX)}
    save_file(encoder, directory / "model.safetensors", metadata={"format": "pt"})
    save_file(head, directory / HEAD_WEIGHTS, metadata={"format": "pt"})
    write_json(directory / HEAD_FACTS, {"recipe": recipe_name, **(facts or {})})


def head_facts(directory: str | Path, recipe_name: str) -> dict[str, Any] | None:
    """What head.json beside an encoder says; None when there is no head, or another recipe's."""
    directory = Path(directory).expanduser()
    if not (directory / HEAD_WEIGHTS).is_file():
        return None
    found: dict[str, Any] = read_json(directory / HEAD_FACTS)
    return found if found["recipe"] == recipe_name else None


def load_head(model: nn.Module, directory: str | Path, recipe_name: str) -> bool:
    """Load the head that lies beside an encoder; False when there is none, or another recipe's.

    Raises ValueError when its shapes do not fit.
    """
    if head_facts(directory, recipe_name) is None:
        return False
    directory = Path(directory).expanduser()
    parameters = dict(model.named_parameters())
    for name, tensor in load_file(directory / HEAD_WEIGHTS).items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise ValueError(
                f"{directory / HEAD_WEIGHTS}: {name} {tuple(tensor.shape)} does not fit this recipe's head"
            )
        with torch.no_grad():
            parameters[name].copy_(tensor)
    return True
