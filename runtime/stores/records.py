"""Records of a folder (journals, scores, reports) in a store: those that changed, in passes, without a manifest.

A pass first copies the files at the top of the folder, uploads the files below it and then those copies: what a record
at the top names is in the store before the record is.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.files.lock import LOCK_NAME, Ownership
from runtime.files.whole_files import remove_whole
from runtime.processes.failures import Failed
from runtime.processes.interruption import MARKER_NAME, Interrupted, stopping_at_once
from runtime.stores.address import is_plain_name
from runtime.stores.store import Store
from runtime.stores.store_lock import StoreLock
from runtime.stores.uploader import Uploader

LARGEST_BYTES = 1 << 30
NOT_COPIED = frozenset((LOCK_NAME, MARKER_NAME))
CUT_BACK = frozenset(("journal.jsonl",))  # of trainings, to the checkpoint that they resume from
PASS_SECONDS = 30.0
SNAPSHOTS = ".upload"

LeaveOut = Callable[[str], bool]


class RecordCopies:
    """The small files of `directory` in `store`, except names that `leave_out` says; for one thread at a time."""

    def __init__(self, store: Store, directory: Path, leave_out: LeaveOut) -> None:
        self.store, self.directory, self._leave_out = store, directory, leave_out
        self._sent: dict[str, tuple[int, int]] = {}  # as they were uploaded: size and time of change

    def upload(self) -> None:
        """One pass; OSError if the store does not answer."""
        snapshots = self.directory / SNAPSHOTS
        remove_whole(snapshots)
        try:
            changed = dict(self._changed())
            top = {name: state for name, state in changed.items() if "/" not in name}
            for name in top:
                snapshots.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):
                    shutil.copyfile(self.directory / name, snapshots / name)
            for name in (*(name for name in changed if name not in top), *top):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    self.store.upload((snapshots if name in top else self.directory) / name, name)
                    self._sent[name] = changed[name]
        finally:
            remove_whole(snapshots)

    def _changed(self) -> Iterator[tuple[str, tuple[int, int]]]:
        places = os.walk(self.directory)  # which passes over folders that are deleted meanwhile
        for path in sorted(Path(folder, file) for folder, _, files in places for file in files):
            name = path.relative_to(self.directory).as_posix()
            if not self._is_record(name):
                continue
            with suppress(FileNotFoundError):
                status = path.stat()
                state = status.st_size, status.st_mtime_ns
                if path.is_file() and status.st_size <= LARGEST_BYTES and self._sent.get(name) != state:
                    yield name, state

    def _is_record(self, name: str) -> bool:
        return is_plain_name(name) and name not in NOT_COPIED and not self._leave_out(name)

    def restore(self, names: Mapping[str, int], *, replaced: frozenset[str] = frozenset()) -> int:
        """Download the records among a store's files that the folder lacks or that go on in the store, and those
        `replaced`; how many. ValueError, before any is downloaded, for one that went different ways."""
        wanted = [
            name
            for name, size in names.items()
            if self._is_record(name)
            and size <= LARGEST_BYTES
            and (name in replaced or not (self.directory / name).exists() or self._goes_on(name, size))
        ]
        for name in sorted(wanted, key=lambda name: "/" not in name):
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self.store.download(name, path, num_bytes=names[name])
        return len(wanted)

    def _goes_on(self, name: str, size: int) -> bool:
        """Whether the store's lines are ours and more; only whole lines of files that are only appended to count."""
        path = self.directory / name
        if not name.endswith(".jsonl") or path.name in CUT_BACK:
            return False
        copy = path.with_name(f".store-{path.name}")
        try:
            self.store.download(name, copy, num_bytes=size)
            ours, theirs = (file.read_bytes() for file in (path, copy))
        finally:
            copy.unlink(missing_ok=True)
        ours, theirs = (content[: content.rfind(b"\n") + 1] for content in (ours, theirs))
        if not ours.startswith(theirs) and not theirs.startswith(ours):
            raise ValueError(
                f"{path} and {self.store}/{name} went different ways: move one away, or name another --upload"
            )
        return len(theirs) > len(ours)


@contextmanager
def mirrored_records(
    upload: str | None, directory: Path, *, wait_minutes: float, leave_out: LeaveOut, say: Callable[[str], None] = print
) -> Iterator[None]:
    """Copy the records of `directory` to --upload while the block runs; first bring what the folder lacks.

    At the end the uploads are awaited for `wait_minutes`; Failed says if they are not done, unless another exception
    passes, then that is printed, and so it is before Interrupted where a signal ends the wait. ValueError if another
    job uses the store, OSError if it does not answer.
    """
    if upload is None:
        yield
        return
    records = RecordCopies(Store(upload), directory, leave_out)
    lock, uploader = StoreLock(records.store, say), Uploader(say)
    directory.mkdir(parents=True, exist_ok=True)
    owner = Ownership(directory)
    owner.take()
    try:
        lock.take()
        if number := records.restore(records.store.sizes()):
            say(f"{number} files are downloaded from {records.store}")
    except BaseException:
        lock.release()
        raise
    finally:
        owner.release()

    def passed() -> None:
        lock.check()
        records.upload()

    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(PASS_SECONDS):
            uploader.submit("results", passed, replacing="results")

    threading.Thread(target=repeat, name="results", daemon=True).start()

    def finish() -> str | None:
        ended.set()
        remedy = f"they are in {directory}: run the same command again on this machine to upload them"
        try:
            with stopping_at_once():
                uploader.submit("results", passed, replacing="results")
                unfinished = uploader.close(60 * wait_minutes)
        except Interrupted as interruption:
            missing = f"the results are not all uploaded to {records.store} before {interruption}"
            print(f"warning: {missing}; {remedy}", file=sys.stderr, flush=True)
            raise
        finally:
            lock.release()
        missing = f"the results are not all uploaded to {records.store} within {wait_minutes:g} minutes"
        return f"{missing}; {remedy}" if unfinished else None

    try:
        yield
    except BaseException:
        with suppress(Interrupted):  # said; what passes is what came first
            if problem := finish():
                print(f"warning: {problem}", file=sys.stderr, flush=True)
        raise
    if problem := finish():
        raise Failed(problem)
