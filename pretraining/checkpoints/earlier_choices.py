"""What the run that a command continues has settled before, read from its directory or its named checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretraining.checkpoints.checkpoint import committed, read_state
from pretraining.checkpoints.origin import RUN_NAME, read_run
from pretraining.model.attention import ATTENTION_IMPLEMENTATIONS
from pretraining.plan.choices import ARCHITECTURE, Choices
from pretraining.plan.options import PretrainingOptions
from runtime.processes.collectives import broadcast_json
from runtime.processes.ranks import Ranks


def earlier_choices(options: PretrainingOptions, ranks: Ranks) -> Choices:
    """The choices of the run in the output directory, or of the checkpoint that is named; empty for a new run.

    Collective: the main rank reads. What cannot be read is left to the checks of the plan, which refuse it.
    """
    found: dict[str, Any] = {}
    if ranks.is_main:
        try:
            found = _recorded(options).whole()
        except (OSError, ValueError):
            found = Choices().whole()
    return Choices(**broadcast_json(found))


def _recorded(options: PretrainingOptions) -> Choices:
    directory, wanted = Path(options.output_dir), options.resume_from_checkpoint
    if wanted not in ("auto", "false"):
        state = read_state(Path(wanted))
    else:
        newest = committed(directory / "checkpoints")[:1]
        state = read_state(newest[0]) if newest else {}
    identity = state.get("identity")
    if identity is None and (directory / RUN_NAME).is_file():
        identity = read_run(directory / RUN_NAME).identity
    if identity is None:
        return Choices()
    settled, bf16, dropout = state.get("choices") or {}, identity.get("bf16"), identity.get("dropout", ARCHITECTURE)
    attention = settled.get("attention")
    return Choices(
        bf16=bf16 if isinstance(bf16, bool) else None,
        attention=attention if attention in ATTENTION_IMPLEMENTATIONS else None,
        compiled=settled.get("compiled"),
        dropout=dropout if dropout == ARCHITECTURE else float(dropout),
    )
