"""Silence the output of other libraries: progress bars of loading weights, DeepSpeed's settings, kernel warnings."""

from __future__ import annotations

import logging
import os
import warnings

NOISY_LOGGERS = ("DeepSpeed", "torch.distributed", "torch.distributed.elastic", "filelock")


def quiet_libraries(*, is_main: bool) -> None:
    """Show the libraries' warnings on the main rank, errors on the others, and none of their progress bars."""
    import torch
    import transformers

    if not torch.cuda.is_available():
        # DeepSpeed warns when it has to detect the accelerator itself.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING if is_main else logging.ERROR)
    if not is_main:
        warnings.simplefilter("ignore")
    # DeepSpeed and torch.compile log details that are of no use to a user of these commands.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\..*|deepspeed\..*")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\..*|deepspeed\..*")
