"""The fine-tuning loop of all recipes, engines and world sizes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from finetuning.examples.batches import BatchShape, batch_shape, row_length, training_order
from finetuning.examples.recipe import FinetuningOptions, Recipe
from finetuning.loop.evaluation import Evaluation, evaluate, to_device
from finetuning.loop.optimism import half_scores
from finetuning.loop.result import Result, make_result
from finetuning.loop.run_log import RunLog, epoch_line
from finetuning.loop.run_state import FinetuningProgress, RunIdentity, RunState, run_identity
from finetuning.loop.schedule import Schedule, make_schedule
from finetuning.loop.stopping import Asked, FinetuningInterrupted, Stopping, never
from finetuning.loop.updates import add_update, means, micro_batches, reseed, train_update
from pretraining.engines.build import build_engine
from pretraining.engines.deepspeed_config import load_config
from pretraining.engines.engine import Engine, EngineOptions
from pretraining.engines.precision import Precision, choose_precision
from pretraining.engines.updating.optimizers import OptimizerOptions
from runtime.processes.collectives import on_main, sum_over_ranks
from runtime.processes.fault_points import fault_point
from runtime.processes.interruption import Interrupted
from runtime.processes.ranks import Ranks, choose_device, read_ranks

FLUSH_UPDATES = 10  # the host reads the device this often
MOST_NOT_FINITE = 5  # skipped updates after which a run is given up


@dataclass
class FinetuningRun:
    """The objects of a running fine-tuning."""

    recipe: Recipe
    options: FinetuningOptions
    engine: Engine
    shape: BatchShape
    schedule: Schedule
    state: RunState
    progress: FinetuningProgress
    log: RunLog
    example: dict[str, torch.Tensor]  # one row of model inputs, which some engines need to load a state
    stopping: Stopping
    started: float  # perf_counter, an interrupted run's seconds before it
    best: Evaluation | None = None  # of the validation set


def finetune(
    recipe: Recipe,
    model: nn.Module,
    options: FinetuningOptions,
    *,
    engine: Engine | None = None,
    directory: Path | None = None,
    asked: Asked = never,
    identity: RunIdentity | None = None,
) -> Result:
    """Train, pick the best epoch on the set "validation", then score every evaluation set with it.

    Every rank calls it and gets the same result. `directory` keeps journal and resume state; without one nothing is
    written (and nothing can be resumed). A resume requires the same `identity`; None: that of `run_identity`
    without a digest of the first weights. The model ends with the best epoch's weights. Raises FinetuningInterrupted on
    every rank, the state saved, once `asked` gives a reason on one of them.
    """
    run = _open_run(recipe, model, options, engine, directory, asked, identity)
    progress = run.progress
    try:
        if progress.updates:
            run.log.say(f"continuing after update {progress.updates} of {run.schedule.total_updates}")
        while progress.closed < (progress.updates if progress.stopped else run.schedule.total_updates):
            _train_epoch(run)
            _validate(run)
            progress.closed = progress.updates
            _save(run)
        evaluations = _evaluate_best(run)
    except Interrupted as interruption:
        raise FinetuningInterrupted(str(interruption), progress.updates, run.schedule.total_updates) from None
    finally:
        run.log.close()
    seconds = time.perf_counter() - run.started
    hidden_size = int(getattr(getattr(model, "config", None), "hidden_size", 768))
    return make_result(recipe, options, run.schedule, run.shape, run.progress, evaluations, seconds, hidden_size)


def open_engine(
    model: nn.Module, options: FinetuningOptions, shape: BatchShape, *, precision: Precision | None = None
) -> Engine:
    """DeepSpeed with --deepspeed, otherwise PyTorch; on this process's device, in the precision of the options."""
    ranks = read_ranks()
    device = choose_device(ranks)
    precision = precision or precision_of(options, getattr(model, "config", None), device, ranks)
    prepared = engine_options(options, shape, bf16=precision.bf16)
    return build_engine(model, prepared, ranks=ranks, device=device)


def engine_options(options: FinetuningOptions, shape: BatchShape, *, bf16: bool = False) -> EngineOptions:
    """The engine's options; `bf16` comes from `precision_of`, since a check of the options may not query the hardware.

    Raises ValueError for an option outside its range, and for a DeepSpeed JSON that cannot be read.
    """
    optimizer = OptimizerOptions(
        learning_rate=options.learning_rate, weight_decay=options.weight_decay, betas=(0.9, 0.999), eps=1e-8
    )
    return EngineOptions.of(
        options,
        deepspeed=None if options.deepspeed is None else deepspeed_content(options.deepspeed),
        optimizer=optimizer,
        bf16=bf16,
        micro_batch_size=shape.micro_rows,
        gradient_accumulation_steps=shape.accumulation,
    )


@cache
def deepspeed_content(path: str) -> Mapping[str, Any]:
    """The content of a DeepSpeed JSON, read once a command: the file may change during the run.

    Raises ValueError as `load_config` does.
    """
    return load_config(path)


def precision_of(
    options: FinetuningOptions, config: Any, device: torch.device, ranks: Ranks, *, earlier: bool | None = None
) -> Precision:
    """What `--bf16` means for a model of this configuration on this device; `earlier` as `choose_precision` has it.

    Collective: the main rank decides, since machines of one run may differ.
    """

    def decide() -> dict[str, Any]:
        content = None if options.deepspeed is None else deepspeed_content(options.deepspeed)
        model_type = getattr(config, "model_type", "")
        chosen = choose_precision(
            options.bf16, device_type=device.type, model_type=model_type, deepspeed=content, earlier=earlier
        )
        return asdict(chosen)

    return Precision(**on_main(decide, ranks, "choosing the precision"))


def _open_run(
    recipe: Recipe,
    model: nn.Module,
    options: FinetuningOptions,
    engine: Engine | None,
    directory: Path | None,
    asked: Asked,
    identity: RunIdentity | None,
) -> FinetuningRun:
    started = time.perf_counter()
    shape = batch_shape(options, read_ranks().world_size if engine is None else engine.ranks.world_size)
    schedule = make_schedule(options, len(recipe.train_features), shape)
    engine = engine or open_engine(model, options, shape)
    if identity is None:
        identity = RunIdentity() if directory is None else run_identity(recipe, options, shape.global_rows)
    state = RunState(
        engine, directory, identity, metric=recipe.metric, resuming=options.resume_from_checkpoint == "auto"
    )
    example = _example(recipe, engine)
    progress = state.resume(example)
    log = RunLog(
        directory,
        is_main=engine.ranks.is_main,
        total_updates=schedule.total_updates,
        updates=progress.updates,
        closed=progress.closed,
        report_to=options.report_to,
        options=asdict(options),
    )
    started -= progress.seconds
    return FinetuningRun(
        recipe, options, engine, shape, schedule, state, progress, log, example, Stopping(asked), started
    )


def _example(recipe: Recipe, engine: Engine) -> dict[str, torch.Tensor]:
    sets = [recipe.train_features, *(evaluation_set.features for evaluation_set in recipe.evaluation_sets.values())]
    row = next((features[0] for features in sets if len(features)), None)
    if row is None:
        raise ValueError("there is nothing to train on and nothing to evaluate: give a training or an evaluation file")
    batch = to_device(recipe.collate([row]), engine.device)
    return {name: batch[name] for name in recipe.model_inputs if name in batch}


def _train_epoch(run: FinetuningRun) -> None:
    """The remaining updates of the current epoch; none if the run was interrupted during its validation."""
    features, progress, ranks = run.recipe.train_features, run.progress, run.engine.ranks
    lengths = np.array([row_length(feature) for feature in features], dtype=np.int64)
    epoch = run.schedule.epoch_of(progress.closed)
    if progress.updates == progress.closed:
        progress.epoch_sums = {}
    batches = training_order(lengths, batch_rows=run.shape.global_rows, seed=run.options.seed, epoch=epoch)
    filler = features[int(lengths.argmin())]
    run.engine.train()
    run.stopping.restart()
    pending: list[tuple[int, float, dict[str, torch.Tensor]]] = []
    mark = time.perf_counter()
    for batch in batches[progress.updates - epoch * run.schedule.updates_per_epoch :]:
        if progress.updates >= run.schedule.total_updates or progress.stopped:
            break
        fault_point("finetuning.update", rank=ranks.rank)
        parts = micro_batches(features, batch, run.shape, filler, rank=ranks.rank, world_size=ranks.world_size)
        rate = run.schedule.learning_rate(progress.updates)
        reseed(run.options.seed, progress.updates, ranks.rank)
        pending.append((progress.updates + 1, rate, train_update(run.recipe, run.engine, parts, rate)))
        progress.updates += 1
        progress.rows += len(batch)
        reason = run.stopping.reason()
        if len(pending) == FLUSH_UPDATES or _saves_here(run) or reason:
            _flush(run, pending)
        if _saves_here(run) or reason:
            progress.train_seconds += time.perf_counter() - mark
            _save(run)
            mark = time.perf_counter()
        if reason:
            raise Interrupted(reason)
    _flush(run, pending)
    progress.train_seconds += time.perf_counter() - mark


def _save(run: FinetuningRun) -> None:
    run.log.flush()  # a resumed run does not write the lines before its state again
    run.progress.seconds = time.perf_counter() - run.started
    run.state.save(run.progress)


def _saves_here(run: FinetuningRun) -> bool:
    """Inside an epoch, every save_steps updates; the end of an epoch is saved after its validation."""
    updates, every = run.progress.updates, run.options.save_steps
    ends_epoch = updates % run.schedule.updates_per_epoch == 0 or updates == run.schedule.total_updates
    return every > 0 and updates % every == 0 and not ends_epoch


def _flush(run: FinetuningRun, pending: list[tuple[int, float, dict[str, torch.Tensor]]]) -> None:
    """Read the pending updates from the device, sum them over the ranks, log and check them."""
    if not pending:
        return
    names = list(pending[0][2])
    table = torch.stack([torch.stack([values[name].reshape(()) for name in names]) for _, _, values in pending])
    for (update, rate, _), row in zip(pending, sum_over_ranks(table.double()).tolist(), strict=True):
        values = dict(zip(names, row, strict=True))
        run.progress.not_finite += not (np.isfinite(values["gradient_norm"]) and np.isfinite(values["loss"]))
        add_update(run.progress.epoch_sums, values)
        run.log.update(update, {**values, "learning_rate": rate}, means(run.progress.epoch_sums))
    pending.clear()
    run.log.flush()
    if run.progress.not_finite >= MOST_NOT_FINITE:
        run.progress.stopped = "not_finite"


def _validate(run: FinetuningRun) -> None:
    """Score the validation set and keep the weights when they are the best so far."""
    validation = run.recipe.evaluation_sets.get("validation")
    if validation is None or not validation.labelled:
        return
    try:
        evaluation = _evaluate(run, "validation")
    except Interrupted:
        _save(run)  # with the epoch still open: the resumed run validates first
        raise
    if run.progress.take_validation(
        evaluation.scores, run.recipe.metric, run.schedule, run.options.early_stopping_patience
    ):
        run.best = evaluation
        run.state.keep_best()
    run.progress.half_scores.append(half_scores(run.recipe, validation, evaluation.predictions))
    epoch = run.progress.history[-1]["epoch"]
    run.log.validation(run.progress.updates, epoch, evaluation.scores)
    run.log.say(epoch_line(epoch, means(run.progress.epoch_sums), evaluation.scores))


def _evaluate_best(run: FinetuningRun) -> Mapping[str, Evaluation]:
    """Every evaluation set with the best weights; the validation set only where its best scores are not kept."""
    if run.progress.history and run.progress.history[-1]["updates"] != run.progress.best_updates:
        run.state.restore_best(run.example)
    return {
        name: run.best if name == "validation" and run.best is not None else _evaluate(run, name)
        for name in run.recipe.evaluation_sets
    }


def _evaluate(run: FinetuningRun, name: str) -> Evaluation:
    """Evaluate one set, with its own progress bar."""
    run.stopping.restart()
    return evaluate(
        run.recipe,
        run.engine,
        run.recipe.evaluation_sets[name],
        batch_rows=run.options.per_device_eval_batch_size,
        check=run.stopping.check,
        watch=lambda batches: run.log.watch(batches, name),
    )
