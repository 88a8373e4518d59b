"""The commit protocol: a checkpoint is whole and verified, or it is not there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pretraining.checkpoints import checkpoint as module
from pretraining.checkpoints import saving
from pretraining.checkpoints.checkpoint import (
    MANIFEST_NAME,
    committed,
    newest_checkpoint,
    open_checkpoint,
)
from pretraining.checkpoints.saving import retain, save_checkpoint
from runtime.files.whole_files import sha256_of
from runtime.processes import fault_points
from runtime.processes.ranks import Ranks

ONE = Ranks()
PLACES = (
    "checkpoint.before_write",
    "checkpoint.after_write",
    "checkpoint.before_manifest",
    "checkpoint.before_rename",
    "checkpoint.before_latest",
)


def tensors(value=1.0):
    return [("a/weight", torch.full((3, 4), value)), ("a/exp_avg", torch.zeros(3, 4)), ("b/weight", torch.ones(5))]


def save(directory, name, value=1.0, **state):
    return save_checkpoint(directory, name, tensors=tensors(value), state=state, ranks=ONE)


def newest(directory):
    said = []
    return newest_checkpoint(directory, ONE, say=said.append), said


def rewrite_manifest(path):
    """A manifest as a forger with knowledge of the format would write it."""
    files = [file for file in sorted(path.iterdir()) if file.name != MANIFEST_NAME]
    entries = [{"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files]
    (path / MANIFEST_NAME).write_text(json.dumps({"schema_version": 1, "files": entries}))


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path, "step-00000007-001", 2.5, serial=7)
    opened, said = newest(tmp_path)
    assert said == []
    assert opened.state == {"schema_version": 1, "serial": 7}
    assert opened.names == {"a/weight", "a/exp_avg", "b/weight"}
    assert opened.read("a/weight").equal(torch.full((3, 4), 2.5))
    assert (tmp_path / "latest").read_text() == "step-00000007-001\n"
    with pytest.raises(ValueError, match="another model or optimizer"):
        opened.read("c/weight")


def test_the_ranks_share_out_the_tensors():
    many = [(f"p{number}/weight", torch.full((2,), float(number))) for number in range(7)]
    shares = [dict(saving.dealt(many, Ranks(rank, rank, 3, 3), {})) for rank in range(3)]
    assert sorted(name for share in shares for name in share) == [name for name, _ in many]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_saved_tensor_is_a_copy():
    live = torch.zeros(3)
    kept = dict(saving.dealt([("a/weight", live)], ONE, {}))
    live += 1
    assert kept["a/weight"].equal(torch.zeros(3))


KILLED_WHILE_SAVING = """
import sys, torch
from pathlib import Path
from runtime.processes import fault_points as faults
from pretraining.checkpoints.saving import CheckpointSaver
from runtime.processes.ranks import Ranks
for place in sys.argv[3:]:
    import os
    pid = os.fork()  # torch is imported once
    if pid == 0:
        directory = Path(sys.argv[1]) / place
        saver = CheckpointSaver(directory, Ranks(), in_background=sys.argv[2] == "True")
        save = lambda name, value: saver.save(
            name, tensors=[("a/weight", torch.full((4,), value))], state={"value": value})
        save("step-00000001-000", 1.0)
        saver.wait()
        faults._specification = place + ":1:kill"
        save("step-00000002-000", 2.0)
        saver.wait()
        os._exit(0)
    print(place, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("in_background", [False, True])
def test_killed_at_any_place_the_newest_whole_checkpoint_is_found(tmp_path, in_background):
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path), str(in_background), *PLACES]
    ended = subprocess.run(command, cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True)
    assert ended.stdout.splitlines() == [f"{place} -9" for place in PLACES], ended.stderr
    for place in PLACES:
        opened, said = newest(tmp_path / place)
        # Renamed is committed, whether `latest` says so or not.
        expected = 2.0 if place == "checkpoint.before_latest" else 1.0
        assert (place, opened.state["value"], opened.read("a/weight")[0].item()) == (place, expected, expected)
        assert said == []
        assert (tmp_path / place / "latest").read_text() == "step-00000001-000\n"
        left = {path.name for path in (tmp_path / place).iterdir()}
        assert not any(name.startswith(".tmp") for name in left)


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path, monkeypatch, place):
    save(tmp_path, "step-00000001-000", 1.0)
    monkeypatch.setattr(fault_points, "_specification", f"{place}:1:fail")
    monkeypatch.setattr(fault_points, "_passed", fault_points.Counter())
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, "step-00000002-000", 2.0)
    left = {path.name for path in tmp_path.iterdir()} - {"latest"}
    renamed = {"step-00000002-000"} if place == "checkpoint.before_latest" else set()
    assert left == {"step-00000001-000"} | renamed


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        save(disk / "checkpoints", "step-00000001-000")
        large = [("a/weight", torch.zeros(200_000))]
        with pytest.raises(OSError, match=r"(?i)no space|space left"):
            save_checkpoint(disk / "checkpoints", "step-00000002-000", tensors=large, state={}, ranks=ONE)
        assert {path.name for path in (disk / "checkpoints").iterdir()} == {"step-00000001-000", "latest"}
        assert newest(disk / "checkpoints")[0].path.name == "step-00000001-000"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "sha256": lambda path: flip_bit(path / "rank-00000.safetensors"),
    "state.json does not have": lambda path: flip_bit(path / "state.json"),
    "bytes, the manifest says": lambda path: os.truncate(path / "rank-00000.safetensors", 40),
    "missing or not in the manifest": lambda path: (path / "rank-00000.safetensors").unlink(),
    "['evil.pkl']": lambda path: (path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR."),
    "MANIFEST.json is not readable": lambda path: (path / MANIFEST_NAME).write_text('{"files": ['),
    "files[0] lacks bytes": lambda path: (path / MANIFEST_NAME).write_text(
        '{"schema_version": 1, "files": [{"name": "state.json"}]}'
    ),
    "schema_version is 2": lambda path: (path / MANIFEST_NAME).write_text('{"schema_version": 2, "files": []}'),
    "not a regular file": lambda path: replace_by_link(path / "rank-00000.safetensors"),
}


def replace_by_link(path):
    shutil.move(path, path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize("complaint", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_the_one_before_it_taken(tmp_path, complaint):
    save(tmp_path, "step-00000001-000", 1.0)
    DAMAGES[complaint](save(tmp_path, "step-00000002-000", 2.0))
    opened, said = newest(tmp_path)
    assert opened.path.name == "step-00000001-000"
    assert len(said) == 1
    assert "step-00000002-000 is skipped" in said[0]
    assert complaint in said[0]
    with pytest.raises(ValueError, match="cannot be resumed from"):
        open_checkpoint(tmp_path / "step-00000002-000", ONE)


@pytest.mark.parametrize("name", ["evil.pkl", "weights.pt", "../outside", "rank-0.safetensors", "rank-00000.bin"])
def test_a_file_of_another_kind_is_refused_even_with_a_matching_manifest(tmp_path, name):
    path = save(tmp_path, "step-00000001-000")
    (path / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    rewrite_manifest(path)
    manifest = json.loads((path / MANIFEST_NAME).read_text())
    if "/" in name:
        manifest["files"].append({"name": name, "bytes": 23, "sha256": "0" * 64})
        (path / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="a checkpoint is state"):
        open_checkpoint(path, ONE)


def test_when_none_can_be_trusted_nothing_starts_from_zero(tmp_path):
    flip_bit(save(tmp_path, "step-00000001-000") / "rank-00000.safetensors")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is valid"):
        newest(tmp_path)


@pytest.mark.parametrize("latest", [None, "../../outside\n", "step-00000009-000\n", ""])
def test_latest_is_for_people_only(tmp_path, latest):
    outside = tmp_path / "outside"
    save(outside.parent / "outside", "step-00000005-000", 5.0)
    directory = tmp_path / "run" / "checkpoints"
    save(directory, "step-00000001-000", 1.0)
    save(directory, "step-00000002-000", 2.0)
    (directory / "latest").unlink()
    if latest is not None:
        (directory / "latest").write_text(latest)
    assert newest(directory)[0].path == directory / "step-00000002-000"


def branch(directory, name, fork):
    return save(directory, name, fork=fork.name)


def test_a_branch_whose_fork_is_damaged_or_gone_is_passed_over_with_it(tmp_path):
    save(tmp_path, "step-00000001-000")
    fork = save(tmp_path, "step-00000004-001")
    inside = branch(tmp_path, "step-00000006-001", fork)
    assert newest(tmp_path)[0].path == inside
    flip_bit(fork / "rank-00000.safetensors")
    opened, said = newest(tmp_path)
    assert opened.path.name == "step-00000001-000"
    assert said[0].startswith("checkpoint step-00000006-001 is skipped: its branch returns to step-00000004-001: ")
    shutil.rmtree(fork)
    assert newest(tmp_path)[0].path.name == "step-00000001-000"


def test_an_empty_or_missing_directory_has_none(tmp_path):
    assert newest(tmp_path / "gone") == (None, [])
    assert newest(tmp_path) == (None, [])


def test_the_newest_is_the_furthest_not_the_last_written(tmp_path):
    later = save(tmp_path, "step-00000009-001")
    earlier = save(tmp_path, "step-00000003-001")
    os.utime(later, (1, 1))
    os.utime(earlier, (4e9, 4e9))
    assert newest(tmp_path)[0].path == later
    assert [path.name for path in committed(tmp_path)] == ["step-00000009-001", "step-00000003-001"]


@pytest.mark.parametrize(("keep", "kept"), [(1, [6, 4]), (2, [6, 4, 3]), (3, [6, 4, 3, 2])])
def test_retention_keeps_the_newest_its_fork_and_what_does_without_that_fork(tmp_path, keep, kept):
    *_, fork = [save(tmp_path, f"step-{serial:08d}-000") for serial in range(1, 5)]
    for serial in (5, 6):
        last = branch(tmp_path, f"step-{serial:08d}-000", fork)
    retain(tmp_path, keep, newest=last.name)
    assert [path.name for path in committed(tmp_path)] == [f"step-{serial:08d}-000" for serial in kept]
    save(tmp_path, "step-00000007-001")
    retain(tmp_path, 1, newest="step-00000007-001")
    assert [path.name for path in committed(tmp_path)] == ["step-00000007-001"]


def test_retention_keeps_the_fork_of_a_branch_that_came_from_another_folder(tmp_path):
    fork = save(tmp_path, "step-00000002-000")
    save(tmp_path, "step-00000004-000")  # of this folder's own course, which is over
    inside = branch(tmp_path, "step-00000005-001", fork)
    retain(tmp_path, 1, newest=inside.name)
    assert fork in committed(tmp_path)


def test_retention_never_deletes_what_was_just_saved(tmp_path):
    """After resuming from an earlier checkpoint the later, damaged ones must not push the new one out."""
    for name in ("step-00000001-000", "step-00000008-000", "step-00000009-000"):
        save(tmp_path, name)
    save(tmp_path, "step-00000002-000")
    retain(tmp_path, 1, newest="step-00000002-000")
    names = [path.name for path in committed(tmp_path)]
    assert names == ["step-00000009-000", "step-00000008-000", "step-00000002-000"]


def test_a_damaged_one_is_replaced_when_the_run_gets_there_again(tmp_path):
    flip_bit(save(tmp_path, "step-00000002-000", 1.0) / "state.json")
    save(tmp_path, "step-00000002-000", 2.0)
    assert newest(tmp_path)[0].read("a/weight")[0, 0] == 2.0
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000002-000", "latest"}


def test_deleted_while_it_is_being_opened(tmp_path, monkeypatch):
    """Between verification and opening the files go: an error that names the file, never half a state."""
    path = save(tmp_path, "step-00000001-000")
    monkeypatch.setattr(module, "defect", lambda _: shutil.rmtree(path))
    with pytest.raises(OSError, match=r"state\.json"):
        open_checkpoint(path, ONE)


def test_a_header_that_lies_is_refused_by_the_reader(tmp_path):
    path = save(tmp_path, "step-00000001-000")
    weights = path / "rank-00000.safetensors"
    weights.write_bytes((1 << 60).to_bytes(8, "little") + weights.read_bytes()[8:])
    rewrite_manifest(path)
    with pytest.raises(ValueError, match="safetensors"):
        open_checkpoint(path, ONE)


def test_safetensors_of_another_writer_are_read_by_name(tmp_path):
    """Checkpoints of any number of ranks are the same to the reader."""
    path = save(tmp_path, "step-00000001-000", 3.0)
    everything = dict(tensors(3.0))
    save_file({"a/weight": everything.pop("a/weight")}, path / "rank-00001.safetensors")
    save_file(everything, path / "rank-00000.safetensors")
    rewrite_manifest(path)
    opened = open_checkpoint(path, ONE)
    assert opened.names == {"a/weight", "a/exp_avg", "b/weight"}
    assert opened.read("a/weight").equal(torch.full((3, 4), 3.0))
