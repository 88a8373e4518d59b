"""The identity of a run, and the differences between two identities."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretraining.plan.choices import ARCHITECTURE
from pretraining.plan.options import PretrainingOptions
from runtime.files.whole_files import sha256_of
from runtime.model_places import is_elsewhere, model_place
from runtime.options.declaration import later_defaults

if TYPE_CHECKING:
    from pretraining.plan.plan import Plan

# Of a model that was fetched from elsewhere: what lies there may change, and a name that stays says nothing.
STARTED_DIGEST, CONFIG_DIGEST = "started_digest", "config_digest"
HEAD_WARMUP = "head_warmup"  # in the budget's unit; a run without one does not record it


def identity_of(plan: Plan) -> dict[str, Any]:
    """The options that decide what is computed, what their "auto" means here, and the hashes of the data and of a model
    that was fetched."""
    data = {name: [shard.sha256 for shard in split.shards] for name, split in plan.manifest.splits.items()}
    tokenizer = plan.manifest.tokenizer.fingerprint
    meant = {"optimizer": plan.optimizer_kind, "bf16": plan.bf16, "dropout": plan.dropout}
    if plan.head_warmup:
        meant[HEAD_WARMUP] = plan.head_warmup
    meant |= fetched_digests(plan.options)
    identity = {**plan.options.identity(), **meant, "shards": data, "tokenizer": tokenizer}
    return dict(json.loads(json.dumps(identity)))


def fetched_digests(options: PretrainingOptions) -> dict[str, str]:
    """The digests of what the options name at an address or in a branch of the hub; empty where they name none."""
    digests = {}
    if (name := options.model_name_or_path) and is_elsewhere(name):
        digests[STARTED_DIGEST] = _digest_of(model_place(name))
    if (name := options.from_config) and is_elsewhere(name):
        digests[CONFIG_DIGEST] = sha256_of(Path(model_place(name)) / "config.json")
    return digests


@functools.cache
def _digest_of(folder: str) -> str:
    """Folders of the cache are named by their content."""
    from pretraining.model.source.weights import checkpoint_digest  # loads torch

    return checkpoint_digest(Path(folder))


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
    later = _later_values()
    theirs, mine = ({**later, **identity} for identity in (theirs, mine))
    known = [key for key in mine if key not in unknown or theirs.get(key) != unknown[key]]
    differing = sorted(key for key in known if mine[key] != theirs.get(key))
    return "; ".join(f"{key}: {shortened(theirs.get(key))} there, {shortened(mine[key])} here" for key in differing)


def digest_of_run(identity: Mapping[str, Any]) -> str:
    """A sha256 by which a run is recognised where its options are not to be shown; options with the default that later
    versions gave them do not count."""
    later = _later_values()
    kept = {key: value for key, value in condensed(identity).items() if key not in later or value != later[key]}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _later_values() -> dict[str, Any]:
    """What runs of versions that did not record these values had."""
    later = {**later_defaults(PretrainingOptions), "dropout": ARCHITECTURE, HEAD_WARMUP: 0.0}
    return later | dict.fromkeys((STARTED_DIGEST, CONFIG_DIGEST))


def shortened(value: Any) -> str:
    """A value for a message: the sha256 of 30,000 shards would fill a megabyte."""
    text = f"{value}"
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
