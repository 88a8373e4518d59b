"""How a recipe's command ends: finished, refused, failed, or interrupted and to be run again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from finetuning.loop.stopping import Asked, FinetuningInterrupted, noting_signals
from runtime.files.whole_files import write_json
from runtime.machine import is_out_of_memory
from runtime.processes.collectives import PeerFailed
from runtime.processes.interruption import EXIT_CODE, MARKER_NAME, Interrupted
from runtime.processes.ranks import close_process_group, read_ranks


def guarded(run: Callable[[Asked], int], directory: Path) -> int:
    """The exit status of a command that writes to `directory`.

    A ValueError is the user's to mend, and becomes a message and status 2; a disk that is full or a peer that failed
    ends with status 1. Asked to stop: status 75 once all is saved, and a marker file for job scripts.
    """
    try:
        is_main = read_ranks().is_main
        if is_main:
            (directory / MARKER_NAME).unlink(missing_ok=True)
        with noting_signals() as asked:
            return run(asked)
    except Interrupted as interruption:
        if is_main:
            _write_marker(directory, interruption)
            print(f"interrupted ({interruption}) and saved: run the same command again to go on", file=sys.stderr)
        close_process_group()
        return EXIT_CODE
    except (OSError, PeerFailed) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        told = (str(error) or "no more to be had").splitlines()[0]
        print(
            f"error: out of memory ({told}): lower --per_device_train_batch_size (the global "
            "batch and the result stay the same), --per_device_eval_batch_size or --max_seq_length",
            file=sys.stderr,
            flush=True,
        )
        return 2


def _write_marker(directory: Path, interruption: Interrupted) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    place = {"updates": 0, "total_updates": 0}
    if isinstance(interruption, FinetuningInterrupted):
        place = {"updates": interruption.updates, "total_updates": interruption.total_updates}
    write_json(directory / MARKER_NAME, {"reason": str(interruption), "progress": place})
