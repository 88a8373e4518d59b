"""A pretraining run: it owns the output directory, and does what the training loop hands out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pretraining.checkpoints.checkpoint import Checkpoint, open_checkpoint, retain, save_checkpoint
from pretraining.checkpoints.origin import RUN_NAME, check_same_run
from pretraining.checkpoints.position import Position, position_from
from pretraining.checkpoints.resumption import find_checkpoint, settle
from pretraining.engines.engine import Engine, build_engine
from pretraining.loop.batches import as_inputs
from pretraining.loop.journal import Journal
from pretraining.loop.loop import LoopOptions, TrainingLoop
from pretraining.loop.planned_model import build_planned_model
from pretraining.plan.budget import Progress
from pretraining.plan.identity import condensed, identity_of
from pretraining.plan.plan import Plan
from pretraining.plan.segments import Segment
from pretraining.progress_bar import ProgressBar
from pretraining.publishing.publication import Publisher
from pretraining.publishing.word_frequencies import plateau_warning
from runtime.files.lock import Ownership
from runtime.files.whole_files import write_json
from runtime.processes.collectives import broadcast_json, fail_together
from runtime.processes.interruption import MARKER_NAME, Interrupted, Interruption
from runtime.trackers import Reporter, build_reporters
from shards.storage.location import ShardLocation, open_location
from shards.streaming.stream import MaskedStream

SCHEMA_VERSION = 1

StopEarly = Callable[[dict[str, Any]], str | None]


class Run:
    """The callbacks of `pretraining.loop.loop.TrainingLoop`: journal, checkpoints, series, signals."""

    def __init__(self, plan: Plan, shards: str | ShardLocation, *, after_export: StopEarly | None = None) -> None:
        self.plan, self.options, self.ranks, self.shards = plan, plan.options, plan.ranks, open_location(shards)
        self.directory = Path(plan.options.output_dir)
        self.checkpoints = self.directory / "checkpoints"
        self.identity = identity_of(plan)  # once: a run stays the same one, whatever happens to the files it names
        self.ownership, self.interruption = Ownership(self.directory), Interruption()
        self.journal = Journal(self.directory / "journal.jsonl")
        self.after_export, self.stop_reason = after_export, None
        self.reporters: list[Reporter] = []
        self.bar = ProgressBar(plan, disabled=plan.options.disable_tqdm or not plan.ranks.is_main)
        self._saved: Position | None = None

    def start(self) -> None:
        """Take the directory, refuse another run's, build stream, model and engine, and continue where it stands."""
        self.interruption.install()
        self._take_directory()
        checkpoint = find_checkpoint(
            self.options.resume_from_checkpoint,
            self.directory,
            self.ranks,
            identity=self.identity,
            num_segments=len(self.plan.segments),
            say=self.bar.say,
        )
        self.stream = self._open_stream()
        self.model = build_planned_model(self.plan)
        self.engine: Engine = build_engine(self.model, self.plan.engine, ranks=self.ranks, device=self.plan.device)
        self.publisher = Publisher(
            self.plan, self.shards, self.directory, model=self.model, engine=self.engine, stream=self.stream
        )
        self.position = self._resume(checkpoint) if checkpoint else Position()
        if self.ranks.is_main:
            if checkpoint is not None:
                ended = self.plan.segments[: self.position.segment]
                wanted = self.options.resume_from_checkpoint
                settle(self.checkpoints, checkpoint.path.name, wanted, ended, say=self.bar.say)
            if gap := self.journal.cut_back(self.position.serial):
                self.bar.say(f"warning: {gap}")
            self.reporters = build_reporters(
                self.options.report_to,
                self.directory,
                self.options.identity(),
                first_step=self.position.progress.updates + 1,
            )
            (self.directory / MARKER_NAME).unlink(missing_ok=True)

    def execute(self) -> None:
        """Train to the end of the plan; raises Interrupted after saving when asked to stop."""
        loop = TrainingLoop(
            self.engine,
            self.stream,
            self.plan.segments,
            self.plan.budget,
            self._loop_options(),
            flops_of_update=self.plan.flops_of_update,
            callbacks=self,
        )
        try:
            if self.position.serial == 0:
                self.export(Segment(0.0, 0.0, False, "raw", 0.0), Progress())
            self.bar.start(self.position)
            loop.run(self.position)
        except Interrupted as interruption:
            if self.ranks.is_main:
                progress = loop.position.progress.as_dict()
                write_json(self.directory / MARKER_NAME, {"reason": str(interruption), "progress": progress})
            raise
        finally:
            self.close()

    def close(self) -> None:
        self.bar.close()
        for reporter in self.reporters:
            reporter.close()
        self.reporters = []
        self.ownership.release()
        self.interruption.restore()

    # What the loop calls, on every rank.

    def stop_requested(self) -> str | None:
        return self.stop_reason or (self.interruption.reason if self.interruption.requested() else None)

    def record(self, lines: list[dict[str, Any]]) -> None:
        if not self.ranks.is_main:
            return
        self.journal.append(lines)
        for line in lines:
            if line.get("spike"):
                self.bar.say(f"loss spike at update {line['update']}: {line['loss']:.3f}, rows {line['rows']}")
            if line.get("skipped"):
                self.bar.say(f"update {line['update']} was skipped, not finite: rows {line['rows']}")
            if line["segment"] == "trunk":
                figures = ("loss", "accuracy", "learning_rate", "gradient_norm", "tokens_per_second")
                for reporter in self.reporters:
                    reporter.log({name: line[name] for name in figures}, line["update"])
        self.bar.update(lines)

    def save(self, position: Position) -> str:
        """Commit a checkpoint unless this very position is committed already; returns its name.

        A branch without an update stands where its fork does.
        """
        name = position.checkpoint_name
        if (self._saved == position or position.fork == name) and (self.checkpoints / name).is_dir():
            return name
        state = {
            **position.as_dict(),
            "optimizer_steps": self.engine.optimizer_steps(),
            "world_size": self.ranks.world_size,
            "identity": condensed(self.identity),
        }
        if self.ranks.is_main:
            self.journal.sync()
        save_checkpoint(self.checkpoints, name, tensors=self.engine.state_tensors(), state=state, ranks=self.ranks)
        self._saved = position
        if self.ranks.is_main:
            retain(self.checkpoints, self.options.save_total_limit, newest=name)
        return name

    def restore(self, checkpoint: str) -> Progress:
        opened = open_checkpoint(self.checkpoints / checkpoint, self.ranks)
        self._load(opened)
        return position_from(opened.state, num_segments=len(self.plan.segments)).progress

    def export(self, segment: Segment, progress: Progress) -> None:
        """Publish the live model; afterwards whoever started the run may end it."""
        entry = self.publisher.publish(segment, progress)
        if self.ranks.is_main:
            name, figures = str(entry["path"]), {key: entry[key] for key in entry if key.startswith("validation_")}
            loss, share = entry["validation_loss"], entry["validation_accuracy"]
            self.bar.say(f"{name}: validation loss {loss:.4f}, accuracy {share:.1%}, {progress.tokens:,} tokens")
            if progress.tokens and (warning := plateau_warning(loss, entry["validation_unigram_loss"])):
                self.bar.say(f"warning: {name}: {warning}")
            for reporter in self.reporters:
                reporter.log({f"{segment.kind}/{key}": value for key, value in figures.items()}, progress.updates)
        if self.after_export is not None:
            self.stop_reason = broadcast_json(self.after_export(entry))

    # How it is done.

    def _open_stream(self) -> MaskedStream:
        """The stream of this rank; ranks that see the same files divide the checking, and fail together."""
        ranks, stream, error = self.ranks, None, None
        is_remote = self.shards.url is not None
        try:
            stream = MaskedStream(
                self.shards,
                self.plan.stream,
                ranks.rank,
                ranks.world_size,
                verify=self.options.verify,  # type: ignore[arg-type]
                check_share=(ranks.rank, ranks.world_size) if is_remote else (ranks.local_rank, ranks.local_world_size),
            )
        except (OSError, ValueError) as caught:
            error = caught
        fail_together(error, "opening the shards")
        assert stream is not None
        return stream

    def _take_directory(self) -> None:
        """Only the main rank holds the lock; every rank learns whether it got it."""
        error: BaseException | None = None
        if self.ranks.is_main:
            try:
                self.ownership.take()
                check_same_run(self.directory, self.identity)
                content = {"schema_version": SCHEMA_VERSION, "identity": self.identity, "shards": str(self.shards)}
                write_json(self.directory / RUN_NAME, content)
            except (OSError, ValueError) as caught:
                error = caught
        fail_together(error, "taking the output directory")

    def _resume(self, checkpoint: Checkpoint) -> Position:
        segments = self.plan.segments
        position = position_from(checkpoint.state, num_segments=len(segments))
        if position.segment < len(segments) and segments[position.segment].is_branch and position.fork is None:
            position = replace(position, fork=checkpoint.path.name)
        self._load(checkpoint)
        if self.ranks.is_main:
            self.bar.say(f"resuming from {checkpoint.path} at update {position.progress.updates}")
        self._saved = position
        return position

    def _load(self, checkpoint: Checkpoint) -> None:
        example = next(self.stream.batches(0))
        self.engine.load_state(
            checkpoint.read,
            optimizer_steps=int(checkpoint.state["optimizer_steps"]),
            example=as_inputs(example, self.plan.device),
        )

    def _loop_options(self) -> LoopOptions:
        options = self.options
        return LoopOptions(
            global_batch_rows=options.global_batch_rows,
            micro_batches_per_update=self.stream.micro_batches_per_update,
            peak_learning_rate=self.plan.peak_learning_rate,
            warmup=self.plan.warmup,
            decay=options.decay,
            seed=options.seed,
            num_workers=options.dataloader_num_workers,
            save_every_updates=options.save_steps,
            save_every_minutes=options.save_minutes,
            max_skipped_updates=options.max_skipped_updates,
            hang_timeout_seconds=options.hang_timeout_seconds,
            next_sentence=options.objective == "mlm+nsp",
            save_before_export=self.after_export is not None,
        )
