"""What makes two runs the same one, and whether an output directory holds another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretraining.files import read_json

if TYPE_CHECKING:
    from pretraining.plan import Plan

RUN_NAME = "run.json"


def identity_of(plan: Plan) -> dict[str, Any]:
    """The options that decide what is computed, the shards' hashes and the tokenizer's, as JSON gives them back."""
    data = {name: [shard.sha256 for shard in split.shards] for name, split in plan.manifest.splits.items()}
    tokenizer = plan.manifest.tokenizer.fingerprint
    return dict(json.loads(json.dumps({**plan.options.identity(), "shards": data, "tokenizer": tokenizer})))


def check_same_run(directory: Path, mine: Mapping[str, Any]) -> None:
    """Refuse a directory that holds another run, naming what differs; changes nothing."""
    path = directory / RUN_NAME
    if path.exists():
        theirs = read_json(path)["identity"]
        differing = sorted(key for key in mine if mine[key] != theirs.get(key))
        if differing:
            listed = "; ".join(
                f"{key}: {shortened(theirs.get(key))} there, {shortened(mine[key])} here" for key in differing
            )
            raise ValueError(f"{directory} holds another run ({listed}): use another --output_dir, or the same options")
    elif any(directory.glob("checkpoints/step-*")):
        raise ValueError(f"{directory} holds checkpoints but no {RUN_NAME}: use another --output_dir")


def shortened(value: Any) -> str:
    """A value for a message: the sha256 of 30,000 shards would fill a megabyte."""
    text = f"{value}"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
