"""The options of `launch/pretrain.py`: those of a run, and when to end it early; light to import."""

from __future__ import annotations

from dataclasses import dataclass

from pretraining.plan.options import PretrainingOptions
from runtime.options.declaration import option

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
        None,
        "the fully pretrained checkpoint: directory, address, hub name or OWNER/NAME@REVISION",
        group=EARLY_END,
        identity=False,
    )
    finetuning_seeds: int = option(3, "fine-tuning runs per cell", group=EARLY_END, at_least=1, identity=False)
    finetuning: str = option("", "more options of launch/gap.py, as on a command line", group=EARLY_END, identity=False)
