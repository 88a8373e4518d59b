"""The names that options choose between, apart from the code that they stand for: `--help` does not import torch."""

from __future__ import annotations

# `auto` takes the fastest that model and machine support (pretraining/model/attention.py).
ATTENTION_IMPLEMENTATIONS = ("sdpa", "flash_attention_2", "eager", "auto")

# What FSDP2 shards: weights, gradients and moments; all but the weights of a pass; all, within groups of ranks.
FSDP_MODES = ("full_shard", "shard_grad_op", "hybrid_shard")

# The optimizers that a DeepSpeed JSON can name, and its `optimizer.type` for each.
JSON_TYPES = {"adamw": "AdamW", "adam": "Adam", "lamb": "Lamb"}

# All optimizers; Muon is not offered through DeepSpeed's JSON (docs/decisions.md).
OPTIMIZER_NAMES = (*JSON_TYPES, "muon")

# How a learning rate that was tuned at one global batch is rescaled to another.
LEARNING_RATE_RULES = ("none", "sqrt", "linear")

# How the learning rate goes to zero in a branch (pretraining/engines/updating/schedule.py).
DECAYS = ("linear", "sqrt", "cosine")
