"""`launch/pretrain.py --upload s3://...`: killed while it uploads, and continued on a machine with an empty disk."""

import json
import shutil
import signal
from pathlib import Path

import pretraining_runs as runs
import pytest
from s3_server import s3_server

from runtime.stores.folders import folders_in, parse_manifest
from runtime.stores.store import Store

OPTIONS = {"save_steps": 4, "budget_tokens": 7_000, "series": 2}
ADDRESS = "s3://bucket/runs/tiny"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return runs.write_shards(tmp_path_factory.mktemp("corpus"), blocks_per_shard=2)


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """An uninterrupted run without a store."""
    output = tmp_path_factory.mktemp("whole") / "run"
    runs.run("python", shards, output, OPTIONS, num_ranks=1)
    return output


@pytest.fixture
def s3(monkeypatch):
    with s3_server() as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        yield server


def put_shards(server, shards):
    for path in sorted(path for path in shards.rglob("*") if path.is_file()):
        server.put(f"shards/tiny/{path.relative_to(shards).as_posix()}", path.read_bytes())


def assert_only_whole_folders_count(server):
    """Every folder that has a manifest in the store is as the manifest says."""
    names = {name.removeprefix("runs/tiny/"): 0 for name in server.names() if name.startswith("runs/tiny/")}
    for parent in ("checkpoints", "series"):
        for folder in folders_in(names, parent):
            place = f"runs/tiny/{parent}/{folder}"
            manifest = parse_manifest(server.content(f"{place}/MANIFEST.json"), place)
            for file in manifest.files:
                assert len(server.content(f"{place}/{file.name}")) == file.bytes, (place, file)


def assert_same_run(whole, output):
    runs.assert_same_course(whole, output)
    entries = [[entry | {"seconds": 0} for entry in runs.series(place)] for place in (whole, output)]
    assert entries[0] == entries[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "least"),
    [("store.before_manifest:3:kill", 0), ("store.after_manifest:4:kill", 1)],
    ids=["before a manifest", "after a manifest"],
)
def test_a_run_killed_while_it_uploads_goes_on_from_an_empty_disk(s3, shards, whole, tmp_path, fault, least):
    put_shards(s3, shards)
    s3.proxy.cuts[:] = [("up", 120_000), ("down", 200_000), ("up", 60_000), ("up", 300_000)]
    place = "s3://bucket/shards/tiny"
    first = {"XDG_CACHE_HOME": str(tmp_path / "cache 1"), "FAULT_POINT": fault}
    options = OPTIONS | {"upload": ADDRESS, "dataloader_num_workers": 1}  # forked while fsspec's thread runs
    runs.run(
        "python", place, tmp_path / "host 1" / "run", options, num_ranks=1, variables=first, status=-signal.SIGKILL
    )
    assert_only_whole_folders_count(s3)
    stored = folders_in({name.removeprefix("runs/tiny/"): 0 for name in s3.names()}, "checkpoints")
    shutil.rmtree(tmp_path / "host 1")  # the machine is gone
    second = {"XDG_CACHE_HOME": str(tmp_path / "cache 2")}
    s3.proxy.cuts[:] = [("down", 100_000), ("up", 90_000)]
    printed = runs.run("python", place, tmp_path / "host 2" / "run", options, num_ranks=1, variables=second)
    assert len(stored) >= least
    for name in stored[-1:]:
        assert f"checkpoint {name} is downloaded from {ADDRESS}" in printed
    assert_same_run(whole, tmp_path / "host 2" / "run")
    assert_only_whole_folders_count(s3)
    # The store ends with all that the run has: a third machine finds it finished.
    printed = runs.run("python", place, tmp_path / "host 3" / "run", options, num_ranks=1, variables=second)
    assert_same_run(whole, tmp_path / "host 3" / "run")
    assert "test-secret-key" not in printed + (tmp_path / "host 2" / "run.log").read_text()


@pytest.mark.slow
def test_two_ranks_stopped_by_sigterm_go_on_elsewhere(s3, shards, tmp_path):
    runs.run("torchrun", shards, tmp_path / "whole" / "run", OPTIONS)
    # Ranks agree to stop at an exchange: about once a second, or at an update that is to be saved. A fast machine
    # ends this run within a second of the signal, so that the twelfth update has to be one of the latter.
    options = OPTIONS | {"upload": ADDRESS, "save_steps": 12}
    variables = {"FAULT_POINT": "update.before:11:terminate", "FAULT_RANK": "1"}
    printed = runs.run("torchrun", shards, tmp_path / "host 1" / "run", options, variables=variables, status=None)
    assert "interrupted" in printed
    assert "not uploaded" not in printed
    assert not any(name.endswith("run.lock") for name in s3.names())
    shutil.rmtree(tmp_path / "host 1")
    printed = runs.run("torchrun", shards, tmp_path / "host 2" / "run", options)
    assert "is downloaded from" in printed
    assert_same_run(tmp_path / "whole" / "run", tmp_path / "host 2" / "run")


@pytest.mark.slow
def test_a_store_that_is_down_stops_no_training_and_is_said_at_the_end(s3, shards, whole, tmp_path):
    """Once the store answers again, the same command brings everything there."""
    output, options = tmp_path / "run", OPTIONS | {"upload": ADDRESS, "upload_wait_minutes": 0.02}
    process = runs.start("python", shards, output, options, num_ranks=1)
    try:
        runs.wait_for(lambda: any(name.endswith("run.json") for name in s3.names()), "upload", process=process)
        s3.proxy.refused = True
        code = process.wait(runs.TIMEOUT_SECONDS)
    finally:
        runs.stop_session(process)
    printed = runs.log_of(output).read_text()
    assert code == 1, printed
    assert f"not uploaded to {ADDRESS} within 0.02 minutes" in printed
    runs.assert_same_course(whole, output)
    s3.proxy.refused = False
    runs.run("python", shards, output, options | {"upload_wait_minutes": 3}, num_ranks=1)
    assert_only_whole_folders_count(s3)
    listed = json.loads(s3.content("runs/tiny/series.json"))["checkpoints"]
    assert [entry["path"] for entry in listed] == [entry["path"] for entry in runs.series(output)]
    newest = max(path.name for path in (output / "checkpoints").glob("step-*"))
    assert f"runs/tiny/checkpoints/{newest}/MANIFEST.json" in s3.names()


@pytest.mark.slow
def test_a_folder_on_another_disk_takes_the_place_of_a_store(shards, whole, tmp_path):
    options = OPTIONS | {"upload": tmp_path / "nfs" / "run"}
    variables = {"FAULT_POINT": "update.before:11:kill"}
    output = tmp_path / "host 1" / "run"
    runs.run("python", shards, output, options, num_ranks=1, variables=variables, status=-signal.SIGKILL)
    shutil.rmtree(tmp_path / "host 1")
    runs.run("python", shards, tmp_path / "host 2" / "run", options, num_ranks=1)
    assert_same_run(whole, tmp_path / "host 2" / "run")
    assert Store(Path(tmp_path / "nfs" / "run")).read("series.json", 1 << 20) is not None
