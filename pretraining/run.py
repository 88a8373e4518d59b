"""A pretraining run, from options to the last export; it owns the output directory and serves the training loop."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pretraining.checkpoints.checkpoint import Checkpoint, open_checkpoint
from pretraining.checkpoints.earlier_choices import earlier_choices
from pretraining.checkpoints.mirror import RunMirror, mirrored, upload_rest
from pretraining.checkpoints.origin import check_same_run
from pretraining.checkpoints.position import Position, position_from
from pretraining.checkpoints.resumption import find_checkpoint, settle
from pretraining.checkpoints.run_file import RUN_NAME
from pretraining.checkpoints.saving import CheckpointSaver
from pretraining.checks import announce, compile_mode
from pretraining.engines.build import build_engine
from pretraining.engines.engine import Engine
from pretraining.loop.batches import as_inputs
from pretraining.loop.compiling import Compiling
from pretraining.loop.journal import Journal
from pretraining.loop.loop import LoopOptions, NotFinite, TrainingLoop
from pretraining.loop.profiling import Profiler
from pretraining.loop.progress_bar import ProgressBar
from pretraining.loop.training_data import prepare_shards
from pretraining.overfit.gate import check_overfits
from pretraining.plan.budget import Progress
from pretraining.plan.choices import Choices
from pretraining.plan.identity import condensed, identity_of
from pretraining.plan.memory_advice import explained
from pretraining.plan.options import PretrainingOptions
from pretraining.plan.plan import Plan
from pretraining.plan.segments import Segment
from pretraining.plan.table import seconds_left
from pretraining.publishing.hub_process import SeriesPusher, pushing
from pretraining.publishing.publication import Publisher
from pretraining.publishing.watch import StopEarly, Watch, WatchOf
from pretraining.publishing.word_frequencies import plateau_warning
from runtime.files.lock import Ownership
from runtime.files.whole_files import write_json
from runtime.plurals import counted
from runtime.processes.collectives import broadcast_json, fail_together
from runtime.processes.interruption import MARKER_NAME, Interrupted, Interruption
from runtime.processes.ranks import Ranks, choose_device, close_process_group, init_process_group
from runtime.trackers import Reporter, build_reporters
from runtime.verbosity import quiet_libraries
from shards.storage.location import ShardLocation, open_location
from shards.streaming.stream import MaskedStream

SCHEMA_VERSION = 1


def run_pretraining(
    options: PretrainingOptions,
    ranks: Ranks,
    *,
    watch_of: WatchOf | None = None,
) -> None:
    """Plan, check and run the pretraining, on this rank; `pretraining.pretrain` leaves the process as it was.

    `watch_of` builds the watch of a plan without contradictions. Raises Refused for contradictions, which are printed,
    Interrupted once all is saved, and Failed where all is trained but not all pushed. Leaves the process group open,
    unless it pushes.
    """
    quiet_libraries(is_main=ranks.is_main)
    device = choose_device(ranks)
    init_process_group(ranks, device, always=options.deepspeed is not None and not options.dry_run)
    with mirrored(options, ranks) as mirror:
        _pretrain(options, ranks, device, mirror, watch_of)


def _pretrain(
    options: PretrainingOptions, ranks: Ranks, device: torch.device, mirror: RunMirror | None, watch_of: WatchOf | None
) -> None:
    shards = open_location(prepare_shards(options, ranks), cache_gb=options.cache_gb)
    plan = agreed(Plan(options, shards.manifest, ranks, device, earlier_choices(options, ranks)))
    announce(plan, shards)
    if options.dry_run:
        return
    watch = None if watch_of is None else watch_of(plan, shards)
    with pushing(options, ranks) as pusher:
        if watch is not None and watch.reached:
            upload_rest(mirror)
            if ranks.is_main:
                print(f"already stopped: {watch.reached}")
        else:
            _check_first(watch, pusher, ranks)
            with explained(plan):
                if options.overfit_gate:
                    check_overfits(plan, shards)
                _execute(Run(plan, shards, after_export=watch, pusher=pusher, mirror=mirror), watch)
            if ranks.is_main:
                print(f"series: {options.output_dir}/series.json")
        if options.push_to_hub:
            close_process_group()  # no rank waits for a network
        if pusher is not None:
            pusher.finish()


def agreed(plan: Plan) -> Plan:
    """The same plan on every rank, with what the main rank's hardware and table decide; collective."""
    chosen: dict[str, Any] | None = None
    if plan.ranks.is_main:
        with suppress(OSError, ValueError):  # a contradiction, which `announce` names
            chosen = plan.choices.whole()
    chosen = broadcast_json(chosen)
    return plan if chosen is None else replace(plan, earlier=Choices(**chosen))


def _check_first(watch: Watch | None, pusher: SeriesPusher | None, ranks: Ranks) -> None:
    """Tasks or a reference that cannot be read, and a hub that refuses us, are an error now, not at the first look."""
    error: BaseException | None = None
    if ranks.is_main:
        try:
            if watch is not None:
                watch.check()
            if pusher is not None:
                pusher.check()
        except (OSError, ValueError) as caught:
            error = caught
    fail_together(error, "reading the tasks and the reference of --until, or asking the hub")


def _execute(run: Run, watch: Watch | None) -> None:
    """Train; a run that its watch has ended is finished, and nothing should resume it."""
    if watch is not None:
        watch.obey(run.stop_requested)
    run.start()
    try:
        run.execute()
    except Interrupted:
        if not run.stop_reason:
            raise
        if run.ranks.is_main:
            (run.directory / MARKER_NAME).unlink(missing_ok=True)
            print(f"stopped: {run.stop_reason}")


class Run:
    """The callbacks of `pretraining.loop.loop.TrainingLoop`: journal, checkpoints, series, signals."""

    def __init__(
        self,
        plan: Plan,
        shards: str | ShardLocation,
        *,
        after_export: StopEarly | None = None,
        mirror: RunMirror | None = None,
        pusher: SeriesPusher | None = None,
    ) -> None:
        self.plan, self.options, self.ranks, self.shards = plan, plan.options, plan.ranks, open_location(shards)
        self.directory = Path(plan.options.output_dir)
        self.checkpoints = self.directory / "checkpoints"
        self.identity = identity_of(plan)  # once: later changes to the files do not change the run's identity
        self.ownership, self.interruption = Ownership(self.directory), Interruption()
        self.journal = Journal(self.directory / "journal.jsonl")
        self.after_export, self.stop_reason, self.pusher, self.warned_of_plateau = after_export, None, pusher, False
        self.reporters: list[Reporter] = []
        self.bar = ProgressBar(plan, disabled=plan.options.disable_tqdm or not plan.ranks.is_main)
        if pusher is not None:
            pusher.say = self.bar.say
        self._saved: Position | None = None
        self.mirror = mirror  # only the main rank's
        self.saver = CheckpointSaver(
            self.checkpoints,
            self.ranks,
            in_background=self.options.async_save,
            keep=self.options.save_total_limit,
            before_commit=self.journal.sync,
            after_commit=None if mirror is None else mirror.committed,
            pinned=tuple if mirror is None else mirror.pinned,
        )
        self._stall_told = 0.0  # of the seconds that training stood still for saves: those in the journal

    def start(self) -> None:
        """Take the directory, refuse another run's, build stream, model and engine, and continue where it stopped.

        A run that is refused releases the directory and the signals.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
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
        self.model = self.plan.build_model()
        self.engine: Engine = build_engine(self.model, self.plan.engine, ranks=self.ranks, device=self.plan.device)
        self.compiling = Compiling(
            self.engine.compilation, mode=compile_mode(self.plan), compiled=self.plan.earlier.compiled
        )
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
            if self.mirror is not None:
                self.mirror.say = self.bar.say
                self.mirror.begin(None if checkpoint is None else checkpoint.path.name)

    def execute(self) -> None:
        """Train to the end of the plan; raises Interrupted after saving when asked to stop."""
        profiler = Profiler(
            self.options.profile,
            self.directory,
            self.ranks,
            self.plan.device,
            is_settling=lambda: self.compiling.is_deciding,
        )
        engine, stream = profiler.wrapped(self.engine, self.stream)
        loop = TrainingLoop(
            engine,
            stream,
            self.plan.segments,
            self.plan.budget,
            self._loop_options(),
            flops_of_update=self.plan.flops_of_update,
            flops_of_head_update=self.plan.flops_of_head_update,
            callbacks=self,
            compiling=self.compiling,
        )
        try:
            if self.position.serial == 0:
                self.export(Segment(0.0, 0.0, False, "raw", 0.0), Progress())
            self.bar.start(self.position)
            loop.run(self.position)
            self.saver.wait()
            if warning := profiler.missed():
                self.bar.say(f"warning: {warning}")
            if self.ranks.is_main and self.saver.num_saves:
                saves = counted(self.saver.num_saves, "save")
                self.bar.say(f"training stood still for {self.saver.stalled:.1f} s in {saves}")
        except NotFinite:  # on every rank, as an interruption
            self.saver.wait()
            raise
        except Interrupted as interruption:
            self.saver.wait()
            if self.ranks.is_main:
                progress = loop.position.progress.as_dict()
                write_json(self.directory / MARKER_NAME, {"reason": str(interruption), "progress": progress})
            raise
        finally:
            profiler.close()
            self.close()

    def close(self) -> None:
        self.saver.close()
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
        if stalled := self.saver.stalled - self._stall_told:
            lines[0]["save_stall_seconds"] = stalled  # before this update
            self._stall_told += stalled
        self.journal.append(lines)
        for line in lines:
            if line.get("spike"):
                self.bar.say(f"loss spike at update {line['update']}: {line['loss']:.3f}, rows {line['rows']}")
            if "compile_seconds" in line:
                self.bar.say(f"compiled the model: {line['compile_seconds']:.0f} s")
            if "compile_gain" in line:
                kept = "" if self.compiling.compiled else "; it runs without compilation again"
                self.bar.say(f"an update is {line['compile_gain']:.2f} times as fast as before{kept}")
            if line.get("skipped") == "loss scale":
                self.bar.say(f"update {line['update']} was skipped: the loss scale {line['loss_scale']:g} is halved")
            elif line.get("skipped"):
                self.bar.say(f"update {line['update']} was skipped (not finite): rows {line['rows']}")
            if line["segment"] == "trunk":
                figures = ("loss", "accuracy", "learning_rate", "gradient_norm", "tokens_per_second")
                for reporter in self.reporters:
                    reporter.log({name: line[name] for name in figures}, line["update"])
        self.bar.update(lines)

    def save(self, position: Position) -> str:
        """Have a checkpoint committed unless this very position is already; returns its name.

        A branch without an update is at the position of its fork.
        """
        name = position.checkpoint_name
        if (self._saved == position or position.fork == name) and self._is_saved(name):
            return name
        state = {
            **position.as_dict(),
            "optimizer_steps": self.engine.optimizer_steps(),
            "world_size": self.ranks.world_size,
            "identity": condensed(self.identity),
            "choices": {**self.plan.choices.as_dict(), "compiled": self.compiling.settled},
        }
        if self.engine.loss_scaling is not None:
            state["loss_scaling"] = self.engine.loss_scaling.state()
        self.saver.save(name, tensors=self.engine.state_tensors(), state=state)
        self._saved = position
        return name

    def poll(self) -> None:
        self.saver.poll()
        if self.pusher is not None:
            self.pusher.poll()

    def restore(self, checkpoint: str) -> Progress:
        self.saver.wait()
        opened = open_checkpoint(self.checkpoints / checkpoint, self.ranks)
        self._load(opened)
        return position_from(opened.state, num_segments=len(self.plan.segments)).progress

    def seconds_left(self, position: Position, seconds_per_update: float) -> float:
        """Of the whole plan, at the pace so far."""
        return seconds_left(self.plan, position.serial, position.progress.seconds, seconds_per_update)

    def export(self, segment: Segment, progress: Progress) -> None:
        """Publish the live model once a checkpoint can bring it back; then the watch may end the run."""
        self.saver.wait()
        entry = self.publisher.publish(segment, progress)
        if self.mirror is not None:
            self.mirror.exported(str(entry["path"]))
        if self.ranks.is_main:
            name, figures = str(entry["path"]), {key: entry[key] for key in entry if key.startswith("validation_")}
            loss, share = entry["validation_loss"], entry["validation_accuracy"]
            self.bar.say(f"{name}: validation loss {loss:.4f}, accuracy {share:.1%}, {progress.tokens:,} tokens")
            warning = plateau_warning(loss, entry["validation_unigram_loss"], said_before=self.warned_of_plateau)
            if progress.tokens and warning:
                self.bar.say(f"warning: {name}: {warning}")
                self.warned_of_plateau = True
            for reporter in self.reporters:
                reporter.log({f"{segment.kind}/{key}": value for key, value in figures.items()}, progress.updates)
        if self.pusher is not None:
            self.pusher.start()
        if self.after_export is not None:
            self.stop_reason = broadcast_json(self.after_export(entry))

    # The parts of those calls.

    def _is_saved(self, name: str) -> bool:
        """Whether a checkpoint is there or on its way; on a shared file system only the main rank's view counts."""
        return self.saver.pending == name or broadcast_json((self.checkpoints / name).is_dir())

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
        if position.segment < len(segments) and segments[position.segment].head_only:
            self.engine.freeze()
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
        if self.engine.loss_scaling is not None:
            self.engine.loss_scaling.load(checkpoint.state.get("loss_scaling"))

    def _loop_options(self) -> LoopOptions:
        options = self.options
        return LoopOptions(
            global_batch_rows=options.global_batch_rows,
            micro_batches_per_update=self.stream.micro_batches_per_update,
            peak_learning_rate=self.plan.peak_learning_rate,
            warmup=self.plan.warmup,
            head_warmup=self.plan.head_warmup,
            head_learning_rate=options.head_learning_rate,
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
