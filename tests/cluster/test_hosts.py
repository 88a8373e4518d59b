"""Pretraining over three hosts, with DeepSpeed's hostfile over ssh and with torchrun's rendezvous; one is cut off."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pretraining_runs as runs
import pytest

from tests.cluster.conftest import NAMES, OPTIONS, largest_difference
from tests.cluster.hosts import ROOT, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
SECONDS = 300
PAUSED_UPDATE = 11
HANG_SECONDS = 20
# After the watchdog: the stacks, and the launchers' ends. ssh gives up a lost host after 15 s.
MARGIN_SECONDS = 60
KEEPALIVE = {"PDSH_SSH_ARGS_APPEND": "-o ServerAliveInterval=5 -o ServerAliveCountMax=3"}
ZERO2 = {"deepspeed": ROOT / "ds_configs" / "zero2.json"}
SERVER = """\
import sys, threading
from pathlib import Path
from servers.tls_server import tls_server
with tls_server(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]) as served:
    print(served.address, flush=True)
    threading.Event().wait()
"""
ENGINES = ("deepspeed", "torchrun")


def start(hosts, engine, shards, output, options, *, names=NAMES, pausing=None, variables=None):
    """Start the launcher on the first host (DeepSpeed), or one on each (torchrun).

    `pausing`: the host whose rank stops itself before an update until it gets SIGCONT. `variables`: for torchrun, of
    each host.
    """
    log, fault = runs.log_of(output), {"FAULT_POINT": f"update.before:{PAUSED_UPDATE}:pause"} if pausing else {}
    if engine == "deepspeed":
        (hostfile := output.with_name("hostfile")).write_text("".join(f"{name} slots=1\n" for name in names))
        # What the launcher takes to the other hosts, beside the variables that it knows.
        (exported := output.with_name("environment")).write_text(
            "".join(f"{name}={value}\n" for name, value in fault.items())
        )
        own = {**KEEPALIVE, "DS_ENV_FILE": str(exported)}
        if pausing:
            exported.write_text(exported.read_text() + f"FAULT_RANK={names.index(pausing)}\n")
        script = ["launch/pretrain.py", *runs.arguments(shards, output, {**options, **ZERO2})]
        command = ["deepspeed", "--hostfile", str(hostfile), *script]
        return [hosts[names[0]].start(command, log, variables=own)]
    script = ["launch/pretrain.py", *runs.arguments(shards, output, options)]
    meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"{names[0]}:29500", "--rdzv_id", "run"]
    command = ["torchrun", "--nnodes", str(len(names)), "--nproc_per_node", "1", *meeting, *script]
    own = {name: {**(variables or {}).get(name, {}), **(fault if name == pausing else {})} for name in names}
    return [hosts[name].start(command, log.with_suffix(f".{name}"), variables=own[name]) for name in names]


def printed(jobs):
    return "\n".join(job.printed() for job in jobs)


def finish(jobs):
    for job in jobs:
        assert job.wait(SECONDS) == 0, printed(jobs)


def ranks(host):
    """The states and command lines of a host's ranks."""
    lines = host.run("ps", "-A", "-o", "stat,args", "--no-headers").splitlines()
    return [line for line in lines if "-u launch/pretrain.py" in line and "deepspeed.launcher" not in line]


def addresses(hosts):
    return ", ".join(f"{host.name} {host.address}" for host in hosts)


@pytest.mark.parametrize("engine", ENGINES)
def test_three_hosts_have_the_losses_of_one(hosts, shards, whole, tmp_path, note, engine):
    output = tmp_path / "run"
    jobs = start(hosts, engine, shards, output, OPTIONS)
    until(lambda: runs.journal(output) or jobs[0].process.poll() is not None, "updates", seconds=SECONDS)
    counts = [len(ranks(host)) for host in hosts]
    finish(jobs)
    assert counts == [1, 1, 1]
    assert {line["world_size"] for line in runs.journal(output)} == {3}
    difference = largest_difference(whole, output)
    runs.same_series(whole, output)
    note(
        f"{engine}: {addresses(hosts)}; world size 3; {len(runs.journal(output))} updates; largest difference of "
        f"losses to one host {difference:.1e}"
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_host_that_is_cut_off_ends_the_run_and_two_hosts_resume(hosts, shards, whole, tmp_path, note, engine):
    output = tmp_path / "run"
    options = {**OPTIONS, "hang_timeout_seconds": HANG_SECONDS}
    jobs = start(hosts, engine, shards, output, options, pausing="node3")
    until(lambda: any(line.startswith("T") for line in ranks(hosts["node3"])), "paused rank", seconds=SECONDS)
    hosts.cut_off("node3")
    cut = time.monotonic()
    hosts["node3"].run("pkill", "-CONT", "-f", "launch/pretrain.py")
    left = [job for job in jobs if job.host.name != "node3"]
    for job in left:
        assert job.wait(HANG_SECONDS + MARGIN_SECONDS) != 0
    until(lambda: not (ranks(hosts["node1"]) + ranks(hosts["node2"])), "end of the other hosts' ranks", seconds=30)
    seconds, done = time.monotonic() - cut, len(runs.journal(output))
    assert 0 < done < len(runs.journal(whole))
    jobs = start(hosts, engine, shards, output, options, names=("node1", "node2"))
    finish(jobs)
    assert "resuming from" in printed(jobs)
    assert runs.journal(output)[-1]["world_size"] == 2
    difference = largest_difference(whole, output)
    runs.same_series(whole, output)
    note(
        f"{engine}: {addresses(hosts)}; node3 cut off after update {done}, the others ended within {seconds:.0f} s "
        f"(--hang_timeout_seconds {HANG_SECONDS}); resumed with world size 2; largest difference of losses to one host "
        f"{difference:.1e}"
    )


def test_two_hosts_read_shards_from_a_third_over_https(hosts, shards, whole, tmp_path, note):
    """Each host fetches and keeps the shards for itself."""
    log = tmp_path / "server.log"
    command = [sys.executable, "-c", SERVER, str(shards), str(tmp_path), hosts["node3"].address]
    hosts["node3"].start(command, log, variables={"PYTHONPATH": str(ROOT / "tests" / "support")})
    address = until(lambda: log.read_text().strip(), "server", seconds=60)
    trusting = {"SSL_CERT_FILE": str(tmp_path / "certificate.pem")}
    caches = {name: {"XDG_CACHE_HOME": str(tmp_path / f"cache-{name}"), **trusting} for name in NAMES[:2]}
    output = tmp_path / "run"
    jobs = start(hosts, "torchrun", address, output, OPTIONS, names=NAMES[:2], variables=caches)
    finish(jobs)
    fetched = [len(list((tmp_path / f"cache-{name}").rglob("*.tar"))) for name in NAMES[:2]]
    assert fetched == [len(list(shards.glob("*.tar")))] * 2
    difference = largest_difference(whole, output)
    note(
        f"torchrun: node1, node2 with shards from {address} (node3), {fetched[0]} fetched by each; world size 2; "
        f"largest difference of losses to one host {difference:.1e}"
    )


def test_ctrl_c_of_the_launcher_over_ssh_saves_on_all_hosts(hosts, shards, whole, tmp_path, note):
    output = tmp_path / "run"
    [job] = start(hosts, "deepspeed", shards, output, {**OPTIONS, "budget_tokens": 2_000_000, "series": 0})
    until(lambda: len(runs.journal(output)) > 3, "updates", seconds=SECONDS)
    job.send(signal.SIGINT)
    assert job.wait(60) != 0
    until(lambda: not any(ranks(host) for host in hosts), "end of the ranks", seconds=60)
    saved = json.loads((output / "INTERRUPTED.json").read_text())
    assert runs.journal(output)[-1]["update"] == saved["progress"]["updates"]
    note(f"deepspeed: Ctrl-C on node1, all three hosts saved after update {saved['progress']['updates']} and ended")


def test_hosts_end_with_the_process_that_made_them(machine, tmp_path, note):
    """Killed, it can tidy nothing up; the kernel does. What the machine had is as it was."""
    script = (
        "import sys, time; from pathlib import Path; from tests.cluster.hosts import network\n"
        "with network(Path(sys.argv[1]), ['node1', 'node2']): print('up', flush=True); time.sleep(600)"
    )
    before = of_the_machine()
    maker = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "network")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout.readline() == "up\n"
    assert len(mentioning(tmp_path)) >= 5  # its own, and of each host the first process and the sshd
    maker.kill()
    maker.wait()
    until(lambda: not mentioning(tmp_path), "end of the hosts", seconds=10)
    assert of_the_machine() == before
    note("the process that made two hosts was killed: no process, link or mount is left")


def of_the_machine():
    files = ("/etc/hosts", "/etc/ssh/ssh_config", "/proc/net/dev", "/proc/mounts")
    contents = [Path(file).read_text() for file in files]
    contents[2] = "".join(line.partition(":")[0] for line in contents[2].splitlines())  # names without counters
    return contents


def mentioning(folder):
    """Processes that name a folder in their command line."""
    found = subprocess.run(["pgrep", "--full", "--list-full", str(folder)], capture_output=True, text=True)
    return found.stdout.splitlines()
