"""The copy of a run in an object store: checkpoints, exports and records, uploaded in the background by the main rank.

The folder of the run stays what the run works with; the store follows it. A checkpoint or an export counts in the store
once its manifest is there, which is written last; `series.json` lists an export after that. At the start, what the
store has and the folder lacks is downloaded and verified.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from pretraining.checkpoints.checkpoint import MANIFEST_NAME, NAME_PATTERN, STATE_FILE, committed, defect, fork_of
from pretraining.checkpoints.origin import RUN_NAME, read_run
from pretraining.checkpoints.resumption import TAKEN_NAME, set_aside
from pretraining.checkpoints.series import SERIES_NAME, add_to_series, read_series
from pretraining.plan.identity import differences
from pretraining.plan.options import PretrainingOptions
from runtime.files.lock import Ownership
from runtime.files.whole_files import parse_bounded, write_json
from runtime.processes.collectives import fail_together
from runtime.processes.failures import Failed
from runtime.processes.interruption import MARKER_NAME, Interrupted, disarm_watchdog, stopping_at_once
from runtime.processes.ranks import Ranks
from runtime.stores.folders import LARGEST_MANIFEST_BYTES, fetch_folder, folders_in, put_folder, remove_folder
from runtime.stores.records import RecordCopies
from runtime.stores.store import Store
from runtime.stores.store_lock import StoreLock
from runtime.stores.uploader import Uploader

CHECKPOINTS, SERIES_FOLDER = "checkpoints", "series"
ASIDE_NAME = "MANIFEST.json.aside"  # of a checkpoint in the store that is later than the one resumed from
LATEST_NAME = f"{CHECKPOINTS}/latest"  # for people
CHECKPOINT = "checkpoint "  # how uploads of checkpoints are named

Say = Callable[[str], None]


def _is_no_record(name: str) -> bool:
    """Checkpoints and exports, which are uploaded by themselves, and other weights."""
    own = name.split("/")[0] in (CHECKPOINTS, SERIES_FOLDER, SERIES_NAME) and name != f"{CHECKPOINTS}/{TAKEN_NAME}"
    return own or name.endswith(".safetensors")


@contextmanager
def mirrored(options: PretrainingOptions, ranks: Ranks) -> Iterator[RunMirror | None]:
    """The copy of the run that --upload names, brought into the folder at the start; None on ranks but the main one.

    At the end, however it comes, all uploads are awaited for --upload_wait_minutes. Failed says what is then not
    uploaded, unless another exception passes; then that is printed, and so it is before Interrupted where a signal ends
    the wait. Interrupted, too, where a signal comes while the run is downloaded: the next start downloads what is
    missing. Collective.
    """
    mirror: RunMirror | None = None
    error: BaseException | None = None
    if options.upload is not None and not options.dry_run:
        try:
            if ranks.is_main:
                store = Store(options.upload)
                mirror = RunMirror(store, Path(options.output_dir), keep=options.save_total_limit)
                with stopping_at_once():
                    mirror.restore()
        except (OSError, ValueError) as caught:
            error = caught
        except Interrupted as interruption:  # the launcher has signalled the other ranks, too
            if mirror is not None:
                mirror.close(0)
            leave_marker(Path(options.output_dir), str(interruption))
            raise
        try:
            fail_together(error, f"reading {options.upload}")
        except BaseException:
            if mirror is not None:
                mirror.close(0)
            raise
    try:
        yield mirror
    except BaseException:
        if mirror is not None:
            with suppress(Interrupted):  # said; what passes is what came first
                if problem := mirror.finish(options.upload_wait_minutes):
                    print(f"warning: {problem}", file=sys.stderr, flush=True)
        raise
    disarm_watchdog()  # the other ranks wait below
    failure = None
    if mirror is not None and (problem := mirror.finish(options.upload_wait_minutes)):
        failure = Failed(problem)
    fail_together(failure, "uploading the run")


def leave_marker(directory: Path, reason: str) -> None:
    """INTERRUPTED.json, by which a job script knows that the same command goes on."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / MARKER_NAME, {"reason": reason, "progress": {}})


def upload_rest(mirror: RunMirror | None) -> None:
    """Upload what the store lacks of a run that has ended and is not started again; collective."""
    error: BaseException | None = None
    if mirror is not None:
        try:
            mirror.begin(mirror.newest())
        except (OSError, ValueError) as caught:
            error = caught
    fail_together(error, "uploading the rest of the run")


class RunMirror:
    """The copy of the run in `directory`; only the main rank has one.

    `keep` is the run's --save_total_limit, which holds in the store too.
    """

    def __init__(self, store: Store, directory: Path, *, keep: int, say: Say = print) -> None:
        self.store, self.directory, self.keep, self.say = store, directory, keep, say
        self.checkpoints = directory / CHECKPOINTS
        self.lock = StoreLock(store, lambda text: self.say(text))
        self.uploader = Uploader(lambda text: self.say(text))
        self._begun = False
        self._on_trunk: dict[str, bool] = {}  # by the name of a checkpoint in the store
        self._held: bytes | None = None  # the list of exports, until the first checkpoint is in the store
        self.records = RecordCopies(store, directory, _is_no_record)

    # At the start.

    def restore(self) -> None:
        """Bring what the store has and the folder lacks, if the store is further on; takes the lock of the store.

        ValueError if the folder and the store hold different runs, if another job uses one of them, or if no
        checkpoint of the store is valid; OSError if the store does not answer.
        """
        ownership = Ownership(self.directory)
        ownership.take()
        try:
            self.lock.take()
            names = self.store.sizes()
            self._check_same_run(names)
            newer = self._restore_checkpoint(names)
            self._restore_series(names)
            self.records.restore(names, replaced=frozenset(names) if newer else frozenset())
        finally:
            ownership.release()

    def _check_same_run(self, names: dict[str, int]) -> None:
        local = self.directory / RUN_NAME
        if RUN_NAME not in names or not local.is_file():
            return
        copy = self.directory / f".store-{RUN_NAME}"
        try:
            self.store.download(RUN_NAME, copy, num_bytes=names[RUN_NAME])
            mine, theirs = read_run(local).identity, read_run(copy).identity
        finally:
            copy.unlink(missing_ok=True)
        if mine and theirs and (listed := differences(theirs, mine)):
            raise ValueError(
                f"{self.store} holds another run than {self.directory} ({listed}): name another --upload, or an empty "
                "--output_dir to go on with the run of the store"
            )

    def _restore_checkpoint(self, names: dict[str, int]) -> bool:
        """Bring the newest valid checkpoint and its fork, unless the folder has it or a later one."""
        stored = [name for name in folders_in(names, CHECKPOINTS) if NAME_PATTERN.fullmatch(name)][::-1]
        newest = (self.newest() or "") if stored else ""
        reasons = []
        for name in stored:
            if name <= newest:
                return False
            try:
                self._fetch_checkpoint(name)
                fork = fork_of(self.checkpoints / name)
                if fork is not None and (not fork.is_dir() or defect(fork)):
                    self._fetch_checkpoint(fork.name)
            except (FileNotFoundError, ValueError) as error:
                self.say(f"checkpoint {name} of {self.store} is skipped: {error}")
                reasons.append(str(error))
                continue
            self.say(f"checkpoint {name} is downloaded from {self.store}")
            return True
        if reasons and not newest:
            raise ValueError(
                f"no checkpoint in {self.store} is valid (the newest: {reasons[0]}): repair or remove them, or name "
                "an empty --upload"
            )
        return False

    def newest(self) -> str | None:
        """The newest valid checkpoint of the folder."""
        return next((path.name for path in committed(self.checkpoints) if not defect(path)), None)

    def _fetch_checkpoint(self, name: str) -> None:
        target = self.checkpoints / name
        if target.is_dir():
            set_aside(target)  # damaged
        fetch_folder(self.store, f"{CHECKPOINTS}/{name}", target, keep_manifest=True)
        if reason := defect(target):
            set_aside(target)
            raise ValueError(reason)

    def _restore_series(self, names: dict[str, int]) -> None:
        if SERIES_NAME not in names:
            return
        copy, series = self.directory / f".store-{SERIES_NAME}", self.directory / SERIES_NAME
        try:
            self.store.download(SERIES_NAME, copy, num_bytes=names[SERIES_NAME])
            entries = read_series(copy)
        finally:
            copy.unlink(missing_ok=True)
        root = self.directory.resolve()
        known = {entry["path"] for entry in read_series(series)} if series.is_file() else set()
        for entry in entries:
            place = Path(entry["path"]).relative_to(root)
            if entry["path"] in known:
                continue
            try:
                if not (self.directory / place).is_dir():
                    fetch_folder(self.store, place.as_posix(), self.directory / place, keep_manifest=False)
            except (FileNotFoundError, ValueError) as error:
                self.say(f"warning: {place} of {self.store} is left out of the series: {error}")
                continue
            add_to_series(series, {**entry, "path": place.as_posix()})

    # While the run goes on.

    def begin(self, resumed: str | None) -> None:
        """Upload what the folder has and the store lacks. Checkpoints of the store later than `resumed` are set aside:
        they are from another course, and no start picks them up."""
        self._begun = True
        if resumed is not None:
            for name in folders_in(self.store.sizes(CHECKPOINTS), CHECKPOINTS):
                if NAME_PATTERN.fullmatch(name) and name > resumed:
                    manifest = f"{CHECKPOINTS}/{name}/{MANIFEST_NAME}"
                    content = self.store.read(manifest, LARGEST_MANIFEST_BYTES) or b""
                    self.store.write(f"{CHECKPOINTS}/{name}/{ASIDE_NAME}", content)
                    self.store.remove([manifest])
                    self.say(f"checkpoint {name} of {self.store} is later than {resumed}, and is set aside there")
            self.committed(resumed)
        series = self.directory / SERIES_NAME
        if series.is_file():
            root = self.directory.resolve()
            for entry in read_series(series):
                place = Path(entry["path"]).relative_to(root).as_posix()
                self.uploader.submit(f"export {place}", partial(self._upload_export, place))
            self.uploader.submit(SERIES_NAME, partial(self._upload_list, series.read_bytes()))  # once all are there

    def committed(self, name: str) -> None:
        """Upload a checkpoint that has been committed; a waiting earlier one is dropped. Called from any thread."""
        self.uploader.submit(CHECKPOINT + name, partial(self._upload_checkpoint, name), replacing=CHECKPOINT)

    def exported(self, place: str) -> None:
        """Upload an export and then the list as it is now."""
        listed = (self.directory / SERIES_NAME).read_bytes()
        self.uploader.submit(f"export {place}", partial(self._upload_export, place, listed))

    def pinned(self) -> list[str]:
        """The checkpoints that must not be deleted yet: those being uploaded or waiting for it, and their forks."""
        names = [work.removeprefix(CHECKPOINT) for work in self.uploader.pending if work.startswith(CHECKPOINT)]
        forks = [fork_of(self.checkpoints / name) for name in names]
        return [*names, *(fork.name for fork in forks if fork is not None)]

    def close(self, seconds: float) -> list[str]:
        """Upload the records once more, wait for all uploads so long, and free the store; what is not uploaded."""
        if self._begun and not self.lock.lost:
            self.uploader.submit("records of the run", self.records.upload)
        try:
            return self.uploader.close(seconds)
        finally:
            self.lock.release()

    def finish(self, minutes: float) -> str | None:
        """Close; what is not uploaded and what to do about it, None if all is. Interrupted, with that printed, if a
        signal asks to stop meanwhile."""
        disarm_watchdog()
        self.say = print
        remedy = f"they are in {self.directory}: run the same command again on this machine to upload them"
        try:
            with stopping_at_once():
                unfinished = self.close(60 * minutes)
        except Interrupted as interruption:
            if names := ", ".join(self.uploader.close(0)):
                text = f"warning: not uploaded to {self.store} before {interruption}: {names}; {remedy}"
                print(text, file=sys.stderr, flush=True)
            raise
        names = ", ".join(unfinished)
        return f"not uploaded to {self.store} within {minutes:g} minutes: {names}; {remedy}" if names else None

    # The work, in the uploader's thread.

    def _upload_checkpoint(self, name: str) -> None:
        self.lock.check()
        self.records.upload()
        fork = fork_of(self.checkpoints / name)
        for each in (fork.name, name) if fork is not None else (name,):
            put_folder(self.store, self.checkpoints / each, f"{CHECKPOINTS}/{each}")
        self.store.write(LATEST_NAME, f"{name}\n".encode())
        self._retain(name, None if fork is None else fork.name)
        if self._held is not None:
            self._upload_list(self._held)

    def _retain(self, newest: str, fork: str | None) -> None:
        """Keep in the store what the folder keeps, `newest`, which is there, its fork, the last `keep` up to it that
        have no fork (the fork of another may be gone), and what is set aside."""
        names = self.store.sizes(CHECKPOINTS)
        stored = [name for name in folders_in(names, CHECKPOINTS) if NAME_PATTERN.fullmatch(name) and name <= newest]
        trunk = [name for name in stored if self._is_on_trunk(name)]
        kept = {newest, fork, *(path.name for path in committed(self.checkpoints)), *trunk[-max(1, self.keep) :]}
        parts = {name.split("/")[1] for name in names if name.count("/") == 2}
        aside = {part for part in parts if f"{CHECKPOINTS}/{part}/{ASIDE_NAME}" in names and part not in stored}
        for name in sorted(part for part in parts if NAME_PATTERN.fullmatch(part) and part < newest):
            if name not in kept | aside:
                remove_folder(self.store, f"{CHECKPOINTS}/{name}", names)

    def _is_on_trunk(self, name: str) -> bool:
        """Whether a checkpoint of the store has no fork; one that cannot be read counts as one that has."""
        if name not in self._on_trunk:
            if (self.checkpoints / name).is_dir():
                self._on_trunk[name] = fork_of(self.checkpoints / name) is None
            else:
                place = f"{CHECKPOINTS}/{name}/{STATE_FILE}"
                with suppress(ValueError):
                    state = parse_bounded(self.store.read(place, LARGEST_MANIFEST_BYTES) or b"null")
                    self._on_trunk[name] = isinstance(state, dict) and state.get("fork") is None
        return self._on_trunk.get(name, False)

    def _upload_export(self, place: str, listed: bytes | None = None) -> None:
        self.lock.check()
        put_folder(self.store, self.directory / place, place)
        if listed is not None:
            self._upload_list(listed)

    def _upload_list(self, listed: bytes) -> None:
        """Write the list once a checkpoint is there: an empty machine could not go on from a series without one."""
        self.lock.check()
        stored = folders_in(self.store.sizes(CHECKPOINTS), CHECKPOINTS)
        self._held = None if any(map(NAME_PATTERN.fullmatch, stored)) else listed
        if self._held is None:
            self.store.write(SERIES_NAME, listed)
