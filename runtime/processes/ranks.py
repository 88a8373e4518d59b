"""Rank, local rank and world size of this process: the only module that reads the launcher's variables."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

from runtime import STARTED_BY
from runtime.machine import usable_cores
from runtime.processes.liveness import ending_with

if TYPE_CHECKING:  # imported where it is used: --help does not wait for it
    import torch

COLLECTIVE_TIMEOUT_SECONDS = 1800.0
GROUPS = count()  # process groups that this process has opened: on all ranks the same


@dataclass(frozen=True)
class Ranks:
    """`rank` of `world_size` in all, and `local_rank` of `local_world_size` on this machine."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def read_ranks() -> Ranks:
    """Read the variables that `torchrun` or `deepspeed` set; plain `python` is a world of one.

    Raises ValueError when the launcher's variables contradict each other.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    given = [name for name in names if name in os.environ]
    if not given:
        return Ranks()
    if len(given) < len(names):
        missing = sorted(set(names) - set(given))
        raise ValueError(f"{given} are set but {missing} are not: start with torchrun or deepspeed, or unset all three")
    try:
        rank, local_rank, world_size = (int(os.environ[name]) for name in names)
        # torchrun sets LOCAL_WORLD_SIZE, deepspeed sets LOCAL_SIZE.
        local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", world_size)))
    except ValueError as error:
        raise ValueError(f"RANK, LOCAL_RANK and WORLD_SIZE must be whole numbers ({error}): unset them") from error
    if not (0 <= rank < world_size and 0 <= local_rank < local_world_size):
        raise ValueError(
            f"rank {rank} of {world_size} (local {local_rank} of {local_world_size}) is out of range: "
            "unset RANK, LOCAL_RANK and WORLD_SIZE and start again with torchrun or deepspeed"
        )
    return Ranks(rank, local_rank, world_size, local_world_size)


def without_launcher() -> dict[str, str]:
    """This process's environment without the launcher's variables: for a child process with a world size of 1."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE")
    return {name: value for name, value in os.environ.items() if name not in names}


def free_port() -> int:
    """A TCP port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def choose_device(ranks: Ranks) -> torch.device:
    """The GPU of this local rank, or the CPU without GPUs; in both cases, threads for its share of the cores."""
    import torch

    # torchrun sets one thread for each rank and deepspeed sets nothing: both waste the machine.
    if ranks.world_size > 1 or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, usable_cores() // ranks.local_world_size))
    if torch.cuda.is_available():
        if ranks.local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"local rank {ranks.local_rank} has no GPU of its own; this machine has {torch.cuda.device_count()}: "
                "start at most one process per GPU"
            )
        device = torch.device("cuda", ranks.local_rank)
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def init_process_group(ranks: Ranks, device: torch.device, *, always: bool = False) -> None:
    """Open the process group (gloo on CPU tensors, nccl on GPU tensors); a world of one needs none unless `always`."""
    import torch.distributed as dist

    if dist.is_initialized() or (ranks.world_size == 1 and not always):
        return
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(free_port()))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        # A launcher that was killed takes the place where the ranks meet with it: they would wait for minutes.
        with ending_with(STARTED_BY if ranks.world_size > 1 else 0):
            timeout = timedelta(seconds=COLLECTIVE_TIMEOUT_SECONDS)
            store, _, _ = next(dist.rendezvous("env://", ranks.rank, ranks.world_size, timeout=timeout))
            # The launcher's store outlives a group: the next one must not read the addresses of the last.
            dist.init_process_group(
                backend,
                store=dist.PrefixStore(f"group {next(GROUPS)}", store),
                rank=ranks.rank,
                world_size=ranks.world_size,
                timeout=timeout,
                device_id=device if device.type == "cuda" else None,
            )
    except dist.DistNetworkError as error:
        port = os.environ.get("MASTER_PORT")
        raise ValueError(
            f"the ranks cannot meet at {os.environ.get('MASTER_ADDR')}:{port} ({error}): if another job holds the "
            f"port, start with --master_port {free_port()}"
        ) from error


def close_process_group() -> None:
    """Wait for the peers and leave together: a rank that leaves first makes the launcher report a failure."""
    if "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
