"""Dropout rates of a `transformers` configuration."""

from __future__ import annotations

import copy

from transformers import PreTrainedConfig

from pretraining.model.families import FAMILIES, Family

HEAD_DROPOUTS = frozenset({"qa_dropout", Family.head_dropout, *(family.head_dropout for family in FAMILIES.values())})


def encoder_dropout(config: PreTrainedConfig) -> dict[str, float]:
    """The encoder's rates by their names in the configuration, such as hidden_dropout_prob; no classifier's."""
    names = [name for name in config.to_dict() if "dropout" in name and name not in HEAD_DROPOUTS]
    rates = {name: getattr(config, name) for name in names}
    return {name: float(rate) for name, rate in rates.items() if isinstance(rate, int | float)}


def with_dropout(config: PreTrainedConfig, rate: float | None, *, head: bool = False) -> PreTrainedConfig:
    """A copy in which each rate of the encoder is `rate`, with `head` a classifier's too; None: the same one."""
    if rate is None:
        return config
    changed = copy.deepcopy(config)
    names = set(encoder_dropout(config))
    if head:
        names |= {name for name in HEAD_DROPOUTS if isinstance(getattr(config, name, ""), int | float | None)}
    for name in names:
        setattr(changed, name, rate)
    return changed
