"""`--overfit_gate`: before a long run, check that model, optimizer and rate can overfit one micro-batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from pretraining.checkpoints.checkpoint import committed
from pretraining.loop.batches import as_inputs
from pretraining.overfit.overfit import OverfitResult, overfit_one_batch
from pretraining.plan.plan import Plan
from runtime.processes.collectives import broadcast_json, fail_together
from shards.storage.location import ShardLocation
from shards.streaming.stream import MaskedStream


def check_overfits(plan: Plan, shards: ShardLocation) -> None:
    """Print the verdict; ValueError on every rank unless the batch was overfitted. The main rank computes alone.

    A run that resumes from a checkpoint passed when it started.
    """
    if broadcast_json(_resumes(plan)):
        return
    error: BaseException | None = None
    if plan.ranks.is_main:
        try:
            print(_try(plan, shards).summary())
        except ValueError as caught:
            error = caught
    fail_together(error, "trying to overfit one batch")


def _resumes(plan: Plan) -> bool:
    options = plan.options
    if options.resume_from_checkpoint in ("auto", "false"):
        return bool(committed(Path(options.output_dir) / "checkpoints"))
    return True


def _try(plan: Plan, shards: ShardLocation) -> OverfitResult:
    model = plan.build_model()
    batch = as_inputs(next(MaskedStream(shards, plan.stream, 0, 1).batches(0)), torch.device("cpu"))
    few = {name: value[:8].to(plan.device) for name, value in batch.items()}
    result = overfit_one_batch(
        model.to(plan.device),
        few,
        plan.peak_learning_rate,
        max_updates=200,
        max_grad_norm=plan.options.max_grad_norm,
        optimizer_options=replace(plan.optimizer, name=plan.optimizer_kind),
        bf16=plan.bf16,
        seed=plan.options.seed,
    )
    result.require_solved()
    return result
