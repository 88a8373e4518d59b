"""What makes two runs the same one, and whether an output directory holds another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretraining.plan.planned_optimizer import optimizer_kind
from runtime.files.whole_files import read_json

if TYPE_CHECKING:
    from pretraining.plan.plan import Plan

RUN_NAME = "run.json"


def identity_of(plan: Plan) -> dict[str, Any]:
    """The options that decide what is computed, what their "auto" means here, and the hashes of the data."""
    data = {name: [shard.sha256 for shard in split.shards] for name, split in plan.manifest.splits.items()}
    tokenizer = plan.manifest.tokenizer.fingerprint
    meant = {"optimizer": optimizer_kind(plan), "bf16": plan.bf16}
    found = {**plan.options.identity(), **meant, "shards": data, "tokenizer": tokenizer}
    return dict(json.loads(json.dumps(found)))


def check_same_run(directory: Path, mine: Mapping[str, Any]) -> None:
    """Refuse a directory that holds another run, naming what differs; changes nothing.

    Where its run.json is gone, the newest checkpoint says of which run it is.
    """
    path = directory / RUN_NAME
    if path.exists():
        if listed := differences(read_json(path)["identity"], mine):
            raise ValueError(f"{directory} holds another run ({listed}): use another --output_dir, or the same options")
    elif found := sorted(directory.glob("checkpoints/step-*")):
        state = found[-1] / "state.json"
        if not state.is_file() or check_same_origin(found[-1], read_json(state), mine):
            raise ValueError(
                f"{directory} has checkpoints but no {RUN_NAME}, and {found[-1].name} does not say of which run it is: "
                "use another --output_dir"
            )


def condensed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The same with one sha256 in place of every shard's: small enough for each checkpoint."""
    digest = hashlib.sha256(json.dumps(identity["shards"], sort_keys=True).encode()).hexdigest()
    return {**identity, "shards": digest}


def check_same_origin(checkpoint: Path, state: Mapping[str, Any], mine: Mapping[str, Any]) -> str | None:
    """Refuse a checkpoint of another run; a warning where nothing says of which run it is.

    Checkpoints without an identity have that of the run.json above their folder.
    """
    theirs, beside = state.get("identity"), checkpoint.resolve().parent.parent / RUN_NAME
    if theirs is None and beside.is_file():
        theirs = condensed(read_json(beside)["identity"])
    if theirs is None:
        return f"{checkpoint} does not say of which run it is: make sure that its options and shards were these"
    if listed := differences(theirs, condensed(mine)):
        raise ValueError(
            f"{checkpoint} is of another run ({listed}): resume with that run's options, or start anew from an export "
            "of it with --model_name_or_path"
        )
    return None


def differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """What differs, in words; empty where nothing does.

    Runs once wrote down "auto" for their optimizer, and nothing of their precision: unknown.
    """
    unknown = {"optimizer": "auto", "bf16": None}
    known = [key for key in mine if key not in unknown or theirs.get(key) != unknown[key]]
    differing = sorted(key for key in known if mine[key] != theirs.get(key))
    return "; ".join(f"{key}: {shortened(theirs.get(key))} there, {shortened(mine[key])} here" for key in differing)


def shortened(value: Any) -> str:
    """A value for a message: the sha256 of 30,000 shards would fill a megabyte."""
    text = f"{value}"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
