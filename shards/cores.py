"""How many cores there are to use."""

import os


def usable_cores() -> int:
    """Cores this process may run on; on a SLURM cluster that binds none, those its task was given."""
    # Not every system tells which cores a process may run on.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(given)) if given.isdecimal() and int(given) else cores
