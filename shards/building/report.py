"""The output of a build: the progress bar, and the closing report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from runtime.plurals import counted
from shards.building.builder import Summary
from shards.building.duplicate_index import DOCUMENTS_PER_KEY
from shards.tokenization.unknown_text import unknown_warning

LEAST_SECONDS = 0.5  # over less, a rate is noise


def progress_reporter(bar: tqdm) -> Callable[[dict[str, int]], None]:
    """A callback that moves the bar by bytes read from disk and shows text per second and tokens."""
    is_first, started, first_text_bytes = True, 0.0, 0

    def report(counts: dict[str, int]) -> None:
        nonlocal is_first, started, first_text_bytes
        if is_first:
            is_first, started, first_text_bytes = False, time.monotonic(), counts["text_bytes"]
            bar.initial = counts["bytes_read"]
            bar.unpause()  # training the vocabulary, before this, is no reading: neither rate nor time left has it
        seconds = max(time.monotonic() - started, 1e-9)
        rate = (counts["text_bytes"] - first_text_bytes) / 1e6 / seconds
        bar.total = counts["bytes_total"] or None
        shown = f"{rate:.2f} MB text/s, " if seconds >= LEAST_SECONDS else ""
        bar.set_postfix_str(f"{shown}{counts['tokens'] / 1e6:.1f} M tokens", refresh=False)
        bar.update(max(counts["bytes_read"] - bar.n, 0))

    return report


def closing_report(summary: Summary, directory: Path) -> str:
    """The closing report: the content of the directory, and counts of dropped text."""
    manifest, data = summary.manifest, summary.manifest.data
    lines = [f"{directory}: already built" if summary.already_built else f"{directory}: built"]
    for name, split in manifest.splits.items():
        size = sum(shard.num_bytes for shard in split.shards)
        text = "" if split.text_bytes is None else f" of {split.text_bytes / 1e6:.1f} MB text"
        lines.append(
            f"  {name}: {counted(split.documents, 'document')}, {counted(split.tokens, 'token')}{text}, "
            f"{counted(len(split.shards), 'shard')}, {size / 1e6:.1f} MB"
        )
    read = sum(source["documents"] for source in data["sources"])
    lines.append(
        f"  read: {counted(read, 'document')} of {counted(len(data['sources']), 'source')}, "
        f"{summary.text_bytes / 1e6:.1f} MB text"
    )
    for name in ("dropped", "changed"):
        counts = ", ".join(f"{reason} {count:,}" for reason, count in data[name].items()) or "none"
        lines.append(f"  {name}: {counts}")
    if count := data.get("duplicate_search", {}).get("kept_with_full_key"):
        lines.append(
            f"  duplicate search: {count:,} of the documents kept share a band with {DOCUMENTS_PER_KEY} or more "
            f"others, of which the first {DOCUMENTS_PER_KEY} are compared: near duplicates of the rest may remain"
        )
    if unknown := data.get("unknown_text"):  # older shards have no such count
        lines.append(
            f"  unknown: {unknown['share']:.2%} of {unknown['characters']:,} characters (blanks aside) become [UNK]"
        )
        if warning := unknown_warning(unknown):
            lines.append(f"  warning: {warning}")
    tokenizer = manifest.tokenizer
    lines.append(f"  tokenizer: {tokenizer.vocab_size:,} tokens, fingerprint {tokenizer.fingerprint[:12]}")
    if not summary.already_built:
        rate = summary.text_bytes_now / 1e6 / max(summary.seconds, 1e-9)
        is_continued = summary.text_bytes_now < summary.text_bytes
        share = "since it was continued" if is_continued else "including the time of the tokenizer"
        lines.append(f"  time: {summary.seconds:.1f} s, {rate:.2f} MB text/s {share}")
    return "\n".join(lines)
