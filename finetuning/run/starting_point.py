"""The checkpoint that a command starts from, checked and read once for all its seeds, tasks and stages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import transformers
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from finetuning.examples.recipe import FinetuningOptions
from finetuning.model.checkpoint_files import check_encoder, default_model
from finetuning.run.finished import weights_digest
from finetuning.run.saved_model import saved_facts
from runtime.model_places import is_elsewhere
from runtime.processes.collectives import broadcast_json
from runtime.processes.ranks import read_ranks


@dataclass(frozen=True)
class StartingPoint:
    """A checkpoint (directory, address, hub name) that recipes can start from, its configuration and its tokenizer."""

    name: str
    config: PretrainedConfig  # the checkpoint's own: copy it before changing it
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def head(self) -> dict[str, Any] | None:
        """The description of its head, as by `saved_facts`; None where it has none of a recipe."""
        return saved_facts(self.name, self.config)

    @cached_property
    def digest(self) -> str:
        """The digest of its weights, as the main rank reads them; collective.

        ValueError where this rank has fetched other weights.
        """
        reads = read_ranks().is_main or is_elsewhere(self.name)
        own = weights_digest(self.name) if reads else None
        digest = str(broadcast_json(own))
        if own not in (None, digest):
            raise ValueError(f"{self.name} changed while the ranks were fetching it: run the same command again")
        return digest


def open_start(name: str, *, from_scratch: bool = False, option: str = "--model_name_or_path") -> StartingPoint:
    """The checkpoint of that name. ValueError, naming the `option`, for one that recipes cannot start from."""
    quieten_transformers()
    return StartingPoint(name, *check_encoder(name, from_scratch=from_scratch, option=option))


def starting_point(options: FinetuningOptions) -> StartingPoint:
    """The model of the options, the same on every rank; every rank calls it. ValueError as `open_start`."""
    return open_start(broadcast_json(model_name(options)), from_scratch=options.from_scratch)


def model_name(options: FinetuningOptions) -> str:
    """The model of the options, or the default run's newest checkpoint."""
    return options.model_name_or_path or default_model()


def quieten_transformers() -> None:
    """Silence the report on the pretraining head's weights, which no recipe uses, and the bar for reading one file."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
