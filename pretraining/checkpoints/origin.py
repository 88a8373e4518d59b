"""The identity of the run that a directory or a checkpoint belongs to: run.json, and a copy in each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretraining.checkpoints.checkpoint import STATE_FILE, read_state
from pretraining.checkpoints.run_file import REMEDY, RUN_NAME, read_run
from pretraining.checkpoints.series import SERIES_NAME, run_named_in
from pretraining.plan.identity import condensed, differences, digest_of_run


def check_same_run(directory: Path, mine: Mapping[str, Any]) -> None:
    """Refuse a directory that holds another run, naming what differs; changes nothing.

    If its run.json is gone, the newest checkpoint says which run it belongs to.
    """
    path = directory / RUN_NAME
    if path.exists():
        theirs = read_run(path).identity
        if theirs is None:
            raise ValueError(f"{path}: the content lacks identity: {REMEDY}")
        if listed := differences(theirs, mine):
            raise ValueError(f"{directory} holds another run ({listed}): use another --output_dir, or the same options")
    elif checkpoints := sorted(directory.glob("checkpoints/step-*")):
        has_state = (checkpoints[-1] / STATE_FILE).is_file()
        if not has_state or check_same_origin(checkpoints[-1], read_state(checkpoints[-1]), mine):
            raise ValueError(
                f"{directory} has checkpoints but no {RUN_NAME}, and {checkpoints[-1].name} does not say which run "
                "it belongs to: use another --output_dir"
            )


def run_digest(directory: Path) -> str | None:
    """The digest of the identity of the run whose series is in a folder: by its run.json or, of a series that was
    fetched from the hub, by its series.json. None where neither says it; ValueError for a file that is damaged."""
    if (directory / RUN_NAME).is_file():
        identity = read_run(directory / RUN_NAME).identity
        return digest_of_run(identity) if identity else None
    return run_named_in(directory / SERIES_NAME) if (directory / SERIES_NAME).is_file() else None


def check_same_origin(checkpoint: Path, state: Mapping[str, Any], mine: Mapping[str, Any]) -> str | None:
    """Refuse a checkpoint of another run; returns a warning when its run is unknown.

    Checkpoints without an identity have that of the run.json above their folder.
    """
    theirs, beside = state.get("identity"), checkpoint.resolve().parent.parent / RUN_NAME
    if theirs is None and beside.is_file():
        recorded = read_run(beside).identity
        theirs = condensed(recorded) if recorded else None
    if theirs is None:
        return (
            f"{checkpoint} does not say which run it belongs to: check that it was trained with these options "
            "and shards"
        )
    if listed := differences(theirs, condensed(mine)):
        raise ValueError(
            f"{checkpoint} belongs to another run ({listed}): resume with that run's options, or start anew from an "
            "export of it with --model_name_or_path"
        )
    return None
