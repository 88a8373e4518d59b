"""Fault injection for tests: named places where the environment variable FAULT_POINT makes a run die, fail or hang.

`FAULT_POINT=checkpoint.before_rename:2:kill` kills the process with SIGKILL the second time it passes that place;
`fail` raises OSError "no space left", `oom` an allocation error, `hang` sleeps, `pause` stops it until SIGCONT,
`terminate` sends itself SIGTERM, `nan` answers True that time, `nan_on` from then on.
`FAULT_RANK=1` restricts it to one rank. Without the variable a fault point costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter

_specification = os.environ.get("FAULT_POINT", "")
_passed: Counter[str] = Counter()

ACTIONS = ("kill", "fail", "hang", "pause", "terminate", "oom", "nan", "nan_on")


def fault_point(name: str, *, rank: int = 0) -> bool:
    """Inject the fault that the environment sets for this place; True only for `nan` and `nan_on`."""
    if not _specification:
        return False
    wanted, count, action = _specification.split(":")
    if action not in ACTIONS:
        raise ValueError(f"FAULT_POINT action {action!r} is unknown: use one of {', '.join(ACTIONS)}")
    if wanted != name or rank != int(os.environ.get("FAULT_RANK", rank)):
        return False
    _passed[name] += 1
    if action == "nan_on":
        return _passed[name] >= int(count)
    if _passed[name] != int(count):
        return False
    if action == "nan":
        return True
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "fail":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    elif action == "oom":
        raise RuntimeError(f"{name}: DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    elif action == "hang":
        time.sleep(3600)
    elif action == "pause":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    return False
