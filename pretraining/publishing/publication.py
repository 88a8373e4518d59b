"""Publishing of a checkpoint at a budget: evaluated, exported, verified and listed in `series.json`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pretraining.checkpoints.series import SERIES_NAME, add_to_series
from pretraining.engines.engine import Engine, full_weights
from pretraining.loop.batches import as_inputs
from pretraining.loop.evaluation import evaluate
from pretraining.model.masked_lm import PretrainingModel
from pretraining.model.source.weights import checkpoint_digest
from pretraining.plan.budget import Progress
from pretraining.plan.plan import Plan
from pretraining.plan.segments import Segment
from pretraining.publishing.export import export_model, tokenizer_files
from pretraining.publishing.model_card import named, pretraining_card
from pretraining.publishing.word_frequencies import unigram_entropy
from runtime.model_places import model_place
from runtime.processes.collectives import fail_together
from runtime.processes.fault_points import fault_point
from shards.storage.location import ShardLocation
from shards.streaming.stream import MaskedStream, validation_batches

NEXT_SENTENCE = "seq_relationship"  # in the names of the tensors of that head


class Publisher:
    """Exports the live model into `directory/series`; every rank makes the same calls."""

    def __init__(
        self,
        plan: Plan,
        shards: ShardLocation,
        directory: Path,
        *,
        model: PretrainingModel,
        engine: Engine,
        stream: MaskedStream,
    ) -> None:
        self.plan, self.shards, self.directory = plan, shards, directory
        self.model, self.engine, self.stream = model, engine, stream
        # Read now, just after the stream checked it: later changes to the folder do not reach the exports.
        self.tokenizer = tokenizer_files(shards.directory / plan.manifest.tokenizer.path)
        self._unigram_loss: float | None = None
        source, fresh = plan.options.model_name_or_path, plan.fresh_tensors
        self._started = started_from(source, fresh) if plan.ranks.is_main else {}

    def publish(self, segment: Segment, progress: Progress) -> dict[str, Any]:
        """Evaluate, write, prove and list; returns the entry of `series.json`. Fails on all ranks together."""
        with_pairs = self.plan.options.objective == "mlm+nsp"
        figures = evaluate(self.engine, self._validation_batches(), next_sentence=with_pairs)
        if self._unigram_loss is None:
            self._unigram_loss = unigram_entropy(self.shards)
        figures["validation_unigram_loss"] = self._unigram_loss
        inputs = as_inputs(next(self._validation_batches()), self.plan.device)
        live = self._live_logits(inputs)
        weights = full_weights(self.engine)
        entry = self.entry(segment, progress, figures)
        error: BaseException | None = None
        if self.plan.ranks.is_main:
            try:
                self._write(entry, weights, live, inputs)
                fault_point("export.before_series")
                add_to_series(self.directory / SERIES_NAME, entry)
            except (OSError, ValueError, RuntimeError) as caught:
                error = caught
        fail_together(error, f"exporting {entry['path']}")
        return entry

    def entry(self, segment: Segment, progress: Progress, figures: Mapping[str, float]) -> dict[str, Any]:
        """The line of `series.json`; `budget` is in the budget's own unit, `budget_tokens` always in tokens."""
        budget, unit = float(segment.budget or 0.0), self.plan.budget.unit
        epoch_rows = self.plan.rows_per_epoch
        whole = progress.rows <= epoch_rows
        return {
            "path": f"series/{segment.kind}-{amount_name(budget)}",
            "kind": segment.kind,
            "budget_tokens": budget if unit == "tokens" else float(progress.tokens),
            "tokens_seen": progress.tokens,
            "unique_tokens": progress.tokens if whole else self.stream.tokens_between(0, epoch_rows),
            "text_bytes": self.stream.text_bytes_between(0, progress.rows),
            "tokenizer": self.plan.manifest.tokenizer.fingerprint,
            "flops": progress.flops,
            "seconds": progress.seconds,
            "devices": self.plan.ranks.world_size,
            "pretraining_seed": self.plan.options.seed,
            "untrained_positions": self.plan.untrained_positions(progress.rows),
            "budget": budget,
            "budget_unit": unit,
            **self._started,
            **figures,
        }

    def _live_logits(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self.engine.eval()
        with torch.no_grad():
            logits = self.engine(**inputs, with_logits=True)["logits"]
        self.engine.train()
        return logits

    def _write(
        self,
        entry: Mapping[str, Any],
        weights: Mapping[str, torch.Tensor],
        live: torch.Tensor,
        inputs: Mapping[str, torch.Tensor],
    ) -> None:
        directory = self.directory / entry["path"]
        directory.parent.mkdir(parents=True, exist_ok=True)
        export_model(
            self.model.transformer,
            weights,
            directory,
            self.tokenizer,
            live_logits=live,
            example_batch={name: value.cpu() for name, value in inputs.items()},
            card=self._card(entry),
            settings=self.model.exported_dropout,
        )

    def _card(self, entry: Mapping[str, Any]) -> str:
        options, stream = self.plan.options, self.plan.stream
        facts = {"objective": stream.objective, "mask_rate": stream.mask_rate, "learning_rate": options.learning_rate}
        facts["optimizer"] = self.plan.optimizer_title
        facts["longest_sequence"] = self.plan.longest
        name, source = type(self.model.transformer).__name__, options.model_name_or_path
        return pretraining_card(entry, self.plan.manifest, facts, name, source=source)

    def _validation_batches(self) -> Iterator[Any]:
        ranks = self.plan.ranks
        return validation_batches(
            self.shards,
            self.plan.stream,
            ranks.rank,
            ranks.world_size,
            self.plan.options.validation_rows,
            vocabulary=self.stream.vocabulary,
        )


def started_from(source: str | None, fresh: Collection[str] = ()) -> dict[str, Any]:
    """What `series.json` says about the checkpoint that a run continues; nothing about one from random weights.

    `fresh` are the names of the head's tensors that it lacks; a head for next sentences is not the one that counts.
    """
    if source is None:
        return {}
    folder = Path(model_place(source)).expanduser()
    digest = {"started_digest": checkpoint_digest(folder)} if folder.is_dir() else {}
    has_drawn = any(NEXT_SENTENCE not in name.split(".") for name in fresh)
    return {"started_from": named(source), **digest, "fresh_head": has_drawn}


def amount_name(amount: float) -> str:
    """A budget as part of a file name: 100000.0 -> "100000", 1234567.8 -> "1234568", 0.05 -> "0p05"."""
    return f"{amount:.0f}" if amount >= 100 or amount == 0 else f"{amount:g}".replace(".", "p")
