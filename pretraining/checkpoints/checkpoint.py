"""Checkpoints of a running job as they are read: verified when loaded, independent of ranks and engine.

A checkpoint is a directory: one safetensors file for each rank that wrote it (full fp32 tensors by parameter name,
dealt to the ranks in turn), `state.json`, and `MANIFEST.json` with the size and sha256 of every file; `saving.py`
writes it. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from safetensors import SafetensorError, safe_open

from runtime.files.foreign import reason_of
from runtime.files.schemas import Count, Items, Name, Schema, read_file, read_object, shown
from runtime.files.whole_files import remove_whole, sha256_of
from runtime.processes.collectives import broadcast_json, fail_together
from runtime.processes.fault_points import fault_point
from runtime.processes.ranks import Ranks

SCHEMA_VERSION = 1
MANIFEST_NAME, STATE_FILE = "MANIFEST.json", "state.json"
NAME_PATTERN = re.compile(r"step-\d{8}(-\d{3})?")
FILE_PATTERN = re.compile(r"state\.json|rank-\d{5}\.safetensors")


REMEDY = "the file was changed or comes from another program; remove this checkpoint, so that an earlier one is used"


class SettledChoices(Schema):
    """What "auto" options of the run mean, besides its identity."""

    attention: Name | None = None
    compiled: bool | None = None


class _LossScaling(Schema):
    scale: Annotated[float, Field(gt=0, le=1e38, allow_inf_nan=False)]
    good_updates: Annotated[int, Field(ge=0, le=1 << 31)]
    hysteresis: Annotated[int, Field(ge=1, le=1 << 31)]


class StateFile(Schema):
    """What every state.json holds; each writer of checkpoints has its own schema for the rest."""

    optimizer_steps: Count = 0
    fork: str | None = None  # the name of the trunk's checkpoint that a branch returns to
    identity: dict[str, Any] | None = None
    choices: SettledChoices | None = None  # pretraining's
    loss_scaling: _LossScaling | None = None  # of a run with --fp16

    @field_validator("fork")
    @classmethod
    def _is_a_name(cls, fork: str | None) -> str | None:
        if fork is not None and not NAME_PATTERN.fullmatch(fork):
            raise ValueError("it must be the name of a checkpoint")
        return fork


class _File(Schema):
    name: Name
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Manifest(Schema):
    schema_version: Literal[1]
    files: Items[_File]


class Checkpoint:
    """A verified checkpoint, open for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state: dict[str, Any] = read_state(path)
        try:
            self._files = [safe_open(file, framework="pt", device="cpu") for file in sorted(path.glob("*.safetensors"))]
        except SafetensorError as error:
            raise ValueError(
                f"{path} holds a file that is not safetensors ({reason_of(error)}): remove this checkpoint"
            ) from error
        self._holder = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118

    @property
    def names(self) -> set[str]:
        return set(self._holder)

    def read(self, name: str, shape: Sequence[int] | None = None) -> torch.Tensor:
        """One full tensor on the CPU, float32 and finite.

        ValueError when the checkpoint holds none of that name, one of another type or `shape`, or NaN and infinities.
        """
        if name not in self._holder:
            raise ValueError(
                f"{self.path} holds no tensor {name!r}: it belongs to another model or optimizer; "
                "resume with the options it was written with"
            )
        tensor: torch.Tensor = self._holder[name].get_tensor(name)
        place = f"{self.path}: its tensor {shown(name)}"
        if tensor.dtype != torch.float32 or (shape is not None and tuple(tensor.shape) != tuple(shape)):
            wanted = "" if shape is None else f" {list(shape)}"
            raise ValueError(
                f"{place} is {tensor.dtype} {list(tensor.shape)}, not torch.float32{wanted}: it belongs to another "
                "model or optimizer; resume with the options it was written with"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"{place} holds NaN or infinity: training failed before it was written; remove this checkpoint, so "
                "that an earlier one is used"
            )
        return tensor


def defect(path: Path) -> str | None:
    """What is wrong with a checkpoint directory, in a few words; None when it is complete and unchanged."""
    try:
        manifest = read_file(path / MANIFEST_NAME, _Manifest, "remove this checkpoint")
        files = {entry.name: (entry.bytes, entry.sha256) for entry in manifest.files}
    except (OSError, ValueError) as error:
        return str(error)
    strange = sorted(name for name in files if not FILE_PATTERN.fullmatch(name))
    if strange or STATE_FILE not in files:
        listed = shown(strange or sorted(files))
        return f"{MANIFEST_NAME} names {listed}: a checkpoint is {STATE_FILE} and rank-*.safetensors"
    present = {file.name for file in path.iterdir()} - {MANIFEST_NAME}
    if present != set(files):
        return f"files {sorted(present ^ set(files))} are missing or not in the manifest"
    for name, (size, digest) in files.items():
        file = path / name
        if file.is_symlink() or not file.is_file():
            return f"{name} is not a regular file"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, the manifest says {size}"
        if sha256_of(file) != digest:
            return f"{name} does not have the sha256 of the manifest"
        if name != STATE_FILE and (reason := _defect_of_tensors(file)):
            return f"{name}: {reason}"
    return None


def _defect_of_tensors(file: Path) -> str | None:
    """Why no run could go on from the tensors of this file; None when all are numbers."""
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            for name in opened.keys():  # noqa: SIM118
                tensor = opened.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    return f"{shown(name)} holds numbers that are not finite"
    except SafetensorError as error:
        return f"it is not safetensors ({error})"
    return None


def committed(directory: Path) -> list[Path]:
    """All checkpoints under their final names, newest first, verified or not."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if NAME_PATTERN.fullmatch(path.name)), reverse=True)


def newest_checkpoint(directory: Path, ranks: Ranks, *, say: Any = print) -> Checkpoint | None:
    """Open the newest valid checkpoint, by scanning the directory (`latest` is only for people); collective.

    Reports which are skipped and why. None only when there are no checkpoints; ValueError when there are some but
    none is valid: a run never silently starts from zero.
    """
    name: str | None = None
    error: BaseException | None = None
    if ranks.is_main:
        try:
            prune_partial(directory)
            name = _choose(directory, say)
        except (OSError, ValueError) as caught:
            error = caught
    fail_together(error, f"looking for checkpoints in {directory}")
    name = broadcast_json(name)
    return None if name is None else _open(directory / name)


def _choose(directory: Path, say: Any) -> str | None:
    reasons = []
    for path in committed(directory):
        reason = defect(path) or _defect_of_fork(path)
        if reason is None:
            return path.name
        say(f"checkpoint {path.name} is skipped: {reason}")
        reasons.append(reason)
    if reasons:
        raise ValueError(
            f"no checkpoint in {directory} is valid (the newest: {reasons[0]}): repair or remove them, or start "
            "in an empty --output_dir"
        )
    return None


def _defect_of_fork(path: Path) -> str | None:
    """What is wrong with the trunk's checkpoint to which the branch of this intact checkpoint returns."""
    try:
        state = read_state(path)
    except (OSError, ValueError) as error:
        return str(error)
    fork = fork_of(path)
    if fork is None:
        return None
    reason = defect_of_trunk(fork, state)
    return f"its branch returns to {fork.name}: {reason}" if reason else None


def defect_of_trunk(fork: Path, state: Mapping[str, Any]) -> str | None:
    """What is wrong with `fork` as the checkpoint that a branch's checkpoint with this state returns to."""
    if reason := defect(fork):
        return reason
    if fork_of(fork) is not None:
        return f"it is inside a branch itself: {STATE_FILE} was changed"
    serial, segment = state.get("serial"), state.get("segment")
    if isinstance(serial, int) and isinstance(segment, int) and fork.name >= f"step-{serial:08d}-{segment:03d}":
        return f"it does not precede this checkpoint in the run: {STATE_FILE} was changed"
    return None


def read_state(path: Path) -> dict[str, Any]:
    """The state.json of a checkpoint's directory; ValueError when it is invalid."""
    return read_object(path / STATE_FILE, StateFile, REMEDY)


def fork_of(path: Path) -> Path | None:
    """The checkpoint next to `path` that its branch returns to; None on the trunk or where it cannot be read."""
    try:
        fork = read_state(path).get("fork")
    except (OSError, ValueError):
        return None
    return path.with_name(fork) if fork else None


def open_checkpoint(path: Path, ranks: Ranks) -> Checkpoint:
    """Open one checkpoint, verified by the main rank; ValueError on every rank when it is damaged; collective."""
    error: BaseException | None = None
    if ranks.is_main:
        try:
            if reason := defect(path):
                error = ValueError(f"{path} cannot be resumed from: {reason}")
        except OSError as caught:
            error = caught
    fail_together(error, f"verifying {path}")
    return _open(path)


def _open(path: Path) -> Checkpoint:
    opened: Checkpoint | None = None
    error: BaseException | None = None
    fault_point("checkpoint.before_open")
    try:
        opened = Checkpoint(path)
    except (OSError, ValueError) as caught:
        error = caught
    fail_together(error, f"opening {path}")
    assert opened is not None
    return opened


def prune_partial(directory: Path) -> None:
    """Remove what an interrupted save left behind."""
    for path in directory.glob(".tmp-step-*") if directory.is_dir() else ():
        remove_whole(path)
