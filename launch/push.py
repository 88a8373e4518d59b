"""Push a finished run to the model hub: a series, or fine-tuned models.

    python launch/push.py runs/mine --hub_model_id OWNER/NAME             a branch a checkpoint, the largest on main
    python launch/push.py runs/finetuning/qa --hub_model_id OWNER/NAME    the best model

The token is that of HF_TOKEN or `hf auth login`. What is on the hub already is not pushed again, so a push that broke
off is continued by the same command. A run pushes by itself with --push_to_hub.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetuning.recipes.options.pushing import PushCommandOptions
from runtime.options.command_line import parse_with_names
from runtime.options.exit_status import run_command
from runtime.processes.ranks import read_ranks


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and push; returns the exit status."""
    folders, options = parse_with_names(PushCommandOptions, argv, description=__doc__)
    return run_command(lambda: run(folders, options), memory_remedy="push from a machine with more memory")


def run(folders: Sequence[str], options: PushCommandOptions) -> int:
    """Push; returns the exit status."""
    if read_ranks().is_main:  # under a launcher one process pushes
        from finetuning.run.pushing import push_folders  # loads much that --help does not need

        push_folders(folders, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
