"""What the tests of runs on several hosts share: the packages they need, hosts, one host's run, and a log."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pretraining_runs as runs
import pytest

from tests.cluster.hosts import Network, missing_packages, network

NAMES = ("node1", "node2", "node3")
OPTIONS = {"series": 2, "save_steps": 4}
Note = Callable[[str], None]


@pytest.fixture
def note(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Note:
    """Print a line of the log: hosts, world sizes, differences of losses, job ids."""
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")

    def write(line: str) -> None:
        with pytestconfig.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
            reporter.write_line(f"    {line}")

    return write


@pytest.fixture(scope="session")
def machine() -> None:
    """Ends the tests, rather than skips them, where hosts cannot be made: they are only run when asked for."""
    if os.geteuid() != 0:
        pytest.exit("the hosts of these tests are network namespaces: run as root", 1)
    if missing := missing_packages():
        pytest.exit(f"packages are missing: apt-get install --no-install-recommends {' '.join(missing)}", 1)


@pytest.fixture
def hosts(machine: None, tmp_path: Path) -> Iterator[Network]:
    with network(tmp_path / "network", NAMES) as made:
        yield made


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_shards(tmp_path_factory.mktemp("corpus"), template=True)


@pytest.fixture(scope="session")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process on one host, which nothing interrupts; the runs of several hosts are compared with it."""
    output = tmp_path_factory.mktemp("whole") / "run"
    runs.in_process(shards, output, OPTIONS)
    return output


def largest_difference(left: Path, right: Path) -> float:
    """Between the losses of two runs, which did the same updates on the same rows; AssertionError above 1e-5."""
    runs.assert_same_course(left, right)
    return max(abs(one[3] - two[3]) for one, two in zip(runs.course(left), runs.course(right), strict=True))
