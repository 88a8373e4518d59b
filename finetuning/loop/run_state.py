"""The saved state of a run: progress, weights, optimizer, and the best epoch's weights so far."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from finetuning.examples.predictions import row_key
from finetuning.examples.recipe import Feature, FinetuningOptions, Recipe
from finetuning.loop.schedule import Schedule
from finetuning.loop.updates import Sums, means
from pretraining.checkpoints.checkpoint import STATE_FILE, Checkpoint, committed, newest_checkpoint, read_state
from pretraining.checkpoints.saving import retain, save_checkpoint
from pretraining.engines.engine import Engine
from runtime.files.schemas import Count, Items, Name, Number, Schema, Seconds, checked, shown
from runtime.machine import bf16_support
from runtime.options.declaration import identity_values
from runtime.processes.collectives import barrier

STATE_NAME = "state"
REMEDY = "remove the folder, or drop that run with --resume_from_checkpoint false"


class _FinetuningProgressFile(Schema):
    """The fields of `FinetuningProgress` in a state.json, scores NaN where they were not finite."""

    updates: Count
    closed: Count
    rows: Count
    train_seconds: Seconds
    seconds: Seconds
    not_finite: Count
    stopped: Literal["early", "not_finite"] | None
    best_score: float | None
    best_epoch: Number | None
    best_updates: Count | None
    validations_since_best: Count
    epoch_sums: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]]
    history: Items[dict[str, float]]
    half_scores: Items[list[float] | None]


class _StateFile(Schema):
    fingerprint: Name
    optimizer_steps: Count
    progress: _FinetuningProgressFile
    bf16: bool | None = None
    decided_by: dict[str, Any] = {}  # noqa: RUF012 - files of earlier versions lack it


@dataclass
class FinetuningProgress:
    """The progress of a run."""

    updates: int = 0
    closed: int = 0  # updates up to the end of the last epoch that was validated
    rows: int = 0
    train_seconds: float = 0.0
    seconds: float = 0.0  # all, evaluation included
    not_finite: int = 0
    stopped: str | None = None  # "early" or "not_finite"
    best_score: float | None = None
    best_epoch: float | None = None
    best_updates: int | None = None
    validations_since_best: int = 0
    epoch_sums: Sums = field(default_factory=dict)  # of the training measures since the epoch began
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per validation
    half_scores: list[list[float] | None] = field(default_factory=list)  # likewise, see finetuning/loop/optimism.py

    def take_validation(self, scores: Mapping[str, float], metric: str, schedule: Schedule, patience: int) -> bool:
        """Record a validation; True when it is the best so far (the first of equals stays)."""
        if metric not in scores:
            raise ValueError(f"the selection metric {metric!r} is not among the scores {sorted(scores)}")
        epoch = self.updates / schedule.updates_per_epoch
        training = {f"train_{name}": mean for name, mean in means(self.epoch_sums).items()}
        self.history.append({"epoch": epoch, "updates": self.updates, **training, **scores})
        if self.best_score is None or math.isnan(self.best_score) or scores[metric] > self.best_score:
            self.best_score, self.best_epoch, self.best_updates = scores[metric], epoch, self.updates
            self.validations_since_best = 0
            return True
        self.validations_since_best += 1
        if patience and self.validations_since_best >= patience and self.stopped is None:
            self.stopped = "early"
        return False


def progress_of(checkpoint: Checkpoint, metric: str) -> FinetuningProgress:
    """The progress of a saved run; ValueError for a state.json that is not of a run selecting by `metric`."""
    place = str(checkpoint.path / STATE_FILE)
    checked(checkpoint.state, _StateFile, place, REMEDY)
    progress = FinetuningProgress(
        **{item.name: checkpoint.state["progress"][item.name] for item in fields(FinetuningProgress)}
    )
    if any(name not in entry for entry in progress.history for name in ("epoch", "updates", metric)):
        raise ValueError(f"{place}: a validation of progress.history lacks epoch, updates or {metric}: {REMEDY}")
    return progress


def earlier_precision(directory: Path, device: torch.device) -> bool | None:
    """Whether the interrupted run in a directory computes in bf16; None without one.

    Versions that did not record it computed in bf16 on the GPUs that can, and never on a CPU. A state that cannot be
    read is left to `RunState.resume`, which refuses it.
    """
    for checkpoint in committed(directory / STATE_NAME)[:1]:
        with suppress(OSError, ValueError):
            recorded = read_state(checkpoint).get("bf16")
            return recorded if isinstance(recorded, bool) else device.type == "cuda" and bf16_support("cuda")[0]
    return None


class RunIdentity(NamedTuple):
    """A run's identity: a digest of all that decides it, and the same values in words, without the rows."""

    fingerprint: str = ""
    decided_by: Mapping[str, Any] = {}


class RunState:
    """Saves and restores a run through the engine; without a directory it only remembers the best weights."""

    def __init__(
        self,
        engine: Engine,
        directory: Path | None,
        identity: RunIdentity,
        *,
        metric: str,
        resuming: bool = True,
    ) -> None:
        self.engine, self.identity, self.metric, self.resuming = engine, identity, metric, resuming
        self.directory = None if directory is None else directory / STATE_NAME
        self.best: dict[str, torch.Tensor] = {}

    def resume(self, example: Mapping[str, Any]) -> FinetuningProgress:
        """The progress of an interrupted run of the same fingerprint, its weights loaded; else a fresh one.

        Raises ValueError when the directory holds the state of another run.
        """
        if self.directory is None:
            return FinetuningProgress()
        if not self.resuming:
            self.remove()
            return FinetuningProgress()
        checkpoint = newest_checkpoint(self.directory, self.engine.ranks)
        if checkpoint is None:
            return FinetuningProgress()
        state, progress = checkpoint.state, progress_of(checkpoint, self.metric)
        if state["fingerprint"] != self.identity.fingerprint:
            listed = differences(state.get("decided_by"), self.identity.decided_by)
            raise ValueError(
                f"{self.directory} holds an interrupted run with other options or data ({listed}): choose another "
                "--output_dir, or drop that run with --resume_from_checkpoint false"
            )
        if checkpoint.state["optimizer_steps"]:
            self._start_optimizer(example)
        self.engine.load_state(
            checkpoint.read, optimizer_steps=checkpoint.state["optimizer_steps"], example=dict(example)
        )
        names = (name for name in checkpoint.names if name.startswith("best:"))
        self.best = {name.removeprefix("best:"): checkpoint.read(name) for name in names}
        return progress

    def _start_optimizer(self, example: Mapping[str, Any]) -> None:
        """Run one empty update: ZeRO creates its state in the first step, and needs a single loss."""
        outputs = self.engine(**example)
        self.engine.backward(sum(output.float().sum() for output in outputs.values()) * 0.0, last=True)
        self.engine.step(0.0)

    def save(self, progress: FinetuningProgress) -> None:
        """Commit the state and remove the previous one."""
        if self.directory is None:
            return
        best = ((f"best:{name}", tensor) for name, tensor in self.best.items())
        is_closed = progress.closed == progress.updates
        name = f"step-{progress.updates:08d}-{int(is_closed):03d}"
        save_checkpoint(
            self.directory,
            name,
            tensors=itertools.chain(self.engine.state_tensors(), best),
            state={
                "fingerprint": self.identity.fingerprint,
                "decided_by": self.identity.decided_by,
                "optimizer_steps": self.engine.optimizer_steps(),
                "bf16": self.engine.options.bf16,
                "progress": asdict(progress),
            },
            ranks=self.engine.ranks,
        )
        if self.engine.ranks.is_main:
            retain(self.directory, 1, newest=name)

    def keep_best(self) -> None:
        """Keep a copy of the current weights on the CPU."""
        tensors = self.engine.state_tensors()
        self.best = {name: tensor.to("cpu", copy=True) for name, tensor in tensors if name.endswith("/weight")}

    def restore_best(self, example: Mapping[str, Any]) -> None:
        """Put the best weights back; the optimizer's state is lost, so this ends a training."""
        if self.best:
            self.engine.load_state(lambda name, _: self.best[name], optimizer_steps=0, example=dict(example))

    def remove(self) -> None:
        """Delete the state of a finished run."""
        if self.directory is not None:
            if self.engine.ranks.is_main:
                shutil.rmtree(self.directory, ignore_errors=True)
            barrier()


def decided_by(recipe: Recipe, options: FinetuningOptions, global_rows: int, weights: str = "") -> dict[str, Any]:
    """The values that decide a run besides its rows and examples, as read back from JSON."""
    content = {
        "recipe": recipe.name,
        "head": asdict(recipe.head),
        **identity_values(options),
        "global_batch_rows": global_rows,
        "weights": weights,
    }
    return dict(json.loads(json.dumps(content, default=str)))


def differences(theirs: Mapping[str, Any] | None, mine: Mapping[str, Any]) -> str:
    """The options in which two runs of different fingerprints differ, in words; unknown for earlier versions."""
    if not theirs:
        return "written by an earlier version, which did not record them"
    names = [name for name in mine if mine[name] != theirs.get(name)]
    if not names:
        return "the same options: the training or evaluation examples differ"
    pairs = [pair for name in names for pair in _differing(name, theirs.get(name), mine[name])]
    return "; ".join(f"{name}: {_brief(there)} there, {_brief(here)} here" for name, there, here in pairs)


def _differing(name: str, there: Any, here: Any) -> list[tuple[str, Any, Any]]:
    """The value itself, or of two groups of values those that differ, since a long group is shown cut."""
    if not isinstance(there, Mapping) or not isinstance(here, Mapping):
        return [(name, there, here)]
    return [(f"{name} {key}", there.get(key), value) for key, value in here.items() if there.get(key) != value] or [
        (name, there, here)
    ]


def _brief(value: Any) -> str:
    """A value for a message; of a digest the beginning."""
    digest = isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)
    return f"{value[:12]}..." if digest else shown(value)


def run_identity(recipe: Recipe, options: FinetuningOptions, global_rows: int, weights: str = "") -> RunIdentity:
    """The identity of a run whose first weights have the digest `weights`; it hashes all rows."""
    return RunIdentity(
        run_fingerprint(recipe, options, global_rows, weights), decided_by(recipe, options, global_rows, weights)
    )


def run_fingerprint(recipe: Recipe, options: FinetuningOptions, global_rows: int, weights: str = "") -> str:
    """sha256 over all that decides a run: recipe, relevant options, global batch, first weights, rows, examples."""
    content = decided_by(recipe, options, global_rows, weights)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    _add_rows(digest, recipe.train_features)
    for name, evaluation_set in sorted(recipe.evaluation_sets.items()):
        digest.update(name.encode())
        _add_rows(digest, evaluation_set.features)
        for example in evaluation_set.examples.items():
            digest.update(repr(example).encode())
    return digest.hexdigest()


def _add_rows(digest: Any, features: Sequence[Feature]) -> None:
    for feature in features:
        content = [(name, value) for name, value in feature.items() if not isinstance(value, np.ndarray)]
        digest.update(repr((row_key(feature), content)).encode())
