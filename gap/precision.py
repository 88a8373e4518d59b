"""`--bf16 auto` is settled once for a study: cells added on another kind of device are trained as the first were."""

from __future__ import annotations

from pathlib import Path

import torch

from finetuning.training import uses_bf16
from gap.jobs import LIST_NAME, read_jobs


def settled_bf16(choice: str, directory: Path, *, elsewhere: bool = False) -> str:
    """true or false for auto: as the list of cells in the directory says, else where this machine's hardware has it.

    `elsewhere`: the cells are run on GPUs of other machines. ValueError where this one then cannot know.
    """
    if choice != "auto":
        return choice
    before = _before(directory)
    if before != "auto":
        return before
    if elsewhere and not torch.cuda.is_available():
        raise ValueError(
            "--bf16 auto: there is no GPU here to tell what those of the array job have, and the precision is part of "
            "every cell; give --bf16 true or false"
        )
    return "true" if uses_bf16("auto") else "false"


def _before(directory: Path) -> str:
    """What the cells in the directory were begun with; auto where there are none, or their list is to be replaced."""
    if not (directory / LIST_NAME).is_file():
        return "auto"
    try:
        return read_jobs(directory).options.bf16
    except ValueError:
        return "auto"
