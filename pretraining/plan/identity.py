"""The identity of a run, and the differences between two identities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretraining.plan.plan import Plan


def identity_of(plan: Plan) -> dict[str, Any]:
    """The options that decide what is computed, what their "auto" means here, and the hashes of the data."""
    data = {name: [shard.sha256 for shard in split.shards] for name, split in plan.manifest.splits.items()}
    tokenizer = plan.manifest.tokenizer.fingerprint
    meant = {"optimizer": plan.optimizer_kind, "bf16": plan.bf16}
    identity = {**plan.options.identity(), **meant, "shards": data, "tokenizer": tokenizer}
    return dict(json.loads(json.dumps(identity)))


def condensed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The same with one sha256 in place of every shard's: small enough for each checkpoint."""
    digest = hashlib.sha256(json.dumps(identity["shards"], sort_keys=True).encode()).hexdigest()
    return {**identity, "shards": digest}


# Options that were added later, with the value that runs before them had.
LATER_OPTIONS = {"fp16": False, "muon_learning_rate": 0.02}


def differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """The differences in words; empty if there are none.

    Older runs recorded "auto" as their optimizer and did not record their precision: both are unknown.
    """
    unknown = {"optimizer": "auto", "bf16": None}
    known = [key for key in mine if key not in unknown or theirs.get(key) != unknown[key]]
    theirs = {**LATER_OPTIONS, **theirs}
    differing = sorted(key for key in known if mine[key] != theirs.get(key))
    return "; ".join(f"{key}: {shortened(theirs.get(key))} there, {shortened(mine[key])} here" for key in differing)


def shortened(value: Any) -> str:
    """A value for a message: the sha256 of 30,000 shards would fill a megabyte."""
    text = f"{value}"
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
