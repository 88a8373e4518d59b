"""Ranges of the options of `launch/gap.py` and `launch/report.py`: what can be refused is refused before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetuning.loop.heads import POOLINGS

CHOICES = {"executor": ("local", "slurm"), "bf16": ("auto", "true", "false"), "pooling": POOLINGS}
SMALLEST = {
    "max_seq_length": 8,
    "doc_stride": 0,
    "max_answer_length": 1,
    "global_batch_rows": 1,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "max_parallel": 1,
    "slurm_workers": 1,
    "slurm_minutes": 1,
    "slurm_gpus": 0,
    "slurm_cpus": 1,
    "slurm_memory_gb": 1,
    "price_per_hour": 0,
    "devices": 1,
    "draws": 100,
    "seed": 0,
}


def range_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with these options (name -> value) by themselves; None is a default yet to be filled in."""
    given = {name: value for name, value in values.items() if value is not None}
    found = [
        f"--{name} {given[name]}: use one of {', '.join(choices)}"
        for name, choices in CHOICES.items()
        if name in given and given[name] not in choices
    ]
    found += [
        f"--{name} {given[name]}: use at least {smallest}"
        for name, smallest in SMALLEST.items()
        if name in given and given[name] < smallest
    ]
    if "confidence" in given and not 0 < given["confidence"] < 1:
        found.append(f"--confidence {given['confidence']}: a share between 0 and 1, such as 0.95")
    if "dropout" in given and not 0 <= given["dropout"] < 1:
        found.append(f"--dropout {given['dropout']}: a rate is at least 0 and below 1")
    if "warmup_ratio" in given and not 0 <= given["warmup_ratio"] <= 1:
        found.append(f"--warmup_ratio {given['warmup_ratio']}: a share of the updates, at least 0 and at most 1")
    if "resolve" in given and not 0 < given["resolve"] < 1:
        found.append(f"--resolve {given['resolve']}: a difference in score between 0 and 1, such as 0.02")
    return found
