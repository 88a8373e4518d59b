"""What a function of ours that is called from Python changes in its process, put back when it returns or raises.

A command ends with its process; a notebook or a script goes on, and what it does next must not depend on what it has
called: how many threads torch has, where its random numbers are, which variables are set, what is logged.

Nothing is loaded before the environment and the warnings are noted: to import torch sets variables, to import scipy
filters of warnings.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from runtime.processes.interruption import disarm_watchdog
from runtime.processes.ranks import Ranks, close_process_group
from runtime.verbosity import NOISY_LOGGERS

PutBack = Callable[[], None]


class LeftOpen:
    """The process group that an earlier call of this process has opened and, because it failed, not closed."""

    group: Any = None


class FoundCompiler:
    """The compiler's settings before this process first changed them: those of a block that began without it."""

    settings: tuple[bool, int] | None = None


def remember_compiler() -> None:
    """Called before the settings of torch's compiler are changed: to import it takes seconds, so no block does."""
    if FoundCompiler.settings is None:
        FoundCompiler.settings = compiler_settings()


def compiler_settings() -> tuple[bool, int]:
    import torch._dynamo.config as compiler

    return compiler.suppress_errors, compiler.cache_size_limit


@contextmanager
def restoring_process(function: str, ranks: Ranks) -> Iterator[None]:
    """Put back what the block changes: environment, torch's settings, random states, logging, warnings, the watchdog.

    What the block needs is imported in it. A process group that it opens is closed with it. After an exception it stays
    open on several ranks, where the others may wait in it: the launcher ends them all, or the next call of this process
    goes on with it. Raises ValueError for a group that another part of the program has open: `function` opens its own,
    with its own backends.
    """
    refuse_foreign_group(function)
    if "runtime.model_places" in sys.modules:
        sys.modules["runtime.model_places"].forget_places()
    with ExitStack() as undoing, warnings.catch_warnings():
        for put_back in (of_environment(), of_random_states(), of_torch(), of_logging(), disarm_watchdog):
            undoing.callback(put_back)
        try:
            yield
        except BaseException:
            leave_process_group(ranks)
            raise
        close_process_group()


def refuse_foreign_group(function: str) -> None:
    """ValueError if a process group is open that no call of ours has left open."""
    if "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if dist.is_initialized() and dist.group.WORLD is not LeftOpen.group:
        raise ValueError(
            f"{function}() opens a process group of its own, and this program has one open: call {function}() before "
            "init_process_group, or after destroy_process_group"
        )


def leave_process_group(ranks: Ranks) -> None:
    """After an exception: close the group of a world of one, where nobody waits; remember any other."""
    import torch.distributed as dist

    if dist.is_initialized() and ranks.world_size == 1:
        dist.destroy_process_group()
    LeftOpen.group = dist.group.WORLD


def of_environment() -> PutBack:
    """The environment variables, each that has changed."""
    before = dict(os.environ)

    def put_back() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})

    return put_back


def of_random_states() -> PutBack:
    """Where the generators of Python, numpy and torch (on every device) are.

    Those of devices that only the block puts to use are put where torch would have begun them: at its initial seed.
    """
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed, on_devices = torch.initial_seed(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def put_back() -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_devices:
            torch.cuda.set_rng_state_all(on_devices)
        elif torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)

    return put_back


def of_torch() -> PutBack:
    """The number of threads, the current device, and the settings of the compiler that `Compilation` makes."""
    import torch

    of_compiler = compiler_settings() if "torch._dynamo.config" in sys.modules else None
    threads = torch.get_num_threads()
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def put_back() -> None:
        torch.set_num_threads(threads)
        if (settings := of_compiler or FoundCompiler.settings) is not None:
            import torch._dynamo.config as compiler

            compiler.suppress_errors, compiler.cache_size_limit = settings
        if device is not None:
            torch.cuda.set_device(device)

    return put_back


def of_logging() -> PutBack:
    """The levels that `quiet_libraries` sets, and the bars of transformers."""
    from transformers.utils import logging as of_transformers

    levels = {name: logging.getLogger(name).level for name in NOISY_LOGGERS}
    level, bars = of_transformers.get_verbosity(), of_transformers.is_progress_bar_enabled()

    def put_back() -> None:
        for name, number in levels.items():
            logging.getLogger(name).setLevel(number)
        of_transformers.set_verbosity(level)
        (of_transformers.enable_progress_bar if bars else of_transformers.disable_progress_bar)()

    return put_back
