"""`--until "gap_closed>=0.9"`: evaluate the growing series, and stop pretraining when enough of the gap is closed.

A look fine-tunes the newest annealed checkpoint (scratch and the reference at the first look) and checks whether the
lower end of the interval of the gap closed has reached the level on every task. Repeated looks would eventually
hit a lucky interval, so the error is spent over the planned looks (`gap/intervals/spending.py`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finetuning.examples.pair_template import pair_template
from gap.analysis.analysis import read_studies
from gap.analysis.tables.costs import Prices
from gap.analysis.tables.task_table import CheckpointKey
from gap.cells.code_identity import code_version
from gap.cells.consistency import model_types_of, settled_bf16
from gap.cells.executor import worker_command, worker_environment
from gap.cells.job_list import SCORES_NAME, model_digest, read_jobs
from gap.cells.plan import CellSource, Controls, reference_sources, sources_of
from gap.intervals.bootstrap import Resampling
from gap.intervals.spending import look_confidence
from gap.study.experiment import UNKNOWN, Experiment, check_sources, write_list
from gap.study.from_options import experiment_of
from gap.study.options import OF_A_LOOK, GapOptions, with_defaults
from gap.study.until_options import PretrainCommandOptions
from gap.tasks.contamination import Shards
from gap.tasks.kinds.task_data import TaskData
from pretraining.checkpoints.series import read_series
from pretraining.plan.plan import Plan
from runtime.files.schemas import Count, Items, Schema, read_object
from runtime.files.whole_files import write_json
from runtime.options.command_line import parse_text
from runtime.options.declaration import declarations, names_marked, not_given
from runtime.processes.collectives import fail_together, gather_json
from runtime.processes.failures import Failed
from runtime.processes.interruption import Interrupted, arm_watchdog
from runtime.processes.liveness import end_with_parent
from runtime.processes.ranks import Ranks
from shards.storage.location import ShardLocation
from shards.tokenization.vocabulary import load_tokenizer

SCHEMA_VERSION = 1
CONDITION = re.compile(r"\s*gap_closed\s*>=\s*(0?\.\d+|1(?:\.0*)?)\s*")
FILE_NAME = "until.json"
POLL_SECONDS = 0.5


class _LookFile(Schema):
    look: Count


class UntilFile(Schema):
    """until.json: the looks so far, their settings, and why the run stopped."""

    condition: str
    asked: Any
    looks: Items[_LookFile]
    stopped: str | None


@dataclass(frozen=True)
class Look:
    """The gap closed at one budget, by task: (value, low, high), None where it is not resolved."""

    number: int
    budget_tokens: int
    confidence: float
    closed: Mapping[str, tuple[float, float, float] | None]

    def passes(self, level: float) -> bool:
        """Whether every task's lower end reaches the level."""
        return bool(self.closed) and all(
            interval is not None and interval[1] >= level for interval in self.closed.values()
        )

    def words(self) -> str:
        parts = [
            f"{task} not resolved"
            if interval is None
            else f"{task} {interval[0]:.1%} [{interval[1]:.1%}, {interval[2]:.1%}]"
            for task, interval in self.closed.items()
        ]
        sure = f"{100 * self.confidence:.6g} % intervals"
        return f"look {self.number} at {self.budget_tokens:,} tokens, gap closed ({sure}): {', '.join(parts)}"


def parse_condition(text: str) -> float:
    """`gap_closed>=0.9` -> 0.9; ValueError for anything else."""
    match = CONDITION.fullmatch(text)
    if match is None or not 0 < float(match[1]) <= 1:
        raise ValueError(f'--until {text!r}: write "gap_closed>=0.9", with a share above 0 and at most 1')
    return float(match[1])


@dataclass
class GapWatch:
    """The callback that `pretraining.run.Run` calls after each export, on every rank."""

    run: Path  # the output directory of the pretraining run
    condition: str
    experiment: Experiment
    reference: str | None
    budgets: Sequence[float]  # of the planned series, one look each
    ranks: Ranks = field(default_factory=Ranks)
    shards: Shards | None = None
    draws: int = 10_000
    hang_timeout_seconds: float = 0.0  # of the run's watchdog; 0: it has none
    model_type: str = ""  # of the run
    width: int = 0  # hidden size of the run's model; 0: unknown, and then the first look finds what its grid lacks
    stop_requested: Callable[[], str | None] = lambda: None  # from the run: why it is to end now
    data: dict[str, TaskData] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.level = parse_condition(self.condition)
        code_version()  # of the sources that this process runs, not of those on disk at the first look
        if self.reference is None:
            raise ValueError("--until needs --reference: a share of the gap needs its upper end before training")
        if self.experiment.zero_shot:
            raise ValueError(
                f"--tasks: {', '.join(self.experiment.zero_shot)} is zero-shot and has an interval only over several "
                "pretraining runs; --until looks at one: name other tasks"
            )
        if self.experiment.finetuning_seeds < 3:
            raise ValueError(
                f"--finetuning_seeds {self.experiment.finetuning_seeds}: --until needs an interval, 3 or more"
            )
        self.directory, options = self.run / "until", self.experiment.options
        families = {self.model_type, *model_types_of([self.reference])}
        options = replace(options, bf16=settled_bf16(options.bf16, self.directory, model_types=families))
        self.experiment = replace(self.experiment, options=options, controls=Controls(), tasks_at_ends=())

    @property
    def reached(self) -> str | None:
        """Why an earlier call of the same run stopped; None if it should go on."""
        content = self._on_record()
        return str(content["stopped"]) if self._is_of_this(content) and content.get("stopped") else None

    def _on_record(self) -> dict[str, Any]:
        """The content of until.json; empty if no look was taken."""
        path = self.run / FILE_NAME
        return read_object(path, UntilFile, "remove it to take the looks again") if path.exists() else {}

    @property
    def _asked(self) -> Any:
        """The settings of the looks, as read back from JSON."""
        return json.loads(json.dumps({"reference": self.reference, **asdict(self.experiment)}))

    def _is_of_this(self, content: Mapping[str, Any]) -> bool:
        """Whether the recorded looks have the same settings (tasks, seeds, reference); missing ones are defaults."""
        defaults = json.loads(json.dumps(asdict(Experiment(tasks=()))))
        recorded = _filled(defaults, content.get("asked"))
        return (content.get("condition"), recorded) == (self.condition, self._asked)

    def __call__(self, entry: Mapping[str, Any]) -> str | None:
        """Look when an annealed checkpoint was exported; returns the reason to stop, on the main rank, or None.

        Raises Interrupted, on all ranks, if the run is asked to stop meanwhile: a restart resumes the same look.
        """
        if entry["kind"] != "annealed":
            return None
        self._on_main(self._write_list, "planning the cells of --until")
        self._run_cells()
        return self._on_main(lambda: self._judge(entry), "analysing the cells of --until")

    def check(self) -> None:
        """Read tasks and reference before anything is trained; ValueError names what is wrong with them."""
        self.data = self.experiment.read()
        sources = reference_sources(self.reference)
        check_sources(sources)
        for source in sources:
            model_digest(source.path)
        if self.width:
            series = [CellSource(UNKNOWN, "raw", 0), CellSource(UNKNOWN, "annealed", round(min(self.budgets)))]
            self.experiment.plan([*series, *sources[:1]], self.width)

    def obey(self, stop_requested: Callable[[], str | None]) -> None:
        """Poll this function during a look: why the run is to end now, None to go on."""
        self.stop_requested = stop_requested

    def _wait(self, is_done: Callable[[], bool]) -> None:
        """Wait until every rank is done, in short collectives, so that the run's watchdog sees progress."""
        while True:
            states = gather_json((is_done(), self.stop_requested()))
            if all(done for done, _ in states):
                break
            arm_watchdog(self.hang_timeout_seconds)
            if reasons := [reason for _, reason in states if reason]:
                raise Interrupted(reasons[0])
            time.sleep(POLL_SECONDS)
        arm_watchdog(self.hang_timeout_seconds)

    def _on_main(self, work: Callable[[], str | None], doing: str) -> str | None:
        """What `work` returns on the main rank, None on the others, which wait for it as long as it takes."""
        if not self.ranks.is_main:
            self._wait(lambda: True)
            fail_together(None, doing)
            return None
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(work)
            self._wait(future.done)
        error = future.exception()
        fail_together(error if isinstance(error, OSError | ValueError) else None, doing)
        return future.result()

    def _write_list(self) -> None:
        """The cells of all annealed checkpoints so far; finished ones are not run again."""
        self.data = self.data or self.experiment.read()
        sources = sources_of(read_series(self.run), ["annealed"])
        jobs = self.experiment.jobs([*sources, *reference_sources(self.reference)[:1]], self.data)
        write_list(jobs, self.data, self.directory, self.shards, print)

    def _run_cells(self) -> None:
        """Each rank starts a worker on its device: random state and collectives of this process stay untouched."""
        device, count = None, self.ranks.local_world_size
        if torch.cuda.is_available():
            names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            device, count = names[self.ranks.local_rank] if names else str(self.ranks.local_rank), 1
        worker = subprocess.Popen(
            worker_command(self.directory, count),
            stdin=subprocess.DEVNULL,
            env=worker_environment(device),
            preexec_fn=partial(end_with_parent, os.getpid()),
        )
        try:
            self._wait(lambda: worker.poll() is not None)
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        if any(gather_json(worker.returncode)):
            raise Failed(f"a worker of --until failed: the reason is above; its cells are in {self.directory}")

    def _judge(self, entry: Mapping[str, Any]) -> str | None:
        budget = round(float(entry["budget_tokens"]))
        number = 1 + sum(budget < float(entry["budget"]) * (1 - 1e-9) for budget in self.budgets)
        confidence = look_confidence(number, len(self.budgets))
        studies, _ = read_studies(
            self.directory / SCORES_NAME,
            series=None,
            prices=Prices(),
            resampling=Resampling(draws=self.draws, seed=0),
            confidence=confidence,
            planned=read_jobs(self.directory).cell_names(),
        )
        closed: dict[str, tuple[float, float, float] | None] = {}
        for study in studies:
            column = study.table.find(CheckpointKey("annealed", budget))
            if column is None or study.in_series:
                raise ValueError(f"{self.directory}: no cells of {budget:,} tokens or of the reference: remove it")
            gap = study.difference(study.reference, study.scratch)
            closed[study.table.task] = None
            if gap.low is not None and gap.low > 0:
                share, involved = study.closed([column]), [column, study.scratch, study.reference]
                estimate = study.estimate(lambda scores, share=share: share(scores)[:, 0], involved)  # type: ignore[misc]
                if estimate.low is not None and estimate.high is not None:
                    closed[study.table.task] = estimate.value, estimate.low, estimate.high
        look = Look(number, budget, confidence, closed)
        print(look.words(), flush=True)
        reason = self._reason(look, entry) if look.passes(self.level) else None
        self._write(look, reason)
        return reason

    def _reason(self, look: Look, entry: Mapping[str, Any]) -> str:
        """The message about the level reached and the budget saved."""
        seen, planned = float(entry["budget"]), max(self.budgets)
        hours = float(entry["seconds"]) / 3600 * (planned / seen - 1)
        return (
            f"{self.condition} is reached: {look.words()} (the error rate over all looks is at most 5 %). "
            f"Saved {1 - seen / planned:.0%} of the budget, about {hours:.2f} hours of training at the speed so far"
        )

    def _write(self, look: Look, reason: str | None) -> None:
        content = self._on_record()
        looks = content.get("looks", []) if self._is_of_this(content) else []
        record = {
            "look": look.number,
            "budget_tokens": look.budget_tokens,
            "confidence": look.confidence,
            "gap_closed": {
                task: None if interval is None else list(interval) for task, interval in look.closed.items()
            },
        }
        kept = [earlier for earlier in looks if earlier["look"] != look.number]
        write_json(
            self.run / FILE_NAME,
            {
                "schema_version": SCHEMA_VERSION,
                "condition": self.condition,
                "asked": self._asked,
                "looks": [*kept, record],
                "stopped": reason,
            },
        )


def _filled(defaults: Any, recorded: Any) -> Any:
    """Recorded settings with the defaults of those that the version which wrote them did not have."""
    if not (isinstance(defaults, Mapping) and isinstance(recorded, Mapping)):
        return recorded
    return {**defaults, **{name: _filled(defaults.get(name), value) for name, value in recorded.items()}}


def watch_of(options: PretrainCommandOptions) -> Callable[[Plan, ShardLocation], GapWatch]:
    """A function that builds a plan's watch, which measures the gap after each export."""
    more = parse_text(GapOptions, options.finetuning, option="--finetuning")

    def watch(plan: Plan, shards: ShardLocation) -> GapWatch:
        check_tokenizer(shards)
        return make_watch(
            str(options.until),
            tasks=options.tasks,
            reference=options.reference,
            finetuning_seeds=options.finetuning_seeds,
            more=more,
            on_small_world=options.shards is None,
            run=Path(options.output_dir),
            shards=shards,
            budgets=[segment.budget for segment in plan.segments if segment.is_branch and segment.budget],
            ranks=plan.ranks,
            hang_timeout_seconds=options.hang_timeout_seconds,
            model_type=plan.config.model_type,
            width=plan.config.hidden_size,
        )

    return watch


def make_watch(
    until: str,
    *,
    tasks: str | None,
    reference: str | None,
    finetuning_seeds: int,
    more: GapOptions,
    on_small_world: bool,
    run: Path,
    shards: Shards,
    budgets: Sequence[float],
    ranks: Ranks,
    hang_timeout_seconds: float = 0.0,
    model_type: str = "",
    width: int = 0,
) -> GapWatch:
    """The callback of `launch/pretrain.py --until` after each export; `more` are the options in its --finetuning.

    Raises ValueError for an invalid condition, without a reference, for real shards without tasks, and for options
    that a look does not use.
    """
    if tasks is None and not on_small_world:
        raise ValueError("--until needs --tasks, such as qa:FOLDER,glue:sst2")
    taken = names_marked(more, OF_A_LOOK)
    unused = [name for name in declarations(more) if name not in taken and name not in not_given(more)]
    if unused:
        raise ValueError(
            f"--finetuning: --until makes no use of --{', --'.join(unused)}; it takes "
            f"--{', --'.join(taken)}, and --tasks, --reference and --finetuning_seeds are given next to it"
        )
    own = replace(more, series=None if on_small_world else str(run), tasks=tasks, finetuning_seeds=finetuning_seeds)
    experiment = experiment_of(with_defaults(own))
    searched = shards if own.contamination else None
    return GapWatch(
        *(run, until, experiment, reference, budgets, ranks, searched, own.draws, hang_timeout_seconds),
        model_type=model_type,
        width=width,
    )


def check_tokenizer(shards: ShardLocation) -> None:
    """ValueError for shards whose tokenizer no recipe can use: said before training, not at the first look."""
    folder = shards.directory / shards.manifest.tokenizer.path
    try:
        pair_template(load_tokenizer(str(folder)))
    except ValueError as error:
        raise ValueError(f"--until cannot fine-tune with the shards' tokenizer {folder}: {error}") from error
