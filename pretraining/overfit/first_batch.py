"""The first batch of a shard directory, for the overfit check, and small sample shards if none are given."""

from pathlib import Path

import torch
from torch import Tensor

from pretraining.loop.batches import as_inputs
from shards.building.builder import build_shards
from shards.building.options import BuildOptions
from shards.small_world.world import WorldSizes, write_small_world
from shards.storage.location import ShardLocation
from shards.streaming.options import StreamOptions
from shards.streaming.stream import MaskedStream

SAMPLE_WORLD = WorldSizes(documents=600, names_per_class=150, train=8, validation=8, test=8)
SAMPLE_VOCABULARY = 2_048


def first_batch(shards: Path | str | ShardLocation, options: StreamOptions, device: torch.device) -> dict[str, Tensor]:
    """The first update's rows as one batch of model inputs on `device`; set micro_batch_rows to the rows wanted."""
    stream = MaskedStream(shards, options, rank=0, world_size=1)
    return as_inputs(next(stream.batches(0)), device)


def write_sample_shards(directory: Path | str, *, seed: int = 0) -> Path:
    """Write shards of a few hundred documents of the embedded small world, in seconds; returns their directory."""
    directory = Path(directory)
    write_small_world(directory / "world", seed=seed, sizes=SAMPLE_WORLD)
    shards = directory / "shards"
    build_shards(
        BuildOptions(
            input=[str(directory / "world" / "corpus.jsonl")],
            output_dir=str(shards),
            vocab_size=SAMPLE_VOCABULARY,
            validation_fraction=0.05,
            near_duplicates="ignore",
            processes=1,
        )
    )
    return shards
