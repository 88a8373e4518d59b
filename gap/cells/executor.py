"""Starting the workers: one process per device, or an array job on a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gap.cells.job_list import read_jobs
from gap.cells.plan import PlannedCell
from gap.cells.worker import print_now, remaining, work
from runtime.machine import usable_cores
from runtime.processes.liveness import end_with_parent
from runtime.processes.ranks import Ranks, without_launcher

WORKER = Path(__file__).with_name("worker.py")
GRACE_SECONDS = 10.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Slurm:
    """What to request from the cluster; every array task is one worker on one device."""

    workers: int = 4
    minutes: int = 240
    gpus: int = 1
    cpus: int = 4
    memory_gb: int = 16
    named: Mapping[str, str] = field(default_factory=dict)  # slurm_partition, slurm_account, slurm_qos, where given


def devices_of(max_parallel: int | None) -> list[str | None]:
    """One entry per visible GPU; without any, one per core (None), since small models gain less from threads."""
    if torch.cuda.is_available():
        asked = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names: list[str | None] = [*(asked or map(str, range(torch.cuda.device_count())))]
    else:
        names = [None] * usable_cores()
    return names[:max_parallel]


class Workers:
    """Worker processes, one per device, which import torch and then wait for the command to start or to exit.

    They exit when this process ends, however it ends, because the pipe that they read from is then closed.
    """

    def __init__(self, directory: Path, devices: Sequence[str | None]) -> None:
        self._devices = devices
        self._waiting = [_start(directory, device) for device in devices]
        self._begun: list[subprocess.Popen[bytes]] = []

    def __len__(self) -> int:
        return len(self._devices)

    def begin(self, number: int) -> None:
        """Start this many of them on the list, alongside this process; the others exit."""
        self._begun, unneeded = self._waiting[:number], self._waiting[number:]
        for worker, device in zip(self._begun, self._devices, strict=False):
            share = 1 + len(self._begun) if device is None else 1
            assert worker.stdin is not None
            with suppress(BrokenPipeError):  # it died while waiting: its exit code shows it
                worker.stdin.write(f"{share} {os.getpid()}\n".encode())
        _stop(unneeded)

    def wait(self) -> list[int]:
        """Wait for the workers that started; their exit codes."""
        return [worker.wait() for worker in self._begun]

    def stop(self) -> None:
        """End the workers that are still running or waiting."""
        _stop(self._waiting)


@contextmanager
def waiting_workers(directory: Path, devices: Sequence[str | None]) -> Iterator[Workers]:
    """Workers that import while the list is being made; all have ended when the block ends."""
    workers = Workers(directory, devices)
    try:
        yield workers
    finally:
        workers.stop()


def run_local(directory: Path, workers: Workers, *, say: Say = print_now) -> None:
    """Run the rest of the list in this process and in `workers`, at most as many as there are jobs.

    A worker that fails is reported, and the others take over its job.
    """
    left = remaining(read_jobs(directory), directory)
    number = max(0, min(len(workers), len(left) - 1))
    workers.begin(number)
    if left:
        work(directory, ranks=Ranks(local_world_size=1 + number), say=say)
    failed = [code for code in workers.wait() if code]
    if failed:
        say(f"{len(failed)} of {1 + number} workers failed (exit codes {failed}); the others finished their cells")


def worker_command(directory: Path, of_workers: int | None) -> list[str]:
    """The argument list that starts a worker, without a shell. None: it waits for the number of workers."""
    return [sys.executable, str(WORKER), str(directory), "wait" if of_workers is None else str(of_workers)]


def worker_environment(device: str | None) -> dict[str, str]:
    """This process's environment without the launcher's variables, with one GPU."""
    environment = without_launcher()
    return environment if device is None else {**environment, "CUDA_VISIBLE_DEVICES": device}


def submit_slurm(directory: Path, slurm: Slurm, *, executor: Any = None) -> list[str]:
    """Submit an array job whose tasks are workers on the same list; returns the ids of its tasks.

    `submitit` stores what it runs; here that is a command line, so that the list alone decides what runs. `executor`
    replaces submitit's default (its local and debug executors have the same methods). ValueError without submitit or
    SLURM.
    """
    try:
        import submitit
    except ImportError as error:
        raise ValueError("--executor slurm needs submitit: install it with the extra [slurm]") from error
    directory = directory.resolve()
    left = remaining(read_jobs(directory), directory)
    if not left:
        return []
    if executor is None:
        try:
            executor = submitit.AutoExecutor(folder=str(directory / "slurm"), cluster="slurm")
        except RuntimeError as error:
            raise ValueError(
                f"--executor slurm: {error} Submit from a machine that has sbatch, or use --executor local"
            ) from error
        executor.update_parameters(
            name="gap",
            timeout_min=slurm.minutes,
            cpus_per_task=slurm.cpus,
            mem_gb=slurm.memory_gb,
            slurm_array_parallelism=slurm.workers,
            **slurm.named,
            **({"gpus_per_node": slurm.gpus} if slurm.gpus else {}),
        )
    tasks = min(slurm.workers, sum(isinstance(job, PlannedCell) for job in left))
    command = submitit.helpers.CommandFunction(worker_command(directory, 1))
    # Where SLURM's configuration lies, and the user's own defaults, which would win over what the options name.
    own = [name for name in ("account", "partition", "qos") if f"slurm_{name}" not in slurm.named]
    wanted = ["SLURM_CONF", *(f"SBATCH_{name.upper()}" for name in own)]
    of_the_site = {name: os.environ[name] for name in wanted if name in os.environ}
    with submitit.helpers.clean_env():  # from inside a job too: without its variables
        os.environ.update(of_the_site)
        with executor.batch():
            jobs = [executor.submit(command) for _ in range(tasks)]
    return [str(job.job_id) for job in jobs]


def _start(directory: Path, device: str | None) -> subprocess.Popen[bytes]:
    environment = worker_environment(device)
    return subprocess.Popen(
        worker_command(directory, None),
        stdin=subprocess.PIPE,
        bufsize=0,
        env=environment,
        preexec_fn=partial(end_with_parent, os.getpid()),
    )


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the process if it still runs; the kernel frees its claims, and its cell runs again another time."""
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
        if worker.stdin is not None:
            worker.stdin.close()
    for worker in workers:
        try:
            worker.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
