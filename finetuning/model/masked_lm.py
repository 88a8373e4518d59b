"""The masked language model of a checkpoint, for use without fine-tuning: one that has a head, or random weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, PretrainedConfig

from finetuning.model.checkpoint_files import from_source
from pretraining.model.source.checkpoint import check_checkpoint, load_checkpoint
from pretraining.model.source.config import require_buildable

SHOWN_NAMES = 3


def check_masked_lm(name: str, config: PretrainedConfig, *, option: str = "--model_name_or_path") -> None:
    """ValueError, naming the `option`, for a checkpoint without a masked-language head; its weights are not loaded."""
    _require_class(name, config, option)
    drawn = from_source(
        lambda place, only: check_checkpoint(place, config, AutoModelForMaskedLM, local_files_only=only), name, option
    )
    _require_head(name, drawn, option)


def load_masked_lm(
    name: str, config: PretrainedConfig, *, attention: str, random_seed: int | None = None, option: str = "checkpoint"
) -> Any:
    """The model of `transformers` in fp32 on the CPU; with a `random_seed` its configuration with random weights.

    Raises ValueError as `check_masked_lm`, and for weights that do not fill the model.
    """
    _require_class(name, config, option)
    if random_seed is not None:
        require_buildable(config, AutoModelForMaskedLM, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed)
            loading = {"attn_implementation": attention, "dtype": torch.float32}
            return AutoModelForMaskedLM.from_config(copy.deepcopy(config), **loading)
    model, drawn = from_source(
        lambda place, only: load_checkpoint(
            place, config, AutoModelForMaskedLM, local_files_only=only, attn_implementation=attention
        ),
        name,
        option,
    )
    _require_head(name, drawn, option)
    return model


def _require_class(name: str, config: PretrainedConfig, option: str) -> None:
    if type(config) not in AutoModelForMaskedLM._model_mapping:
        raise ValueError(f"{option} {name}: {config.model_type} has no masked language model; {REMEDY}")


def _require_head(name: str, drawn: list[str], option: str) -> None:
    if drawn:
        raise ValueError(
            f"{option} {name} has no masked-language head ({len(drawn)} tensors are missing, such as "
            f"{', '.join(drawn[:SHOWN_NAMES])}); {REMEDY}"
        )


REMEDY = "zero-shot tasks need one: name a checkpoint that was saved with it (AutoModelForMaskedLM), or leave them out"
