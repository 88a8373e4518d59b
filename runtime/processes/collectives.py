"""Small CPU collectives for decisions that all ranks must share; without a process group they are no-ops."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from runtime.processes.failures import Failed, is_user_error
from runtime.processes.ranks import Ranks


class PeerFailed(Failed):
    """Another rank could not do its part."""


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def broadcast_json(value: Any) -> Any:
    """Rank 0's value, on every rank; it must be JSON."""
    if not is_distributed():
        return value
    is_main = dist.get_rank() == 0
    content = json.dumps(value).encode() if is_main else b""
    size = torch.tensor([len(content)], dtype=torch.int64)
    dist.broadcast(size, src=0)
    data = torch.frombuffer(bytearray(content or bytes(int(size))), dtype=torch.uint8).clone()
    dist.broadcast(data, src=0)
    return json.loads(bytes(data.numpy().tobytes()))


def gather_json(value: Any) -> list[Any]:
    """The values of all ranks, in rank order, on every rank; they must be JSON."""
    if not is_distributed():
        return [value]
    content = json.dumps(value).encode()
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(content)], dtype=torch.int64))
    longest = max(int(size) for size in sizes)
    padded = torch.frombuffer(bytearray(content.ljust(longest, b" ")), dtype=torch.uint8).clone()
    received = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
    dist.all_gather(received, padded)
    return [json.loads(bytes(data.numpy().tobytes())) for data in received]


def largest(values: list[float]) -> list[float]:
    """Elementwise maximum over the ranks."""
    if not is_distributed():
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.tolist()


def fail_together(error: BaseException | None, doing: str) -> None:
    """Raise on every rank when one rank failed: its own error there, and on the others one that names it.

    An error that the user has to fix is a ValueError on the others too (same exit status), any other a PeerFailed.
    """
    failures = gather_json(None if error is None else [is_user_error(error), f"{error}"])
    if error is not None:
        raise error
    for rank, failure in enumerate(failures):
        if failure is not None:
            by_user, message = failure
            kind = ValueError if by_user else PeerFailed
            raise kind(f"rank {rank} failed while {doing}: {message}")


def on_main(work: Callable[[], Any], ranks: Ranks, doing: str) -> Any:
    """Run `work` on the main rank; return its result, or raise its ValueError or OSError, on every rank."""
    result, error = None, None
    if ranks.is_main:
        try:
            result = work()
        except (ValueError, OSError) as caught:
            error = caught
    fail_together(error, doing)
    return broadcast_json(result)


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Elementwise sum over the ranks, on the tensor's device, in place; nothing waits for the host."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def barrier() -> None:
    if is_distributed():
        dist.barrier()
