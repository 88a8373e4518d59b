"""The README.md of an exported checkpoint: data, budget, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from runtime.hub import is_missing_path
from runtime.stores.address import is_store_address
from shards.storage.manifest import Manifest

SHOWN_SCORES = "validation_"
PROJECT, TAG = "pretraining-gap", "pretraining-gap"
PACKAGES = (PROJECT, "torch", "transformers")


def pretraining_card(
    entry: Mapping[str, Any],
    manifest: Manifest,
    options: Mapping[str, Any],
    architecture: str,
    *,
    source: str | None = None,
) -> str:
    """Markdown of one entry of `series.json`, with the front matter that hubs read.

    `options` gives model, objective, max_seq_length and masking rate of the run; `source` is the checkpoint that it
    continues.
    """
    kind = "after a learning-rate decay to zero" if entry["kind"] == "annealed" else "in the middle of its schedule"
    if not entry["tokens_seen"]:
        kind = "before any training"
    if entry.get("started_from"):
        kind = f"{kind}, further pretraining of {entry['started_from']}"
    train = manifest.split("train")
    data = [
        ("documents", f"{train.documents:,}"),
        ("tokens of the corpus", f"{train.tokens:,}"),
        ("tokenizer", f"{manifest.tokenizer.vocab_size:,} tokens"),
    ]
    budget = [
        ("tokens seen", f"{entry['tokens_seen']:,}"),
        ("different tokens", f"{entry['unique_tokens']:,}"),
        ("FLOPs", f"{entry['flops']:.3g}"),
        ("seconds", f"{entry['seconds']:,.0f} on {entry['devices']} device{'s' * (entry['devices'] != 1)}"),
        ("seed", str(entry["pretraining_seed"])),
        *((name.replace("_", " "), str(value)) for name, value in options.items() if value is not None),
        ("versions", versions_text()),
    ]
    scores = [
        (name.replace("_", " "), f"{value:.4f}")
        for name, value in entry.items()
        if name.startswith(SHOWN_SCORES) and isinstance(value, float)
    ]
    reader = "AutoModelForPreTraining" if architecture == "BertForPreTraining" else "AutoModelForMaskedLM"
    return "\n".join(
        [
            front_matter("fill-mask", base_model=hub_name(source)),
            f"# {architecture}, {entry['tokens_seen']:,} tokens, {kind}\n",
            "## Data\n",
            table(data),
            "## Budget\n",
            table(budget),
            "## Scores on held-out text\n",
            table(scores),
            "## Use\n",
            f'```python\nfrom transformers import {reader}, AutoTokenizer\n\nmodel = {reader}.from_pretrained("this '
            'folder")\ntokenizer = AutoTokenizer.from_pretrained("this folder")\n```\n',
        ]
    )


def front_matter(
    pipeline: str, *, tags: Sequence[str] = (), base_model: str | None = None, scores: Sequence[EvalResult] = ()
) -> str:
    """The YAML head of a model card, as the hub reads it; `scores` are its model-index."""
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline,
        tags=[*tags, TAG],
        base_model=base_model,
        model_name=tags[0] if scores else None,
        eval_results=list(scores) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def hub_name(source: str | None) -> str | None:
    """A starting checkpoint's name on the hub, without its revision; None for a folder and for none."""
    if source is None or Path(source).expanduser().exists() or is_store_address(source):
        return None
    name = source.partition("@")[0]
    return None if is_missing_path(name) else name


def versions_text() -> str:
    """The versions of this project and of the libraries under it."""
    return ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from its sources
        return "(not installed)"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """A Markdown table of names and values."""
    cells = [(name, value.replace("|", "\\|")) for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in cells), ""])


def named(source: str) -> str:
    """The name of a path or hub model in a card: of a path, the last two parts only."""
    path = Path(source)
    return "/".join(path.parts[-2:]) if path.exists() or path.is_absolute() else source
