"""The README.md of an exported checkpoint: data, budget, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.storage.manifest import Manifest

SHOWN_SCORES = "validation_"


def pretraining_card(
    entry: Mapping[str, Any], manifest: Manifest, options: Mapping[str, Any], architecture: str
) -> str:
    """Markdown of one entry of `series.json`, with the front matter that hubs read.

    `options` gives model, objective, max_seq_length and masking rate of the run.
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
    ]
    scores = [
        (name.replace("_", " "), f"{value:.4f}")
        for name, value in entry.items()
        if name.startswith(SHOWN_SCORES) and isinstance(value, float)
    ]
    reader = "AutoModelForPreTraining" if architecture == "BertForPreTraining" else "AutoModelForMaskedLM"
    return "\n".join(
        [
            front_matter("fill-mask"),
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


def front_matter(pipeline: str, *, tags: Sequence[str] = ()) -> str:
    """The YAML head of a model card."""
    lines = ["---", "library_name: transformers", f"pipeline_tag: {pipeline}"]
    return "\n".join([*lines, *(["tags:", *(f"- {tag}" for tag in tags)] if tags else []), "---", ""])


def table(rows: Sequence[tuple[str, str]]) -> str:
    """A Markdown table of names and values."""
    cells = [(name, value.replace("|", "\\|")) for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in cells), ""])


def named(source: str) -> str:
    """The name of a path or hub model in a card: of a path, the last two parts only."""
    path = Path(source)
    return "/".join(path.parts[-2:]) if path.exists() or path.is_absolute() else source
