"""The identity of a run, and the differences between two identities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretraining.plan.choices import ARCHITECTURE
from pretraining.plan.options import PretrainingOptions
from runtime.options.declaration import later_defaults

if TYPE_CHECKING:
    from pretraining.plan.plan import Plan

HEAD_WARMUP = "head_warmup"  # in the budget's unit; a run without one does not record it


def identity_of(plan: Plan) -> dict[str, Any]:
    """The options that decide what is computed, what their "auto" means here, and the hashes of the data."""
    data = {name: [shard.sha256 for shard in split.shards] for name, split in plan.manifest.splits.items()}
    tokenizer = plan.manifest.tokenizer.fingerprint
    meant = {"optimizer": plan.optimizer_kind, "bf16": plan.bf16, "dropout": plan.dropout}
    if plan.head_warmup:
        meant[HEAD_WARMUP] = plan.head_warmup
    identity = {**plan.options.identity(), **meant, "shards": data, "tokenizer": tokenizer}
    return dict(json.loads(json.dumps(identity)))


def condensed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The same with one sha256 in place of every shard's: small enough for each checkpoint."""
    digest = hashlib.sha256(json.dumps(identity["shards"], sort_keys=True).encode()).hexdigest()
    return {**identity, "shards": digest}


def differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """The differences in words; empty if there are none.

    An option that was added later, and is missing, has its default; a run that recorded no dropout had the
    architecture's. Older runs recorded "auto" as their optimizer and did not record their precision: both are unknown.
    """
    unknown = {"optimizer": "auto", "bf16": None}
    later = {**later_defaults(PretrainingOptions), "dropout": ARCHITECTURE, HEAD_WARMUP: 0.0}
    theirs, mine = ({**later, **identity} for identity in (theirs, mine))
    known = [key for key in mine if key not in unknown or theirs.get(key) != unknown[key]]
    differing = sorted(key for key in known if mine[key] != theirs.get(key))
    return "; ".join(f"{key}: {shortened(theirs.get(key))} there, {shortened(mine[key])} here" for key in differing)


def shortened(value: Any) -> str:
    """A value for a message: the sha256 of 30,000 shards would fill a megabyte."""
    text = f"{value}"
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
