"""`launch/pretrain.py --upload s3://...`: killed while it uploads, and continued on a machine with an empty disk."""

import json
import shutil
import signal
import time
from pathlib import Path

import pretraining_runs as runs
import pytest
from s3_server import s3_server

from runtime.stores.folders import folders_in, parse_manifest
from runtime.stores.store import Store

OPTIONS = {"save_steps": 4, "budget_tokens": 7_000, "series": 2}
ADDRESS = "s3://bucket/runs/tiny"
STOP = "update.before:11:terminate"
LONGEST_SECONDS = 120.0  # of which most is the start of two processes on a busy machine


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return runs.write_shards(tmp_path_factory.mktemp("corpus"), blocks_per_shard=2)


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """An uninterrupted run without a store."""
    output = tmp_path_factory.mktemp("whole") / "run"
    runs.in_process(shards, output, OPTIONS)
    return output


@pytest.fixture
def s3(monkeypatch):
    with s3_server() as server:
        server.meet(monkeypatch)
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


def lost(folder):
    """The machine is gone with its disk."""
    shutil.rmtree(folder)


@pytest.mark.slow
def test_fault_70_connections_cut_while_a_run_is_uploaded_and_downloaded(
    s3, shards, whole, tmp_path, monkeypatch, capsys
):
    """Shards, checkpoints, exports and records alike: nothing is missing or torn there, and the run is the same."""
    put_shards(s3, shards)
    place, options = "s3://bucket/shards/tiny", OPTIONS | {"upload": ADDRESS}
    s3.proxy.cuts[:] = [("down", 9_000), ("up", 60_000), ("up", 30_000), ("up", 90_000), ("up", 1_000)]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache 1"))
    runs.in_process(place, tmp_path / "host 1" / "run", options)
    assert s3.proxy.num_cut >= 4
    assert_same_run(whole, tmp_path / "host 1" / "run")
    assert_only_whole_folders_count(s3)
    lost(tmp_path / "host 1")
    s3.proxy.cuts[:], before = [("down", 30_000), ("down", 20_000), ("down", 2_000)], s3.proxy.num_cut
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache 2"))
    runs.in_process(place, tmp_path / "host 2" / "run", options)
    assert s3.proxy.num_cut >= before + 2
    assert f"is downloaded from {ADDRESS}" in capsys.readouterr().out
    assert_same_run(whole, tmp_path / "host 2" / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "least"),
    [
        pytest.param("store.before_manifest:3:kill", 0, id="before a manifest"),
        pytest.param("store.after_manifest:4:kill", 1, id="after a manifest", marks=pytest.mark.long),
    ],
)
def test_fault_71_killed_between_the_files_of_a_checkpoint_and_its_manifest(s3, shards, whole, tmp_path, fault, least):
    """The disk is lost, too: the run goes on from what is whole in the store."""
    put_shards(s3, shards)
    place = "s3://bucket/shards/tiny"
    first = {"XDG_CACHE_HOME": str(tmp_path / "cache 1"), "FAULT_POINT": fault}
    options = OPTIONS | {"upload": ADDRESS, "dataloader_num_workers": 1}  # forked while fsspec's thread runs
    runs.run(
        "python", place, tmp_path / "host 1" / "run", options, num_ranks=1, variables=first, status=-signal.SIGKILL
    )
    assert_only_whole_folders_count(s3)
    stored = folders_in({name.removeprefix("runs/tiny/"): 0 for name in s3.names()}, "checkpoints")
    lost(tmp_path / "host 1")
    second = {"XDG_CACHE_HOME": str(tmp_path / "cache 2")}
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
@pytest.mark.long
def test_fault_72_two_ranks_stopped_by_sigterm_whose_disk_is_lost(s3, shards, tmp_path):
    runs.run("torchrun", shards, tmp_path / "whole" / "run", OPTIONS)
    # Ranks agree to stop at an exchange: about once a second, or at an update that is to be saved. A fast machine
    # ends this run within a second of the signal, so that the twelfth update has to be one of the latter.
    options = OPTIONS | {"upload": ADDRESS, "save_steps": 12}
    variables = {"FAULT_POINT": "update.before:11:terminate", "FAULT_RANK": "1"}
    printed = runs.run("torchrun", shards, tmp_path / "host 1" / "run", options, variables=variables, status=None)
    assert "interrupted" in printed
    assert "not uploaded" not in printed
    assert not any(name.endswith("run.lock") for name in s3.names())
    lost(tmp_path / "host 1")
    printed = runs.run("torchrun", shards, tmp_path / "host 2" / "run", options)
    assert "is downloaded from" in printed
    assert_same_run(tmp_path / "whole" / "run", tmp_path / "host 2" / "run")


@pytest.mark.slow
def test_fault_73_a_store_that_is_down_from_the_first_update_on(s3, shards, whole, tmp_path):
    """It stops no training; once the store answers again, the same command brings everything there."""
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
def test_fault_73_a_store_that_is_down_at_the_start(s3, shards, tmp_path, capsys):
    """Nothing is known then of the run that may be there: it is said, and nothing is trained."""
    s3.proxy.refused = True
    runs.in_process(shards, tmp_path / "run", OPTIONS | {"upload": ADDRESS}, status=1)
    assert "check the network and the store" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_fault_74_a_second_run_at_the_same_address(s3, shards, whole, tmp_path, capsys):
    """It is refused with the first one's process and host, even where that one trains nothing; the first goes on."""
    options, output = OPTIONS | {"upload": ADDRESS}, tmp_path / "host 1" / "run"
    process = runs.start(
        "python", shards, output, options, num_ranks=1, variables={"FAULT_POINT": "update.before:13:hang"}
    )
    try:
        runs.wait_for(lambda: len(journal_lines(output)) >= 12, "update", process=process)
        runs.in_process(shards, tmp_path / "host 2" / "run", options, status=2)
        assert f"{ADDRESS} belongs to a running job (pid {process.pid} on " in capsys.readouterr().err
        assert process.poll() is None
    finally:
        runs.stop_session(process)
    assert not (tmp_path / "host 2" / "run" / "checkpoints").exists()
    runs.in_process(shards, output, options)  # the lock of one that is dead is free
    assert_same_run(whole, output)
    assert_only_whole_folders_count(s3)


def journal_lines(output):
    journal = output / "journal.jsonl"
    return journal.read_text().splitlines() if journal.is_file() else []


@pytest.mark.slow
def test_fault_75_a_damaged_object_in_the_store(s3, shards, whole, tmp_path, capsys):
    """Of the newest checkpoint and of an export: the checkpoint before is used, the export left out and said."""
    options = OPTIONS | {"upload": ADDRESS}
    runs.in_process(shards, tmp_path / "host 1" / "run", options)
    lost(tmp_path / "host 1")
    names = {name.removeprefix("runs/tiny/"): 0 for name in s3.names()}
    *_, earlier, newest = folders_in(names, "checkpoints")
    for name in (f"checkpoints/{newest}/rank-00000.safetensors", "series/raw-0/model.safetensors"):
        content = bytearray(s3.content(f"runs/tiny/{name}"))
        content[-5] ^= 16
        s3.put(f"runs/tiny/{name}", bytes(content))
    capsys.readouterr()
    runs.in_process(shards, tmp_path / "host 2" / "run", options)
    printed = capsys.readouterr().out
    assert f"checkpoint {newest} of {ADDRESS} is skipped: " in printed
    assert f"checkpoint {earlier} is downloaded from {ADDRESS}" in printed
    assert f"warning: series/raw-0 of {ADDRESS} is left out of the series: " in printed
    runs.assert_same_course(whole, tmp_path / "host 2" / "run")
    left = [entry | {"seconds": 0} for entry in runs.series(whole) if entry["path"] != "series/raw-0"]
    assert [entry | {"seconds": 0} for entry in runs.series(tmp_path / "host 2" / "run")] == left


@pytest.mark.slow
def test_fault_76_sigterm_while_a_run_is_downloaded(s3, shards, whole, tmp_path, capsys):
    """It ends at once with status 75 and INTERRUPTED.json, frees the store, and the next start downloads the rest."""
    options, output = OPTIONS | {"upload": ADDRESS}, tmp_path / "host 2" / "run"
    runs.in_process(shards, tmp_path / "host 1" / "run", options | {"upload_wait_minutes": 3}, fault=STOP, status=75)
    lost(tmp_path / "host 1")
    capsys.readouterr()
    runs.in_process(shards, output, options, fault="store.before_piece:2:terminate", status=75)  # in the checkpoint
    assert "interrupted (SIGTERM)" in capsys.readouterr().err
    assert_interrupted(s3, output)
    runs.in_process(shards, output, options)
    assert f"is downloaded from {ADDRESS}" in capsys.readouterr().out
    assert_same_run(whole, output)
    assert not (output / "INTERRUPTED.json").exists()


@pytest.mark.slow
def test_fault_76_sigterm_to_the_main_rank_while_a_run_is_downloaded(s3, shards, tmp_path):
    """The launcher ends the other rank, which waits for the main one, within a minute."""
    options, output = OPTIONS | {"upload": ADDRESS}, tmp_path / "host 2" / "run"
    runs.in_process(shards, tmp_path / "host 1" / "run", options, fault=STOP, status=75)
    lost(tmp_path / "host 1")
    started, stop = time.monotonic(), {"FAULT_POINT": "store.before_piece:2:terminate"}
    printed = runs.run("torchrun", shards, output, options, variables=stop, status=1)
    assert time.monotonic() - started < LONGEST_SECONDS
    assert "interrupted (SIGTERM)" in printed
    assert_interrupted(s3, output)
    printed = runs.run("torchrun", shards, output, options)
    assert f"is downloaded from {ADDRESS}" in printed


def assert_interrupted(s3, output):
    assert json.loads((output / "INTERRUPTED.json").read_text())["reason"] == "SIGTERM"
    assert not any(name.endswith("run.lock") for name in s3.names())
    assert not [path for path in output.rglob("*") if path.name.endswith(".partial")]


@pytest.mark.slow
def test_a_folder_on_another_disk_takes_the_place_of_a_store(shards, whole, tmp_path):
    options = OPTIONS | {"upload": tmp_path / "nfs" / "run"}
    variables = {"FAULT_POINT": "update.before:11:kill"}
    output = tmp_path / "host 1" / "run"
    runs.run("python", shards, output, options, num_ranks=1, variables=variables, status=-signal.SIGKILL)
    lost(tmp_path / "host 1")
    runs.run("python", shards, tmp_path / "host 2" / "run", options, num_ranks=1)
    assert_same_run(whole, tmp_path / "host 2" / "run")
    assert Store(Path(tmp_path / "nfs" / "run")).read("series.json", 1 << 20) is not None
