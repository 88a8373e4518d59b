"""`launch/pretrain.py --shards https://...`: the same run as from a folder, and clear errors where the server fails."""

import os
import re
import signal

import pretraining_runs as runs
import pytest
from servers.tls_server import tls_server

from shards.storage import https_folder

OPTIONS = {"save_steps": 4, "budget_tokens": 7_000, "dataloader_num_workers": 2}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A dozen shards of one block."""
    return runs.write_shards(tmp_path_factory.mktemp("corpus"), blocks_per_shard=1)


@pytest.fixture
def remote(shards, tmp_path):
    with tls_server(shards, tmp_path) as server:
        yield server


def trusting(server, tmp_path):
    """The environment of a user: trusted certificates, and the cache folder of fetched shards."""
    return {"SSL_CERT_FILE": str(server.certificate), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def run(server, tmp_path, variables=None, status=0, **options):
    variables = trusting(server, tmp_path) | (variables or {})
    return runs.run(
        "python", server.address, tmp_path / "run", OPTIONS | options, num_ranks=1, variables=variables, status=status
    )


@pytest.mark.slow
def test_a_run_over_https_with_two_workers_killed_and_resumed_is_that_from_the_folder(remote, shards, tmp_path):
    runs.run("python", shards, tmp_path / "whole", OPTIONS, num_ranks=1)
    variables = trusting(remote, tmp_path) | {"FAULT_POINT": "update.before:11:kill"}
    run(remote, tmp_path, variables, status=-signal.SIGKILL)
    assert "resuming from" in run(remote, tmp_path)
    runs.assert_same_course(tmp_path / "whole", tmp_path / "run")
    entries = [[entry | {"seconds": 0} for entry in runs.series(tmp_path / name)] for name in ("run", "whole")]
    assert entries[0] == entries[1]
    # One manifest for each start, not one for every part that looks into it.
    assert remote.requests.count("manifest.json") == 2


def test_what_the_server_does_wrong_is_said_and_nothing_else(remote, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(https_folder, "ATTEMPTS", 1)
    for name, value in trusting(remote, tmp_path).items():
        monkeypatch.setenv(name, value)

    def message(status):
        runs.in_process(remote.address, tmp_path / "run", OPTIONS, status=status)
        printed = capfd.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return printed.err

    with monkeypatch.context() as distrusting:
        distrusting.setenv("SSL_CERT_FILE", os.devnull)
        assert "CERTIFICATE_VERIFY_FAILED" in message(2)
    remote.gone.add("manifest.json")
    assert "HTTP Error 404" in message(2)
    remote.gone.clear()
    # The server says the right sizes; each shard breaks off when a data worker opens it.
    remote.cut.update((path.name, 600) for path in remote.folder.glob("train-*.tar"))
    assert re.search(
        r"shard https://.*tar cannot be fetched \(ConnectionError: the transfer ended after 600 of \d+ bytes\)",
        message(1),
    )
