"""The options of `launch/pretrain.py`: those of a run, and when to end it early; light to import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretraining.plan.options import PretrainingOptions
from runtime.options.command_line import parse_text
from runtime.options.declaration import option

if TYPE_CHECKING:
    from pretraining.plan.plan import Plan
    from pretraining.run import Watch
    from shards.storage.location import ShardLocation

EARLY_END = "ending early, by --until"


@dataclass(frozen=True)
class PretrainCommandOptions(PretrainingOptions):
    """The options of a run, and when to stop it early."""

    until: str | None = option(
        None,
        'stop the run early: "gap_closed>=0.9", checked at every annealed checkpoint',
        group=EARLY_END,
        identity=False,
    )
    tasks: str | None = option(
        None,
        "as for launch/gap.py; default: the small world's questions",
        group=EARLY_END,
        commas=True,
        identity=False,
    )
    reference: str | None = option(
        None, "the fully pretrained checkpoint, a directory or hub name", group=EARLY_END, identity=False
    )
    finetuning_seeds: int = option(3, "fine-tuning runs per cell", group=EARLY_END, at_least=1, identity=False)
    finetuning: str = option("", "more options of launch/gap.py, as on a command line", group=EARLY_END, identity=False)


def watch_of(options: PretrainCommandOptions) -> Callable[[Plan, ShardLocation], Watch] | None:
    """A function that builds a plan's watch, which measures the gap after each export; None without --until."""
    if options.until is None:
        return None
    from gap.study.options import GapOptions  # loads much that only --until needs
    from gap.study.until import check_tokenizer, make_watch

    more = parse_text(GapOptions, options.finetuning, option="--finetuning")

    def watch(plan: Plan, shards: ShardLocation) -> Watch:
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
        )

    return watch
