"""Fixtures of every test: one thread, no network, no stray launcher variables, and the folder of the real data."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[1]
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

# Before torch, tokenizers or datasets are imported: each reads these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
for offline_switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[offline_switch] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis without deadlines (shared machines are slow by turns) and with the same examples every time."""
    from hypothesis import settings

    settings.register_profile("project", deadline=None, derandomize=True, max_examples=50, database=None)
    settings.load_profile("project")


@pytest.fixture(autouse=True)
def _no_network_and_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that leave this machine and forget the variables of a launcher around pytest."""
    connect = socket.socket.connect

    def connect_to_this_machine(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if host not in ("", "localhost", "::1", "0.0.0.0") and not str(host).startswith("127."):  # noqa: S104
            raise OSError(f"tests do not use the network: connection to {address!r} refused")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_to_this_machine)
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder that holds shards/, pretraining/ and the rest."""
    return PROJECT_ROOT


@pytest.fixture
def tiny_small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory in which the embedded default is a small world of 300 documents."""
    from pretraining.loop import training_data
    from shards.small_world.world import WorldSizes, write_small_world

    small = WorldSizes(documents=300, names_per_class=40, train=30, validation=10, test=10)
    monkeypatch.setattr(training_data, "write_small_world", partial(write_small_world, sizes=small))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by GAP_DATA; the test is skipped without it."""
    folder = os.environ.get("GAP_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set GAP_DATA to the folder that holds it")
    return Path(folder)


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listened on a moment ago, for a launcher's rendezvous."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
