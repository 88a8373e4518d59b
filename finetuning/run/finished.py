"""Recognition of finished runs: the same command given again reads them instead of running them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.files.schemas import Count, Figure, Items, Schema, read_object

RESULTS_NAME = "all_results.json"
REMEDY = "restore it, or remove it and run the same command again"


class _Results(Schema):
    """all_results.json of one run, of several seeds, or of a chain of two runs; earlier versions wrote less."""

    status: str = "done"
    reason: str | None = None
    fingerprint: str | None = None
    metric: str | None = None
    seconds: Figure = 0.0
    updates: Count | None = None
    seeds: Items[int] = []  # noqa: RUF012
    decided_by: dict[str, Any] = {}  # noqa: RUF012


def read_results(directory: Path) -> dict[str, Any]:
    """The finished run's all_results.json; ValueError when it is invalid."""
    return read_object(directory / RESULTS_NAME, _Results, REMEDY)


def finished_results(
    directory: Path, fingerprint: str, decided_by: Mapping[str, Any], *, again: bool = False
) -> dict[str, Any] | None:
    """all_results.json of the same run, finished before; None when it has yet to be made.

    With `again` finished results there are dropped. Raises ValueError when the directory holds the results of
    another run.
    """
    results = directory / RESULTS_NAME
    if again:
        results.unlink(missing_ok=True)
    if not results.is_file():
        return None
    from finetuning.loop.run_state import differences  # loads torch, which reading results does not need

    previous = read_results(directory)
    if previous.get("seeds") and previous.get("fingerprint") is None:
        seeds = ", ".join(str(seed) for seed in previous["seeds"][:10])
        raise ValueError(
            f"{directory} holds the results of several seeds (those of --seeds: {seeds}): choose another "
            "--output_dir for a run of one seed, remove it, or drop them with --resume_from_checkpoint false"
        )
    if previous.get("fingerprint") != fingerprint:
        listed = differences(previous.get("decided_by"), decided_by)
        raise ValueError(
            f"{directory} holds the results of a run with other options, data or weights, or of an earlier version "
            f"({listed}): choose another --output_dir, remove it, or drop them with --resume_from_checkpoint false"
        )
    return previous


def weights_digest(model_name_or_path: str) -> str:
    """sha256 over the weights and the configuration of a checkpoint's folder; a hub name without a revision is kept
    as it is."""
    from pretraining.model.source.weights import checkpoint_digest  # as above
    from runtime.model_places import model_place

    directory = Path(model_place(model_name_or_path)).expanduser()
    return checkpoint_digest(directory) if directory.is_dir() else model_name_or_path
