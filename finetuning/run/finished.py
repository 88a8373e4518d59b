"""What was run to its end in a directory: recognised when the same command comes again, never run twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetuning.loop.run_log import read_results
from pretraining.model.source_weights import checkpoint_digest

RESULTS_NAME = "all_results.json"


def finished_results(directory: Path, fingerprint: str, *, again: bool = False) -> dict[str, Any] | None:
    """all_results.json of the same run, finished before; None when it has yet to be made.

    With `again` whatever was finished there is dropped. Raises ValueError when the directory holds the results of
    another run.
    """
    results = directory / RESULTS_NAME
    if again:
        results.unlink(missing_ok=True)
    if not results.is_file():
        return None
    found = read_results(directory)
    if found.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{directory} holds the results of a run with other options, data or weights, or of an earlier version: "
            "choose another --output_dir, remove it, or drop them with --resume_from_checkpoint false"
        )
    return found


def weights_digest(model_name_or_path: str) -> str:
    """sha256 over the weights and the configuration of a checkpoint directory; a hub name stands for itself."""
    directory = Path(model_name_or_path).expanduser()
    return checkpoint_digest(directory) if directory.is_dir() else model_name_or_path
