"""The exit status of a command: the single map from exceptions to statuses, documented in docs/exit-status.md."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runtime.files.foreign import printable
from runtime.files.whole_files import write_json
from runtime.machine import is_out_of_memory
from runtime.processes.failures import Failed, Refused, is_user_error
from runtime.processes.interruption import (
    EXIT_CODE,
    MARKER_NAME,
    Interrupted,
    disarm_watchdog,
    forget_interruption,
)
from runtime.processes.ranks import close_process_group, read_ranks

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, EXIT_CODE

ANOTHER_PATH = "name a file or directory that exists, is of the right kind, and that you may use"
MENDED = "check the disk (space, quota, health) or the network, then run the same command again"


def run_command(work: Callable[[], int], *, memory_remedy: str, output_dir: Path | str | None = None) -> int:
    """Run a command; returns its exit status: that of `work`, or the one for its exception, which goes to stderr.

    `memory_remedy` is what to lower when the memory was full. With `output_dir` an interrupted command leaves
    INTERRUPTED.json there for job scripts, and the next start removes it; None: the command does that itself. Any
    exception not handled below is a bug in this project and propagates: a traceback, and status 1.
    """
    try:
        return _work_or_interrupted(work, None if output_dir is None else Path(output_dir) / MARKER_NAME)
    except Refused:
        return REFUSED
    except Failed as error:
        return _say(f"error: {error}", FAILED)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if is_user_error(error):
            return _say(f"error: {error}" + (f": {ANOTHER_PATH}" if isinstance(error, OSError) else ""), REFUSED)
        if is_out_of_memory(error):
            reason = (str(error) or "no more available").splitlines()[0]
            return _say(f"error: out of memory ({reason}): {memory_remedy}", FAILED)
        if not isinstance(error, OSError):
            raise
        # An OSError without an errno was raised by our code or a library, and its text says what to do.
        return _say(f"error: {error}" + ("" if error.errno is None else f": {MENDED}"), FAILED)
    finally:
        disarm_watchdog()


def _work_or_interrupted(work: Callable[[], int], marker: Path | None) -> int:
    is_main = read_ranks().is_main
    if marker is not None:
        forget_interruption(marker.parent)
    try:
        return work()
    except Interrupted as interruption:
        if is_main and marker is not None:
            marker.parent.mkdir(parents=True, exist_ok=True)
            write_json(marker, {"reason": str(interruption), "progress": interruption.progress})
        if is_main:
            _say(f"interrupted ({interruption}) and saved: run the same command again to continue", INTERRUPTED)
        if interruption.together:  # after the marker: a launcher kills the other ranks once one has ended
            close_process_group()
        return INTERRUPTED


def _say(text: str, status: int) -> int:
    with suppress(OSError):  # the terminal is gone: the exit status still tells
        print(printable(text), file=sys.stderr, flush=True)
    return status
