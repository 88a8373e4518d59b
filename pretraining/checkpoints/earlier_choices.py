"""What the run that a command continues has settled before, read from its directory or its named checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pretraining.checkpoints.checkpoint import committed, read_state
from pretraining.checkpoints.run_file import RUN_NAME, read_run
from pretraining.names import ATTENTION_IMPLEMENTATIONS
from pretraining.plan.choices import ARCHITECTURE, Choices
from pretraining.plan.options import PretrainingOptions
from runtime.processes.collectives import broadcast_json
from runtime.processes.ranks import Ranks


def earlier_choices(options: PretrainingOptions, ranks: Ranks) -> Choices:
    """The choices of the run in the output directory, or of the checkpoint that is named; empty for a new run.

    Collective: the main rank reads the newest checkpoint that can be read, as resuming does, else run.json. What else
    cannot be read is left to the checks of the plan, which refuse it.
    """
    found = _recorded(options).whole() if ranks.is_main else {}
    return Choices(**broadcast_json(found))


def _recorded(options: PretrainingOptions) -> Choices:
    directory, wanted = Path(options.output_dir), options.resume_from_checkpoint
    named = wanted not in ("auto", "false")
    for place in [Path(wanted)] if named else committed(directory / "checkpoints"):
        with suppress(OSError, ValueError):
            return _choices(read_state(place))
    if not named and (directory / RUN_NAME).is_file():
        with suppress(OSError, ValueError):
            return _choices({"identity": read_run(directory / RUN_NAME).identity})
    return Choices()


def _choices(state: Mapping[str, Any]) -> Choices:
    """ValueError for a state without an identity."""
    identity = state.get("identity")
    if not isinstance(identity, Mapping):
        raise ValueError("this state names no run")
    settled, bf16, dropout = state.get("choices") or {}, identity.get("bf16"), identity.get("dropout", ARCHITECTURE)
    attention = settled.get("attention")
    return Choices(
        bf16=bf16 if isinstance(bf16, bool) else None,
        attention=attention if attention in ATTENTION_IMPLEMENTATIONS else None,
        compiled=settled.get("compiled"),
        dropout=dropout if dropout == ARCHITECTURE else float(dropout),
    )
