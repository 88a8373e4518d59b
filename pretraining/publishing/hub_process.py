"""Pushing of a growing series beside its training: a process of its own, which the training never waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pretraining.checkpoints.series import SERIES_NAME
from pretraining.plan.options import PretrainingOptions
from pretraining.publishing.hub_series import HubPlace, worker_arguments
from runtime.hub import require_online
from runtime.hub_repository import NotPushed
from runtime.options.exit_status import DONE
from runtime.processes.failures import Failed
from runtime.processes.interruption import stopping_at_once
from runtime.processes.ranks import Ranks, without_launcher

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pretraining.publishing.hub_series import main; "
    "sys.exit(main(sys.argv[2:]))"
)
POLL_SECONDS = 0.2
Say = Callable[[str], None]


class SeriesPusher:
    """Pushes a run's series while it grows; for the main rank. Failures are said and never raised until `finish`."""

    def __init__(self, directory: Path, place: HubPlace, say: Say = print) -> None:
        self.directory, self.place, self.say = directory, place, say
        self.reason: str | None = None  # why the last push failed
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._again = False

    def check(self) -> None:
        """Make the repository. Before anything is exported ValueError where that is refused; else a warning."""
        try:
            require_online()
            self.place.opened()
        except (ValueError, NotPushed) as error:
            if isinstance(error, ValueError) and not (self.directory / SERIES_NAME).is_file():
                raise
            self.say(f"warning: {error}; training goes on, and every export tries again")

    def start(self) -> None:
        """Push what there is now; after the push that is running, if one is."""
        self.poll()
        if self._process is not None:
            self._again = True
            return
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        arguments = [str(ROOT), worker_arguments(self.directory, self.place, os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=without_launcher(),
            start_new_session=True,  # Ctrl-C at the terminal is the training's
        )

    def poll(self) -> None:
        """Say what a push that has ended did, and start the next if checkpoints were exported meanwhile."""
        if self._process is None or self._process.poll() is None:
            return
        assert self._output is not None
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").splitlines()
        status = self._process.returncode
        self._process = None
        self._output.close()
        for line in lines if status == DONE else ():
            self.say(line)
        self.reason = None
        if status != DONE:
            last = lines[-1].removeprefix("error: ") if lines else f"exit status {status}"
            self.reason = last
            self.say(f"warning: not pushed: {last}; training goes on")
        if self._again:
            self._again = False
            self.start()

    def finish(self) -> None:
        """Push what is missing and wait for it; Failed, with the remedy, if the hub still lacks a checkpoint."""
        with stopping_at_once():
            self.start()
            while self._process is not None:
                self.poll()
                time.sleep(POLL_SECONDS)
        if self.reason is not None:
            raise Failed(
                f"training is done and {self.directory / SERIES_NAME} is whole, but not all of it was pushed to "
                f"{self.place.repository}: {self.reason}. Run the same command again, or `launch/push.py "
                f"{self.directory} --hub_model_id {self.place.repository}`: only what is missing is pushed"
            )
        self.say(f"the series is on the hub: {self.place.repository}")

    def stop(self) -> None:
        """End a push that is running: a commit is there whole or not at all."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None


@contextmanager
def pushing(options: PretrainingOptions, ranks: Ranks) -> Iterator[SeriesPusher | None]:
    """The pusher of a run on its main rank, None elsewhere and without --push_to_hub; it ends with the block."""
    if not options.push_to_hub or not ranks.is_main:
        yield None
        return
    pusher = SeriesPusher(Path(options.output_dir), place_of(options))
    try:
        yield pusher
    finally:
        pusher.stop()


def place_of(options: PretrainingOptions) -> HubPlace:
    """The place that a run's options name."""
    return HubPlace(str(options.hub_model_id), options.hub_private_repo, options.hub_license, options.hub_language)
