"""The shards of a run: the directory that was named, or the embedded small world, built on first use."""

from __future__ import annotations

from pathlib import Path

from pretraining.plan.options import PretrainingOptions
from runtime.files.lock import Ownership
from runtime.processes.collectives import fail_together
from runtime.processes.ranks import Ranks
from shards.building.builder import build_shards
from shards.building.options import BuildOptions
from shards.small_world.world import write_small_world

SMALL_WORLD_DIRECTORY = Path("runs/small_world")
SMALL_WORLD_VOCABULARY = 4096


def prepare_shards(options: PretrainingOptions, ranks: Ranks) -> str:
    """The shard directory or https address; the main rank builds the small world's when none is named; collective."""
    if options.shards is not None:
        return options.shards
    directory = SMALL_WORLD_DIRECTORY
    error: BaseException | None = None
    if ranks.is_main:
        try:
            build_small_world(directory)
        except (OSError, ValueError) as caught:
            error = caught
    fail_together(error, "building the small world")
    return str(directory / "shards")


def build_small_world(directory: Path, *, seed: int = 0) -> Path:
    """Write corpus, task sets and shards of the small world into `directory` unless they are there; the shards."""
    ownership = Ownership(directory)
    ownership.take()
    try:
        write_small_world(directory, seed=seed)
        build_shards(
            BuildOptions(
                input=[str(directory / "corpus.jsonl")],
                output_dir=str(directory / "shards"),
                vocab_size=SMALL_WORLD_VOCABULARY,
                near_duplicates="ignore",
                processes=1,
            )
        )
    finally:
        ownership.release()
    return directory / "shards"
