"""The machine: usable CPU cores, bfloat16 support, and whether an error means out of memory."""

import errno
import os

SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory")


def usable_cores() -> int:
    """Cores this process may run on; on a SLURM cluster that does not bind cores, as many as its task was given."""
    # Not every system can say which cores a process may run on.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(given)) if given.isdecimal() and int(given) else cores


def computes_bf16() -> bool:
    """Whether a GPU here computes in bfloat16. Older ones (V100, T4) only emulate it, slower than fp32."""
    import torch  # imported late: a build of shards does not need it

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that the device or the host ran out of memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    import torch  # imported late: callers that only count cores do not need it

    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in text for sign in SIGNS)
