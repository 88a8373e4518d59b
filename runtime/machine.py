"""The machine: usable CPU cores, bfloat16 support, and whether an error means out of memory."""

import errno
import os

BF16_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}  # key of torch.cpu.get_capabilities -> its name
SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory")


def usable_cores() -> int:
    """Cores this process may run on; on a SLURM cluster that does not bind cores, as many as its task was given."""
    # Not every system can say which cores a process may run on.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(given)) if given.isdecimal() and int(given) else cores


def bf16_support(device_type: str) -> tuple[bool, str]:
    """Whether a device ("cpu" or "cuda") computes in bfloat16, as torch says, and the reason in words.

    Where it is only emulated (V100, T4, processors without AMX and AVX-512 BF16) it is slower than fp32.
    """
    import torch  # imported late: a build of shards does not need it

    if device_type == "cuda":
        computes = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return computes, "the GPU computes it" if computes else "this GPU only emulates bf16"
    found = torch.cpu.get_capabilities()
    units = [name for key, name in BF16_UNITS.items() if found.get(key)]
    return bool(units), f"the processor has {' and '.join(units)}" if units else "this processor only emulates bf16"


def computes_fp16(device_type: str) -> bool:
    """Whether a device has units for float16 (all GPUs; processors with AVX-512 FP16 or AMX FP16), as torch says."""
    import torch  # imported late: a build of shards does not need it

    try:
        return device_type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    except (AttributeError, RuntimeError):  # a torch that was built without that library
        return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that the device or the host ran out of memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    import torch  # imported late: callers that only count cores do not need it

    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in text for sign in SIGNS)
