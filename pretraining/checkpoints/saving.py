"""Saving of checkpoints: written under a temporary name, synced and renamed, in the background where that is wanted.

Training stands still while the tensors are gathered and this rank's share of them is copied. Writing, hashing and
renaming are left to a thread, of which each rank has at most one. The thread takes part in no collective: each rank's
main thread sees that its share is written, the ranks agree on it at their next exchange, and then the main rank's
thread commits. A checkpoint is listed in `MANIFEST.json` and renamed only when every share is on the disk.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from pretraining.checkpoints.checkpoint import (
    MANIFEST_NAME,
    NAME_PATTERN,
    SCHEMA_VERSION,
    STATE_FILE,
    committed,
    fork_of,
)
from runtime.files.whole_files import remove_whole, sha256_of, sync_file, write_json, write_text
from runtime.processes.collectives import fail_together, gather_json, largest
from runtime.processes.fault_points import fault_point
from runtime.processes.ranks import Ranks

LONGEST_END_SECONDS = 60.0


def save_checkpoint(
    directory: Path,
    name: str,
    *,
    tensors: Iterable[tuple[str, torch.Tensor]],
    state: dict[str, Any],
    ranks: Ranks,
) -> Path:
    """Commit checkpoint `name` under `directory`; every rank calls it and passes the same tensors.

    On any rank's failure (disk full, no permission) every rank raises, the temporary directory is removed and the
    existing checkpoints stay as they are.
    """
    CheckpointSaver(directory, ranks, in_background=False).save(name, tensors=tensors, state=state)
    return directory / name


@dataclass
class _Save:
    """A save under way: the task in hand is this rank's share, afterwards the commit (on the other ranks: nothing)."""

    final: Path
    state: dict[str, Any]
    task: Future[Any]
    is_written: bool = False  # on every rank

    @property
    def temporary(self) -> Path:
        return temporary_of(self.final)


class CheckpointSaver:
    """The saves of a run, one at a time. Every rank makes the same calls in the same order, from its main thread.

    `keep`: checkpoints that `retain` leaves after each commit, besides those that `pinned` names then; 0: all. On the
    main rank, `before_commit` is called when all shares are written and `after_commit` with the name of the checkpoint.
    `stalled` counts the seconds that callers waited for saves.
    """

    def __init__(
        self,
        directory: Path,
        ranks: Ranks,
        *,
        in_background: bool = True,
        keep: int = 0,
        before_commit: Callable[[], None] | None = None,
        after_commit: Callable[[str], None] | None = None,
        pinned: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self.directory, self.ranks, self.in_background, self.keep = directory, ranks, in_background, keep
        self.before_commit, self.after_commit, self.pinned = before_commit, after_commit, pinned
        self.num_saves, self.stalled = 0, 0.0
        self._copies: dict[str, torch.Tensor] = {}  # used again by each save: memory for one share, and no more
        self._save: _Save | None = None

    @property
    def pending(self) -> str | None:
        """The checkpoint that is not committed yet, the same on every rank."""
        return None if self._save is None else self._save.final.name

    def save(self, name: str, *, tensors: Iterable[tuple[str, torch.Tensor]], state: dict[str, Any]) -> None:
        """Copy this rank's share and have it written, once the save before is committed; collective.

        Raises on every rank when one failed, in the save before or where nothing is left to the background in this.
        """
        assert NAME_PATTERN.fullmatch(name), name
        self.wait()
        with self._stall():
            final = self.directory / name
            share = dict(dealt(tensors, self.ranks, self._copies if self.in_background else {}))
            self._make(temporary_of(final))
            content = {"schema_version": SCHEMA_VERSION, **state}
            self._save = _Save(final, content, self._start(partial(self._write, final, share, content)))
            self.num_saves += 1
        if not self.in_background:
            self.wait()

    def poll(self) -> None:
        """Take the save under way a step further if every rank is ready for it, or one has failed; collective."""
        if self._save is None:
            return
        task = self._save.task
        failed = task.done() and task.exception() is not None
        unfinished, failures = largest([float(not task.done()), float(failed)])
        if failures or not unfinished:
            self._advance(self._save)

    def wait(self) -> None:
        """Return once nothing is left to commit; raises on every rank when one failed; collective."""
        if self._save is None:
            return
        with self._stall():
            while self._save is not None:
                self._advance(self._save)

    def close(self) -> None:
        """Let this rank's thread end, on its own: after a failure the others may be gone. Its errors are dropped.

        A disk that does not answer for a minute is not waited for: the thread ends with the process.
        """
        if self._save is not None:
            with suppress(TimeoutError):
                self._save.task.exception(LONGEST_END_SECONDS)
            self._save = None

    def _make(self, temporary: Path) -> None:
        error: BaseException | None = None
        try:
            if self.ranks.is_main:
                remove_whole(temporary)
                temporary.mkdir(parents=True)
        except OSError as caught:
            error = caught
        fail_together(error, f"making {temporary}")

    def _advance(self, save: _Save) -> None:
        """Wait for the task in hand on every rank; then start the commit, or be done."""
        error = save.task.exception()
        try:
            fail_together(error, f"{'committing' if save.is_written else 'writing'} {save.final}")
            if save.is_written or self.ranks.world_size == 1:
                self._save = None
                return
            entries = gather_json(save.task.result())
        except BaseException:
            self._save = None
            if self.ranks.is_main:
                remove_whole(save.temporary)
            raise
        work = partial(self._commit, save.final, entries, save.state) if self.ranks.is_main else _nothing
        save.task, save.is_written = self._start(work), True

    def _start(self, work: Callable[[], Any]) -> Future[Any]:
        task: Future[Any] = Future()

        def run() -> None:
            try:
                task.set_result(work())
            except BaseException as error:
                task.set_exception(error)

        if self.in_background and work is not _nothing:
            threading.Thread(target=run, name="saving", daemon=True).start()
        else:
            run()
        return task

    def _write(self, final: Path, share: dict[str, torch.Tensor], state: dict[str, Any]) -> dict[str, Any]:
        """This rank's share; a single rank has nobody to agree with and commits at once."""
        entry = _write_share(temporary_of(final) / f"rank-{self.ranks.rank:05d}.safetensors", share, self.ranks)
        if self.ranks.world_size == 1:
            self._commit(final, [entry], state)
        return entry

    def _commit(self, final: Path, entries: list[dict[str, Any]], state: dict[str, Any]) -> None:
        if self.before_commit is not None:
            self.before_commit()
        _commit(temporary_of(final), final, entries, state)
        if self.after_commit is not None:
            self.after_commit(final.name)
        if self.keep:
            retain(self.directory, self.keep, newest=final.name, besides=self.pinned())

    @contextmanager
    def _stall(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stalled += time.perf_counter() - started


def _nothing() -> None:
    """The commit of a rank other than the main one."""


def temporary_of(final: Path) -> Path:
    """Where a checkpoint is written until it is committed."""
    return final.with_name(f".tmp-{final.name}")


def dealt(
    tensors: Iterable[tuple[str, torch.Tensor]], ranks: Ranks, copies: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Copies of this rank's share: every rank walks through all tensors (gathering is collective) and keeps each n-th.

    A copy in `copies` of the same name, shape and type is overwritten; a new one is added to it.
    """
    for index, (name, tensor) in enumerate(tensors):
        if index % ranks.world_size != ranks.rank:
            continue
        kept = copies.get(name)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            kept = copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        # Never the tensor itself: gathering may return a view of memory that the next update overwrites.
        yield name, kept.copy_(tensor.detach())


def _write_share(path: Path, share: dict[str, torch.Tensor], ranks: Ranks) -> dict[str, Any]:
    """Write one rank's file to the disk; its entry of the manifest."""
    fault_point("checkpoint.before_write", rank=ranks.rank)
    try:
        save_file(share, path)
    except SafetensorError as error:
        raise OSError(f"{path.parent}: {error}") from error
    sync_file(path)
    fault_point("checkpoint.after_write", rank=ranks.rank)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _commit(temporary: Path, final: Path, entries: list[dict[str, Any]], state: dict[str, Any]) -> None:
    file = temporary / STATE_FILE
    write_json(file, state)
    fault_point("checkpoint.before_manifest")
    entries = [*entries, {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)}]
    write_json(temporary / MANIFEST_NAME, {"schema_version": SCHEMA_VERSION, "files": entries})
    sync_file(temporary)
    fault_point("checkpoint.before_rename")
    # Only a checkpoint that was skipped when the run was resumed can have this name.
    earlier = final.with_name(f".tmp-{final.name}-earlier")
    if os.path.lexists(final):
        remove_whole(earlier)
        final.rename(earlier)
    temporary.rename(final)
    sync_file(final.parent)
    fault_point("checkpoint.before_latest")
    write_text(final.parent / "latest", final.name + "\n")
    remove_whole(earlier)


def retain(directory: Path, keep: int, *, newest: str, besides: Collection[str] = ()) -> None:
    """Keep `newest`, its fork, the last `keep` before it that have no fork and those named by `besides`; remove the
    others; on the main rank.

    So a damaged fork leaves an earlier checkpoint, if `keep` is at least 2. Checkpoints later than `newest` are
    left as they are.
    """
    candidates = [path for path in committed(directory) if path.name <= newest]
    trunk = [path for path in candidates if fork_of(path) is None]
    kept = {directory / newest, fork_of(directory / newest), *trunk[: max(1, keep)]}
    for path in candidates:
        if path not in kept and path.name not in besides:
            # A half-deleted directory must not look like a checkpoint: rename it first.
            doomed = path.with_name(f".tmp-{path.name}")
            remove_whole(doomed)
            path.rename(doomed)
            remove_whole(doomed)
