"""DeepSpeed's compiled operators: a compilation that was killed must not block every later start.

torch guards a build with a file named `lock` and waits until it is gone: forever if its owner was killed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretraining.engines.deepspeed_config import names_optimizer, offload_device

LOCK_NAME = "lock"
# A builder takes less than this from creating its lock to starting the compiler in the folder.
START_SECONDS = 10.0

logger = logging.getLogger(__name__)


def compiled_operators(config: Mapping[str, Any], *, on_cpu: bool) -> list[str]:
    """Names of the operators that DeepSpeed will compile for a resolved configuration."""
    if not names_optimizer(config) or config["optimizer"].get("params", {}).get("torch_adam"):
        return []
    offloads = offload_device(config["zero_optimization"], "offload_optimizer") != "none"
    return ["cpu_adam"] if offloads or on_cpu else []


def clear_abandoned_build(name: str) -> None:
    """Remove the lock of a build that no process works on; DeepSpeed waits for one that is in progress."""
    from torch.utils.cpp_extension import _get_build_directory

    clear_abandoned_lock(Path(_get_build_directory(name, verbose=False)))


def clear_abandoned_lock(folder: Path) -> None:
    """See `clear_abandoned_build`; waits a moment for a builder that has only just begun."""
    lock = folder / LOCK_NAME
    while lock.exists() and not is_worked_in(folder):
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:
            return
        if age > START_SECONDS:
            logger.warning("%s was left by a compilation that was killed: removed", lock)
            lock.unlink(missing_ok=True)
            return
        time.sleep(0.2)


def is_worked_in(folder: Path) -> bool:
    """Whether a process of this machine has the folder as its working directory, as a compiler has."""
    wanted = folder.resolve()
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if entry.name.isdigit():
            try:
                working_directory = os.readlink(entry / "cwd")
            except OSError:
                continue
            if Path(working_directory) == wanted:
                return True
    return False
