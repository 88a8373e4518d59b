"""What the launchers say about ranks, and where the ranks meet."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from runtime.processes.ranks import Ranks, choose_device, free_port, init_process_group, read_ranks


def launched(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def test_plain_python_is_a_world_of_one():
    assert read_ranks() == Ranks(0, 0, 1, 1)
    assert read_ranks().is_main


@pytest.mark.parametrize("local_size", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"])
def test_both_launchers_are_understood(monkeypatch, local_size):
    launched(monkeypatch, RANK=5, LOCAL_RANK=1, WORLD_SIZE=8, **{local_size: 4})
    assert read_ranks() == Ranks(5, 1, 8, 4)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": 0},
        {"RANK": 2, "LOCAL_RANK": 0, "WORLD_SIZE": 2},
        {"RANK": 1, "LOCAL_RANK": 4, "WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 4},
        {"RANK": "one", "LOCAL_RANK": 0, "WORLD_SIZE": 2},
    ],
)
def test_variables_that_contradict_each_other_are_refused(monkeypatch, variables):
    launched(monkeypatch, **variables)
    with pytest.raises(ValueError, match="RANK"):
        read_ranks()


@pytest.mark.parametrize("has_gpu", [False, True])
def test_threads_are_cores_divided_by_local_ranks(monkeypatch, has_gpu):
    given = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 16)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    for local_world_size in (1, 3, 8, 16):
        choose_device(Ranks(0, 0, local_world_size, local_world_size))
    assert given == [8, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the user's own number counts where no launcher set it
    choose_device(Ranks())
    assert given == [8, 2, 1, 1]


def test_a_rank_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="at most one process per GPU"):
        choose_device(Ranks(1, 1, 2, 2))


def test_a_port_in_use_is_named_with_another_that_is_free(monkeypatch):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        launched(monkeypatch, RANK=0, LOCAL_RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        with pytest.raises(ValueError, match=rf"{port}.*--master_port \d+"):
            init_process_group(Ranks(0, 0, 2, 2), torch.device("cpu"))
    assert not dist.is_initialized()


def test_a_free_port_can_be_bound():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", ("gloo", None)), ("cuda:1", ("cpu:gloo,cuda:nccl", torch.device("cuda", 1)))],
)
def test_decisions_go_over_the_cpu_and_tensors_over_the_gpu(monkeypatch, device, expected):
    asked = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **more: asked.append((backend, more)))
    meeting = iter([(dist.HashStore(), 1, 2)])
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *given, **named: meeting)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    init_process_group(Ranks(1, 1, 2, 2), torch.device(device))
    [(backend, more)] = asked
    assert (backend, more["device_id"]) == expected
    assert (more["rank"], more["world_size"]) == (1, 2)


@pytest.mark.slow
def test_a_group_is_opened_again_while_a_peer_is_late(tmp_path):
    """The launcher's store keeps what the first group wrote: the early rank connected to addresses that were gone."""
    script = tmp_path / "reopen.py"
    script.write_text(
        "import time, torch\n"
        "from runtime.processes.collectives import broadcast_json\n"
        "from runtime.processes.ranks import close_process_group, init_process_group, read_ranks\n"
        "ranks = read_ranks()\n"
        "for number in range(3):\n"
        "    time.sleep(2.0 * (ranks.is_main and number > 0))\n"
        "    init_process_group(ranks, torch.device('cpu'))\n"
        "    assert broadcast_json([number, ranks.rank]) == [number, 0]\n"
        "    close_process_group()\n"
    )
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
