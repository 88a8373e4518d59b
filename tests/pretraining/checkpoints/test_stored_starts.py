"""Pretraining that starts from a checkpoint in a store: named by its address, recognised by its content."""

import json
import shutil

import pretraining_runs as runs
import pytest
from s3_server import s3_server
from safetensors.torch import load_file, save_file

from pretraining.model.source.weights import checkpoint_digest
from runtime.stores.folders import put_folder
from runtime.stores.store import Store

STARTED = {"model": None, "config_overrides": None, "budget_tokens": 2_000, "series": 1, "save_steps": 2}
BASE = "s3://bucket/runs/base/series"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return runs.write_shards(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def base(shards, tmp_path_factory):
    """A run whose last checkpoint is continued."""
    output = tmp_path_factory.mktemp("base") / "run"
    runs.in_process(shards, output, {"budget_tokens": 1_000})
    return output / runs.series(output)[-1]["path"]


@pytest.fixture
def s3(monkeypatch, tmp_path, base):
    """A server that has the checkpoint, and an empty cache."""
    with s3_server() as server:
        server.meet(monkeypatch)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        put_folder(Store("s3://bucket/runs/base"), base, f"series/{base.name}")
        yield server


def change(base, place, tmp_path):
    """Upload other weights of the same shapes as that checkpoint."""
    shutil.copytree(base, tmp_path / "changed")
    weights = tmp_path / "changed" / "model.safetensors"
    save_file({name: tensor + 0.5 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    put_folder(Store("s3://bucket/runs/base"), tmp_path / "changed", place)


def test_a_run_keeps_the_address_and_the_content_and_goes_on_from_an_empty_cache(s3, shards, base, tmp_path, capsys):
    address, output = f"{BASE}/{base.name}", tmp_path / "run"
    options = STARTED | {"model_name_or_path": address}
    runs.in_process(shards, output, options)
    identity = json.loads((output / "run.json").read_text())["identity"]
    digest = checkpoint_digest(base)
    assert (identity["model_name_or_path"], identity["started_digest"]) == (address, digest)
    assert {(entry["started_from"], entry["started_digest"]) for entry in runs.series(output)} == {(address, digest)}
    runs.in_process(shards, tmp_path / "local", STARTED | {"model_name_or_path": base})
    runs.assert_same_course(tmp_path / "local", output)

    shutil.rmtree(tmp_path / "cache")
    capsys.readouterr()
    runs.in_process(shards, output, options)
    assert f"fetching {address}" in capsys.readouterr().err
    change(base, f"series/{base.name}", tmp_path)
    runs.in_process(shards, output, options, status=2)
    assert f"holds another run (started_digest: {digest} there, " in capsys.readouterr().err


def test_a_configuration_at_an_address_and_what_is_no_checkpoint(s3, shards, base, tmp_path, capsys):
    address = f"{BASE}/{base.name}"
    shape = {"model": None, "config_overrides": None, "budget_tokens": 800, "dry_run": "true"}
    runs.in_process(shards, tmp_path / "run", shape | {"from_config": address})
    assert "fetching" in capsys.readouterr().err
    wrong = {
        f"{BASE}/annealed-7": f"{BASE}/annealed-7 does not exist: check the address; in {BASE} there are {base.name}",
        "s3://bucket/runs/base": f"it has no config.json; add the name of one that it holds: series/{base.name}",
        "s3://other/x": "no such bucket",
    }
    for name, said in wrong.items():
        runs.in_process(shards, tmp_path / "run", shape | {"model_name_or_path": name}, status=2)
        told = capsys.readouterr().err
        assert said in told
        assert told.count("contradiction: ") == 1, "one request that fails is one message"


@pytest.mark.slow
def test_fault_78_a_start_that_is_fetched_and_lost_and_changed(s3, shards, base, tmp_path):
    """Killed, and continued on a machine without the cache; the losses are those of a start from the folder."""
    options = STARTED | {"model_name_or_path": f"{BASE}/{base.name}"}
    runs.run("torchrun", shards, tmp_path / "local" / "run", STARTED | {"model_name_or_path": base})
    s3.proxy.cuts[:] = [("down", 20_000), ("up", 300)]
    variables = {"FAULT_POINT": "update.before:4:kill", "FAULT_RANK": "1"}
    output = tmp_path / "host 1" / "run"
    printed = runs.run("torchrun", shards, output, options, variables=variables, status=None)
    assert printed.count(f"fetching {BASE}/{base.name}") == 1
    assert s3.proxy.num_cut
    shutil.rmtree(tmp_path / "cache")
    printed = runs.run("torchrun", shards, output, options)
    assert printed.count(f"fetching {BASE}/{base.name}") == 2, "the log is that of both"
    runs.assert_same_course(tmp_path / "local" / "run", output)
    change(base, f"series/{base.name}", tmp_path)
    printed = runs.run("torchrun", shards, output, options, status=None)
    assert "holds another run (started_digest: " in printed
