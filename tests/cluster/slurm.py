"""A SLURM cluster on hosts of namespaces: munge and slurmd on each, slurmctld on the first."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.hosts import Host, Network, until

START_SECONDS = 60.0
GRACE_SECONDS = 90
# Two partitions over the same nodes: a job in `urgent` preempts those in `normal`, which are queued again. GraceTime is
# how long they have after SIGTERM.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={first}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmctldTimeout=300
SlurmdTimeout=300
KillWait=30
StateSaveLocation={folder}/state
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=normal Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Slurm:
    """A running cluster, as a user on its first host sees it."""

    hosts: Network
    login: Host
    configuration: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.configuration)}

    def run(self, *command: str, variables: Mapping[str, str] | None = None) -> str:
        return self.login.run(*command, variables={**self.variables, **(variables or {})})

    def submit(self, *arguments: str, folder: Path, variables: Mapping[str, str] | None = None) -> int:
        """The id of a job that sbatch submits from `folder`."""
        return int(self.run("env", f"--chdir={folder}", "sbatch", "--parsable", *arguments, variables=variables))

    def shown(self, job: int | str) -> Mapping[str, str]:
        """What `scontrol show job` says, by name; empty once SLURM has forgotten the job."""
        ended = subprocess.run(
            self.login.command(["scontrol", "show", "job", str(job)]),
            capture_output=True,
            text=True,
            env=dict(os.environ) | self.variables,
        )
        return dict(re.findall(r"(\w+)=(\S*)", ended.stdout)) if ended.returncode == 0 else {}

    def state(self, job: int | str) -> str:
        return self.shown(job).get("JobState", "")

    def wait(self, job: int | str, *states: str, seconds: float) -> Mapping[str, str]:
        """Wait until a job is in one of these states; what SLURM then says of it."""
        until(lambda: self.state(job) in states, f"job {job} {' or '.join(states)}: {self.shown(job)}", seconds=seconds)
        return self.shown(job)


@contextmanager
def slurm_cluster(folder: Path, hosts: Network) -> Iterator[Slurm]:
    """Start the daemons; they end with their hosts."""
    folder.mkdir(parents=True)
    names = [host.name for host in hosts]
    nodes = "\n".join(f"NodeName={host.name} NodeAddr={host.address} CPUs=4 RealMemory=16000" for host in hosts)
    configuration = folder / "slurm.conf"
    content = CONFIGURATION.format(first=names[0], folder=folder, nodes=nodes, grace=GRACE_SECONDS)
    configuration.write_text(content)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    variables = {"SLURM_CONF": str(configuration)}
    for host in hosts:
        host.run("mkdir", "-p", "/run/munge", "/run/slurmd")
        own = [f"--log-file={folder}/munged-{host.name}.log", f"--seed-file={folder}/seed-{host.name}"]
        host.run("munged", "--force", f"--key-file={key}", *own)
    login = hosts[names[0]]
    login.run("slurmctld", variables=variables)
    for host in hosts:
        host.run("slurmd", "-N", host.name, variables=variables)
    cluster = Slurm(hosts, login, configuration)

    def are_idle() -> bool:
        states = cluster.run("sinfo", "--noheader", "--Node", "--partition=normal", "--format=%T").split()
        return states == ["idle"] * len(names)

    until(are_idle, f"idle nodes (logs: {folder})", seconds=START_SECONDS)
    yield cluster
