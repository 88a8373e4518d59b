"""The checkpoint that a run resumes from: its own newest, one that the user names, or none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretraining.checkpoints.checkpoint import (
    MANIFEST_NAME,
    NAME_PATTERN,
    Checkpoint,
    committed,
    defect,
    defect_of_trunk,
    fork_of,
    newest_checkpoint,
    open_checkpoint,
    read_state,
)
from pretraining.checkpoints.origin import check_same_origin
from pretraining.checkpoints.position import position_from
from pretraining.checkpoints.series import SERIES_NAME, add_to_series, read_series
from pretraining.plan.segments import Segment
from runtime.files.whole_files import remove_whole, sha256_of, sync_file, write_text
from runtime.processes.collectives import broadcast_json, fail_together
from runtime.processes.ranks import Ranks

TAKEN_NAME = "resumed_from"  # next to the checkpoints: sha256 of the manifest of the checkpoint last named

Say = Callable[[str], None]


def find_checkpoint(
    wanted: str, directory: Path, ranks: Ranks, *, identity: Mapping[str, Any], num_segments: int, say: Say = print
) -> Checkpoint | None:
    """The checkpoint in a run's `directory` to resume from by --resume_from_checkpoint; None: start anew; collective.

    One from elsewhere is first copied into the directory, with the trunk's checkpoint that its branch returns to.
    If the same command names it again, the run does not go back to it but resumes from its own newest checkpoint.
    """
    checkpoints = directory / "checkpoints"
    if wanted == "auto":
        newest = newest_checkpoint(checkpoints, ranks, say=say)
        if newest is None:
            check_nothing_is_lost(directory)
        return newest
    if wanted == "false":
        check_none_there(checkpoints)
        return None
    name: str | None = None
    error: BaseException | None = None
    if ranks.is_main and not was_taken(Path(wanted), checkpoints):
        try:
            check_named(Path(wanted), identity, num_segments)
            if warning := origin_warning(Path(wanted), identity):
                say(f"warning: {warning}")
            name = adopt(Path(wanted), checkpoints, num_segments, say=say)
        except (OSError, ValueError) as caught:
            error = caught
    fail_together(error, f"taking {wanted}")
    name = broadcast_json(name)
    if name is not None:
        return open_checkpoint(checkpoints / name, ranks)
    if ranks.is_main:
        say(f"{wanted} has already been resumed from; to go back to it, delete {checkpoints / TAKEN_NAME}")
    return newest_checkpoint(checkpoints, ranks, say=say)


def was_taken(path: Path, checkpoints: Path) -> bool:
    """Whether the run already resumed from this checkpoint and has later checkpoints."""
    record, manifest = checkpoints / TAKEN_NAME, path / MANIFEST_NAME
    if not (record.is_file() and manifest.is_file() and committed(checkpoints)):
        return False
    return record.read_bytes().strip() == sha256_of(manifest).encode()


def settle(checkpoints: Path, name: str, wanted: str, ended: Sequence[Segment], *, say: Say = print) -> None:
    """Set aside the checkpoints after `name`, where a run resumes, and remember the checkpoint that the user named.

    `ended` are the segments before it: their exports in the series are copied from the named checkpoint's run.
    """
    set_later_aside(checkpoints, name, say=say)
    if wanted not in ("auto", "false") and (manifest := Path(wanted) / MANIFEST_NAME).is_file():
        take_series(Path(wanted).resolve().parents[1], checkpoints.parent, ended, say=say)
        write_text(checkpoints / TAKEN_NAME, sha256_of(manifest) + "\n")


def take_series(source: Path, directory: Path, ended: Sequence[Segment], *, say: Say = print) -> None:
    """Copy the series checkpoints of the ended segments from the run in `source`, so that no budget is lost."""
    if source == directory.resolve() or not (source / SERIES_NAME).is_file():
        return
    wanted = {("raw", 0.0), *((segment.kind, segment.budget) for segment in ended)}
    for entry in read_series(source):
        place = Path(entry["path"]).relative_to(source)
        if (entry["kind"], entry.get("budget")) not in wanted or (directory / place).exists():
            continue
        copy_whole(source / place, directory / place)
        add_to_series(directory / SERIES_NAME, {**entry, "path": str(place)})
        say(f"{source / place} is copied to {directory / place}")


def check_resumption(wanted: str, directory: Path, *, identity: Mapping[str, Any], num_segments: int) -> None:
    """ValueError if a run in `directory` could not resume by its --resume_from_checkpoint; changes nothing."""
    if wanted == "auto":
        if not committed(directory / "checkpoints"):
            check_nothing_is_lost(directory)
    elif wanted == "false":
        check_none_there(directory / "checkpoints")
    else:
        check_named(Path(wanted), identity, num_segments)


def check_named(path: Path, identity: Mapping[str, Any], num_segments: int) -> None:
    """Verify a checkpoint and, if it is inside a branch, the fork next to it; both must belong to this run."""
    if reason := defect(path):
        raise ValueError(f"{path} cannot be resumed from: {reason}")
    fork, own = fork_of(path), read_state(path)
    if fork and (reason := defect_of_trunk(fork, own)):
        raise ValueError(
            f"{path} is inside a branch that returns to {fork}, which cannot be used ({reason}): put that checkpoint "
            "back next to it, or resume from an earlier one"
        )
    for each in (path, fork) if fork else (path,):
        state = read_state(each)
        position_from(state, num_segments=num_segments)
        check_same_origin(each, state, identity)


def origin_warning(path: Path, identity: Mapping[str, Any]) -> str | None:
    """The warning about a checkpoint that does not say which run it belongs to."""
    return check_same_origin(path, read_state(path), identity)


def adopt(path: Path, checkpoints: Path, num_segments: int, *, say: Say = print) -> str:
    """Bring a verified checkpoint and its fork into `checkpoints` under its own name, which is returned.

    A checkpoint elsewhere, or there under another name, is copied; a different one of that name is set aside.
    """
    path, name = path.resolve(), path.resolve().name
    if not NAME_PATTERN.fullmatch(name):  # it was renamed
        name = position_from(read_state(path), num_segments=num_segments).checkpoint_name
    targets, fork = {path: checkpoints / name}, fork_of(path)
    if fork:
        targets = {fork: checkpoints / fork.name, **targets}
    checkpoints.mkdir(parents=True, exist_ok=True)
    for source, target in targets.items():
        if copy_checkpoint(source, target):
            say(f"{source} is copied to {target}")
    return name


def copy_checkpoint(source: Path, target: Path) -> bool:
    """Copy a checkpoint; False where the same one is there already."""
    if source == target.resolve() or (target.is_dir() and _is_the_same(source, target)):
        return False
    copy_whole(source, target)
    return True


def copy_whole(source: Path, target: Path) -> None:
    """Copy a flat directory, synced and renamed when it is complete; anything of that name is set aside."""
    temporary = target.with_name(f".tmp-{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_whole(temporary)
    shutil.copytree(source, temporary)
    for file in (*temporary.iterdir(), temporary):
        sync_file(file)
    if os.path.lexists(target):
        set_aside(target)
    temporary.rename(target)
    sync_file(target.parent)


def _is_the_same(source: Path, target: Path) -> bool:
    """Whether a directory is a complete copy: its manifest names the sha256 of all that is in it."""
    return defect(target) is None and (source / MANIFEST_NAME).read_bytes() == (target / MANIFEST_NAME).read_bytes()


def set_later_aside(directory: Path, name: str, *, say: Say = print) -> None:
    """Rename the checkpoints after `name`, where a run resumes: they are from another history, or invalid."""
    for path in committed(directory):
        if path.name > name:
            say(f"checkpoint {path.name} is later than the one resumed from, and is now named {set_aside(path).name}")


def set_aside(path: Path) -> Path:
    """Rename a checkpoint so that no run picks it up; returns its new path. Nothing is deleted."""
    number = 1
    while (aside := path.with_name(f"aside-{path.name}" + f"-{number}" * (number > 1))).exists():
        number += 1
    path.rename(aside)
    return aside


def check_none_there(checkpoints: Path) -> None:
    """ValueError if a run is to start from the beginning but its directory holds checkpoints."""
    if committed(checkpoints):
        raise ValueError(
            f"--resume_from_checkpoint false, but {checkpoints} holds checkpoints: use another --output_dir"
        )


def check_nothing_is_lost(directory: Path) -> None:
    """ValueError when the series shows that checkpoints are missing: the user must request a new start."""
    series = directory / SERIES_NAME
    if series.exists() and any(entry["tokens_seen"] for entry in read_series(series)):
        raise ValueError(
            f"{series} lists trained models but {directory / 'checkpoints'} holds no checkpoint: restore it, or start "
            "from the beginning with --resume_from_checkpoint false"
        )
