"""Hosts on one machine, made of namespaces: each has an address, a host name, an sshd and processes of its own.

Nothing outside the namespaces is changed: /etc/hosts and the ssh configuration are files of the test that only the
hosts see. A host lives as long as its first process, which ends with the test's process, however that ends; with it
end all processes of the host, its links and its mounts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from runtime.processes.liveness import end_with_parent

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = ("--net", "--uts", "--mount", "--pid")
PACKAGES = {  # command -> Debian package
    "ip": "iproute2",
    "hostname": "hostname",
    "pkill": "procps",
    "openssl": "openssl",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "pdsh": "pdsh",
    "munged": "munge",
    "sbatch": "slurm-client",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
}
# The first process of a host reaps what others leave.
WAIT = "\necho ready\nsleep infinity & wait\n"
SWITCH = "set -e\nip link add bridge type bridge\nip link set bridge up" + WAIT
HOST = (
    """\
set -e
hostname {name}
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/ssh_config /etc/ssh/ssh_config
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
test ! -d ~/.ssh || mount -t tmpfs tmpfs ~/.ssh
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip addr add {address}/24 dev eth0
ip link set eth0 up
/usr/sbin/sshd -f {folder}/sshd_config"""
    + WAIT
)
SSH_CONFIG = """\
Host *
    IdentityFile {folder}/key
    UserKnownHostsFile {folder}/known_hosts
    StrictHostKeyChecking yes
    BatchMode yes
"""
SSHD_CONFIG = """\
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PidFile none
"""


def missing_packages() -> list[str]:
    """Debian packages that the tests of this folder need and that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return sorted({package for command, package in PACKAGES.items() if shutil.which(command, path=path) is None})


@dataclass(frozen=True)
class Host:
    """A host: its name, its address, and its first process as this process sees it."""

    name: str
    address: str
    pid: int

    def command(self, command: Sequence[str], folder: Path = ROOT) -> list[str]:
        """The argument list that runs a command on this host, in `folder`."""
        shell = f"cd {shlex.quote(str(folder))} && exec {shlex.join(command)}"
        return ["nsenter", "--target", str(self.pid), *NAMESPACES, "--", "bash", "-c", shell]

    def start(
        self,
        command: Sequence[str],
        log: Path,
        *,
        folder: Path = ROOT,
        variables: Mapping[str, str] | None = None,
    ) -> Job:
        """Start a command on this host, its output added to `log`."""
        with log.open("a") as file:
            process = subprocess.Popen(
                self.command(command, folder),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment() | dict(variables or {}),
                preexec_fn=partial(end_with_parent, os.getpid()),
                start_new_session=True,
            )
        return Job(self, process, log)

    def run(self, *command: str, seconds: float = 60, variables: Mapping[str, str] | None = None) -> str:
        """Run a command on this host to its end; what it printed. AssertionError unless it ends with 0."""
        ended = subprocess.run(
            self.command(command),
            capture_output=True,
            text=True,
            timeout=seconds,
            env=environment() | dict(variables or {}),
        )
        printed = ended.stdout + ended.stderr
        assert ended.returncode == 0, f"{self.name}: {shlex.join(command)}: status {ended.returncode}\n{printed}"
        return ended.stdout

    def processes(self, word: str) -> list[str]:
        """Command lines of the host's processes that contain a word."""
        lines = self.run("ps", "-A", "-o", "args", "--no-headers").splitlines()
        return [line for line in lines if word in line]


@dataclass(frozen=True)
class Job:
    """A command that was started on a host."""

    host: Host
    process: subprocess.Popen[Any]
    log: Path

    def wait(self, seconds: float) -> int:
        """Its exit status; AssertionError with the end of its output if it takes longer."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.host.name} still runs after {seconds:.0f} s:\n{self.printed()}") from None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command itself, not to what it has started."""
        os.kill(child_of(self.process.pid), number)

    def printed(self, characters: int = 6000) -> str:
        return self.log.read_text(errors="replace")[-characters:]


class Network:
    """Hosts on one switch."""

    def __init__(self, hosts: Mapping[str, Host], switch: int) -> None:
        self._hosts, self._switch = hosts, switch

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def cut_off(self, name: str) -> None:
        """Take a host off the network: its packets get lost, and nobody is told."""
        subprocess.run(
            ["nsenter", "--target", str(self._switch), "--net", "ip", "link", "set", name, "down"], check=True
        )


@contextmanager
def network(folder: Path, names: Sequence[str]) -> Iterator[Network]:
    """Hosts with these names, which reach each other by name, also over ssh as root without a password."""
    addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
    write_configuration(folder, addresses)
    started: list[subprocess.Popen[str]] = []
    try:
        started.append(switch := new_namespaces(SWITCH))
        expect_ready(switch)
        switch_pid = child_of(switch.pid)
        hosts = {}
        for name, address in addresses.items():
            started.append(process := new_namespaces(HOST.format(name=name, address=address, folder=folder)))
            pid = child_of(process.pid)
            for command in (
                f"ip link add {name} type veth peer name eth0 netns {pid}",
                f"ip link set {name} master bridge up",
            ):
                subprocess.run(["nsenter", "--target", str(switch_pid), "--net", *command.split()], check=True)
            expect_ready(process)
            hosts[name] = Host(name, address, pid)
        yield Network(hosts, switch_pid)
    finally:
        for process in started:
            process.kill()  # and the kernel all others of its namespaces
        for process in started:
            process.wait()


def write_configuration(folder: Path, addresses: Mapping[str, str]) -> None:
    """The files that the hosts share: names, keys, and both ends of ssh."""
    folder.mkdir(parents=True)
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    public = (folder / "host_key.pub").read_text()
    known = [f"{name},{address} {public}" for name, address in addresses.items()]
    lines = [f"{address} {name}\n" for name, address in addresses.items()]
    (folder / "known_hosts").write_text("".join(known))
    (folder / "hosts").write_text("".join(["127.0.0.1 localhost\n", *lines]))
    (folder / "ssh_config").write_text(SSH_CONFIG.format(folder=folder))
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder))


def new_namespaces(script: str) -> subprocess.Popen[str]:
    """Run a script as the first process of new namespaces, which end with this process."""
    return subprocess.Popen(
        ["unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--", "bash", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(end_with_parent, os.getpid()),
    )


def expect_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", f"a host could not be made (are you root?): {line!r}, {process.args}"


def child_of(pid: int) -> int:
    """The only child of a process, once it is there."""

    def child() -> int:
        printed = subprocess.run(["pgrep", "--parent", str(pid)], capture_output=True, text=True).stdout.split()
        return int(printed[0]) if printed else 0

    return int(until(child, f"child of process {pid}", seconds=10))


def environment() -> dict[str, str]:
    """This process' environment as a user's who has activated the virtual environment; no GPU, no launcher."""
    launchers = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_CONF")
    kept = {name: value for name, value in os.environ.items() if name not in launchers}
    path = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}:/usr/sbin:/sbin"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def until(condition: Callable[[], Any], what: str, *, seconds: float) -> Any:
    """Wait until `condition()` is true; its value. AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s"
        time.sleep(0.2)
    return value
