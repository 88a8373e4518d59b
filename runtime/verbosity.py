"""What other libraries print: progress bars of weights being read, DeepSpeed's every setting, kernels' warnings."""

from __future__ import annotations

import logging
import os
import warnings

NOISY_LOGGERS = ("DeepSpeed", "torch.distributed", "torch.distributed.elastic", "filelock")


def quiet_libraries(*, is_main: bool) -> None:
    """Leave warnings of the libraries on the main rank and errors on the others; no bars but ours."""
    import torch
    import transformers

    if not torch.cuda.is_available():
        # DeepSpeed warns when it has to find that out by itself.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING if is_main else logging.ERROR)
    if not is_main:
        warnings.simplefilter("ignore")
    # DeepSpeed and torch.compile announce what does not concern a user of these commands.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\..*|deepspeed\..*")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\..*|deepspeed\..*")
