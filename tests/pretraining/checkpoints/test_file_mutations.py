"""What a run leaves in its directory, changed at random: a clear refusal that names the file, or a reading."""

import json

import pytest
import torch
from file_mutations import few_and_many, refusals
from pretraining_runs import in_process, write_shards

from pretraining.checkpoints.checkpoint import (
    MANIFEST_NAME,
    STATE_FILE,
    Checkpoint,
    committed,
    defect,
    newest_checkpoint,
    read_state,
)
from pretraining.checkpoints.origin import check_same_origin, check_same_run
from pretraining.checkpoints.position import position_from
from pretraining.checkpoints.saving import save_checkpoint
from pretraining.checkpoints.series import FIELDS, add_to_series, read_series
from pretraining.loop.journal import Journal, read_journal
from pretraining.plan.identity import condensed
from runtime.files.whole_files import sha256_of, write_json
from runtime.processes.ranks import Ranks

IDENTITY = {"seed": 0, "model": "bert-tiny", "shards": {"train": ["a" * 64]}, "tokenizer": "b" * 64}
PROGRESS = {"updates": 7, "rows": 56, "tokens": 700, "flops": 1e9, "seconds": 2.5}


def saved(directory, serial, *, segment=1, fork=None):
    state = {"segment": segment, "serial": serial, "progress": PROGRESS, "fork": fork, "optimizer_steps": serial}
    tensors = [("a/weight", torch.zeros(2))]
    return save_checkpoint(
        directory,
        f"step-{serial:08d}-{segment:03d}",
        tensors=tensors,
        state={**state, "world_size": 1, "identity": condensed(IDENTITY)},
        ranks=Ranks(),
    )


def forge(path, *, file=STATE_FILE, **changes):
    """Another state.json, or another file as it is, with the manifest that belongs to it."""
    if changes:
        write_json(path / STATE_FILE, {**json.loads((path / STATE_FILE).read_text()), **changes})
    manifest = json.loads((path / MANIFEST_NAME).read_text())
    entry = {"name": file, "bytes": (path / file).stat().st_size, "sha256": sha256_of(path / file)}
    manifest["files"] = [one for one in manifest["files"] if one["name"] != file] + [entry]
    write_json(path / MANIFEST_NAME, manifest)


@few_and_many
def test_the_state_of_a_checkpoint(tmp_path, rounds):
    path = saved(tmp_path, 7)

    def read():
        state = read_state(path)
        position_from(state, num_segments=3)
        try:
            check_same_origin(path, state, IDENTITY)
        except ValueError as error:
            assert "to another run" in str(error)  # noqa: PT017

    refusals(path / STATE_FILE, read, rounds, named=STATE_FILE)


@few_and_many
def test_the_manifest_of_a_checkpoint(tmp_path, rounds):
    path = saved(tmp_path, 7)

    def read():
        if reason := defect(path):
            raise ValueError(f"{path / MANIFEST_NAME}: {reason}")

    refusals(path / MANIFEST_NAME, read, rounds)


@few_and_many
def test_the_tensors_of_a_checkpoint(tmp_path, rounds):
    """With a manifest that belongs to them: no hash has the last word on what strangers give."""
    path = saved(tmp_path, 7)

    def read():
        forge(path, file="rank-00000.safetensors")
        if reason := defect(path):
            raise ValueError(f"{path}: {reason}")
        Checkpoint(path).read("a/weight", (2,))

    refusals(path / "rank-00000.safetensors", read, rounds, named=str(path))


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.tensor([1.0, float("nan")]), "holds NaN or infinity"),
        (torch.tensor([1.0, -float("inf")]), "holds NaN or infinity"),
        (torch.zeros(1), r"is torch.float32 \[1\], not torch.float32 \[2\]"),  # which torch would spread over both
        (torch.zeros(2, dtype=torch.float64), r"is torch.float64 \[2\], not torch.float32"),
    ],
    ids=["nan", "infinity", "shape", "type"],
)
def test_weights_that_cannot_be_gone_on_with_are_stopped_as_they_are_loaded(tmp_path, tensor, said):
    state = {"segment": 1, "serial": 7, "progress": PROGRESS, "optimizer_steps": 7}
    path = save_checkpoint(tmp_path, "step-00000007-001", tensors=[("a/weight", tensor)], state=state, ranks=Ranks())
    with pytest.raises(ValueError, match=rf"{path}: its tensor 'a/weight' {said}"):
        Checkpoint(path).read("a/weight", (2,))


@few_and_many
def test_the_series(tmp_path, rounds):
    for budget in (0, 100, 200):
        values = {**dict.fromkeys(FIELDS, budget), "path": f"series/raw-{budget}", "kind": "raw", "devices": 1}
        add_to_series(tmp_path / "series.json", values)
    refusals(tmp_path / "series.json", lambda: read_series(tmp_path), rounds)


@few_and_many
def test_the_record_of_a_run(tmp_path, rounds):
    write_json(tmp_path / "run.json", {"schema_version": 1, "identity": IDENTITY, "shards": "data/shards"})
    refusals(tmp_path / "run.json", lambda: check_same_run(tmp_path, IDENTITY), rounds, named=str(tmp_path))


@few_and_many
def test_a_journal_is_read_whatever_stands_in_it(tmp_path, rounds):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"serial": serial, "loss": 1.0, "rows": [0, 7]} for serial in range(1, 5))

    def read():
        whole = journal.path.read_bytes()
        found = read_journal(journal.path)
        said = journal.cut_back(4)
        assert read_journal(journal.path) == [line for line in found if line.get("serial", 0) <= 4]
        journal.path.write_bytes(whole)
        if said:
            raise ValueError(said)

    refusals(journal.path, read, rounds)


@pytest.mark.parametrize("fork", ["step-00000009-001", "step-00000012-001", "step-00000005-001"])
def test_a_fork_that_does_not_lie_on_the_trunk_before_it_is_no_fork(tmp_path, fork):
    """Itself, a later one, or one inside a branch: going on from any of them is another course."""
    saved(tmp_path, 4, segment=0)
    saved(tmp_path, 5, fork="step-00000004-000")
    path = saved(tmp_path, 9, fork="step-00000004-000")
    said = []
    assert newest_checkpoint(tmp_path, Ranks(), say=said.append).path == path
    saved(tmp_path, 12)
    forge(path, fork=fork)
    (tmp_path / "step-00000012-001").rename(tmp_path / "elsewhere")
    if fork == "step-00000012-001":
        (tmp_path / "elsewhere").rename(tmp_path / fork)
        forge(tmp_path / fork, fork=fork)
    assert newest_checkpoint(tmp_path, Ranks(), say=said.append).path.name == "step-00000005-001"
    assert "its branch returns to" in said[-1]


def test_a_link_or_a_file_that_holds_the_temporary_name_blocks_no_save(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    for serial, place in ((1, outside), (2, tmp_path / "nowhere"), (3, None)):
        for name in (f".tmp-step-{serial:08d}-001", f".tmp-step-{serial:08d}-001-earlier"):
            (directory / name).write_text("x") if place is None else (directory / name).symlink_to(place)
        saved(directory, serial)
        saved(directory, serial)  # over the one before
    assert [path.name[-7:-4] for path in committed(directory)] == ["003", "002", "001"]
    (directory / ".tmp-step-00000009-001").symlink_to(outside)
    assert newest_checkpoint(directory, Ranks()).state["serial"] == 3
    assert not list(directory.glob(".tmp*"))
    assert (outside / "kept").read_text() == "x"


def test_a_journal_that_went_away_or_lost_lines_is_spoken_of(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.cut_back(0) is None
    assert "is missing" in journal.cut_back(5)
    journal.append({"serial": serial} for serial in range(1, 25))
    assert journal.cut_back(24) is None
    assert journal.cut_back(20) is None
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text("".join([*lines[:2], "[]\n", '"x"\n', "nul\n", *lines[6:]]))
    assert "has no lines for 4 of 20 updates (3 damaged" in journal.cut_back(20)


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_special_ids_that_are_not_the_tokenizer_s_are_refused_before_anything_is_made(tmp_path, capsys, dry_run):
    shards = write_shards(tmp_path / "shards")
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["tokenizer"]["special_ids"]["mask"] = 7
    (shards / "manifest.json").write_text(json.dumps(manifest))
    in_process(shards, tmp_path / "run", {"budget_tokens": 800, "dry_run": dry_run}, status=2)
    assert "(mask 7, not 4)" in capsys.readouterr().err
    assert not (tmp_path / "run" / "series.json").exists()
