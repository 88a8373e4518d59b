"""Pretraining over three hosts: with DeepSpeed's hostfile over ssh and with torchrun's rendezvous; a host is cut off."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pretraining_runs as runs
import pytest

from tests.cluster.conftest import NAMES, OPTIONS
from tests.cluster.hosts import ROOT, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
SECONDS = 300
HANG_SECONDS = 20
# After the watchdog: the stacks, and the launchers' ends. ssh gives up a lost host after 15 s.
MARGIN_SECONDS = 60
KEEPALIVE = {"PDSH_SSH_ARGS_APPEND": "-o ServerAliveInterval=5 -o ServerAliveCountMax=3"}
ZERO2 = {"deepspeed": ROOT / "ds_configs" / "zero2.json"}
ENGINES = ("deepspeed", "torchrun")


def start(hosts, engine, shards, output, options, *, names=NAMES, variables=None):
    """Start the launcher on the first host (DeepSpeed), or one on each (torchrun)."""
    log = runs.log_of(output)
    if engine == "deepspeed":
        hostfile = output.with_name("hostfile")
        hostfile.write_text("".join(f"{name} slots=1\n" for name in names))
        script = ["launch/pretrain.py", *runs.arguments(shards, output, {**options, **ZERO2})]
        command = ["deepspeed", "--hostfile", str(hostfile), *script]
        return [hosts[names[0]].start(command, log, variables=KEEPALIVE | (variables or {}))]
    script = ["launch/pretrain.py", *runs.arguments(shards, output, options)]
    meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"{names[0]}:29500", "--rdzv_id", "run"]
    command = ["torchrun", "--nnodes", str(len(names)), "--nproc_per_node", "1", *meeting, *script]
    return [hosts[name].start(command, log.with_suffix(f".{name}"), variables=variables) for name in names]


def printed(jobs):
    return "\n".join(job.printed() for job in jobs)


def finish(jobs):
    for job in jobs:
        assert job.wait(SECONDS) == 0, printed(jobs)


def largest_difference(left: Path, right: Path) -> float:
    """Between the losses of two runs, which did the same updates on the same rows; AssertionError above 1e-5."""
    runs.assert_same_course(left, right)
    return max(abs(one[3] - two[3]) for one, two in zip(runs.course(left), runs.course(right), strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_three_hosts_have_the_losses_of_one(hosts, shards, whole, tmp_path, note, engine):
    output = tmp_path / "run"
    jobs = start(hosts, engine, shards, output, OPTIONS)
    until(lambda: len(runs.journal(output)) > 2 or jobs[0].process.poll() is not None, "updates", seconds=SECONDS)
    ranks = [len(host.processes("launch/pretrain.py --local_rank" if engine == "deepspeed" else "-u launch/pretrain.py"))
             for host in hosts]
    finish(jobs)
    assert {line["world_size"] for line in runs.journal(output)} == {3}
    assert ranks == [1, 1, 1]
    difference = largest_difference(whole, output)
    runs.same_series(whole, output)
    note(f"{engine}: {', '.join(f'{host.name} {host.address}' for host in hosts)}; world size 3; "
         f"{len(runs.journal(output))} updates; largest difference of losses to one host {difference:.1e}")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_host_that_is_cut_off_ends_the_run_and_two_hosts_resume(hosts, shards, whole, tmp_path, note, engine):
    output = tmp_path / "run"
    options = {**OPTIONS, "hang_timeout_seconds": HANG_SECONDS}
    # The last host waits before its eleventh update until it is off the network.
    variables = {"FAULT_POINT": "update.before:11:hang", "FAULT_RANK": "2"}
    jobs = start(hosts, engine, shards, output, options, variables=variables)
    until(lambda: len(runs.journal(output)) >= 8, "updates", seconds=SECONDS)
    hosts.cut_off("node3")
    cut = time.monotonic()
    left = [job for job in jobs if job.host.name != "node3"]
    for job in left:
        assert job.wait(HANG_SECONDS + MARGIN_SECONDS) != 0
    seconds = time.monotonic() - cut
    assert not any(hosts[name].processes("launch/pretrain.py") for name in ("node1", "node2"))
    done = len(runs.journal(output))
    jobs = start(hosts, engine, shards, output, options, names=("node1", "node2"))
    finish(jobs)
    assert "resuming from" in printed(jobs)
    assert [line["world_size"] for line in runs.journal(output)][-1] == 2
    difference = largest_difference(whole, output)
    note(f"{engine}: node3 cut off after update {done}; the others ended within {seconds:.0f} s "
         f"(--hang_timeout_seconds {HANG_SECONDS}); resumed with world size 2; "
         f"largest difference of losses to one host {difference:.1e}")
