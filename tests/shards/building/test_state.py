"""The database of an unfinished build: what was changed in it is refused by the file's name."""

import sqlite3

import numpy as np
import pytest
from file_mutations import STRANGE, few_and_many, refusals

from shards.building.chunks import BuildProgress
from shards.building.duplicate_index import DuplicateIndex
from shards.building.packing import SplitPacker
from shards.building.state import BuildState


def packer(folder):
    return SplitPacker("train", folder, block_tokens=8, blocks_per_shard=2, token_dtype="uint16", words=False)


@pytest.fixture
def state(tmp_path):
    opened, filled = BuildState(tmp_path), packer(tmp_path)
    filled.add(np.arange(5, 12, dtype=np.uint16), None)
    counts, arrays = filled.saved()
    opened.put(progress=BuildProgress(source=1, text_bytes=70).saved(), train_counts=counts, train_arrays=arrays)
    yield opened
    opened.close()


def restored(state, folder):
    """As a build takes up what an earlier one left."""
    saved, again = state.get("progress"), packer(folder)
    counts, arrays = state.get("train_counts"), state.blob("train_arrays")
    with state.reading():
        progress = BuildProgress.restored(saved, state.documents_read())
        again.restore(counts, arrays)
    return progress, again


def test_what_was_stored_comes_back(state, tmp_path):
    progress, again = restored(state, tmp_path)
    assert (progress.source, progress.text_bytes, again.filled) == (1, 70, 7)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "building").mkdir()
    (tmp_path / "building" / "state.sqlite3").write_bytes(b"no database" * 500)
    for _ in range(2):  # the lock is free again
        with pytest.raises(ValueError, match=r"state\.sqlite3 could not be read .*: delete the directory"):
            BuildState(tmp_path)


@pytest.mark.parametrize("name", ["progress", "train_counts", "train_arrays"])
@pytest.mark.parametrize("text", ["nul", "[]", '"x"', '{"source": "x"}', '"{}"', "[" * 9000, b"\xff", b"PK\x03\x04", 7])
def test_a_value_that_was_changed_is_refused(state, tmp_path, name, text):
    state.database.execute("UPDATE state SET value = ? WHERE name = ?", (text, name))
    with pytest.raises(ValueError, match=r"state\.sqlite3 could not be read .*: delete the directory"):
        restored(state, tmp_path)


@pytest.mark.parametrize("place", ["source", "text_bytes", "dropped", "changed"])
def test_a_field_of_another_kind_is_refused(state, tmp_path, place):
    for value in STRANGE:
        if value in ({}, {"a": 1}, 0, 10**12):  # one that a build might write, of this field or another
            continue
        state.put(progress={**BuildProgress().saved(), place: value})
        try:
            restored(state, tmp_path)
        except ValueError as error:
            assert "state.sqlite3" in str(error)  # noqa: PT017
            continue
        raise AssertionError(f"{place}: {value!r} was taken")


def test_a_disk_that_fails_is_no_damaged_file(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "shards.building.state.SCHEMA", "PRAGMA max_page_count = 1; CREATE TABLE a (b); CREATE TABLE c (d)"
    )
    with pytest.raises(sqlite3.OperationalError, match="full"):
        BuildState(tmp_path)


@few_and_many
def test_a_database_that_was_changed_at_random_is_refused_or_read(tmp_path, rounds):
    opened, filled = BuildState(tmp_path), packer(tmp_path)
    index = DuplicateIndex(opened.database, exact=True, near="drop", threshold=0.8)
    index.admit(b"d" * 32, False, np.arange(128, dtype=np.uint32), list(range(16)))
    filled.add(np.arange(5, 12, dtype=np.uint16), None)
    counts, arrays = filled.saved()
    opened.put(progress=BuildProgress(source=1, text_bytes=70).saved(), train_counts=counts, train_arrays=arrays)
    opened.add_shards("train", 1, [{"name": "train-000000.tar", "blocks": []}])
    opened.put_documents_read({0: 3})
    opened.close()

    def read():
        for more in ("-wal", "-shm"):
            (tmp_path / "building" / f"state.sqlite3{more}").unlink(missing_ok=True)
        again = BuildState(tmp_path)
        try:
            restored(again, tmp_path)
            with again.reading():
                DuplicateIndex(again.database, exact=True, near="drop", threshold=0.8)
                list(again.shards("train"))
        finally:
            again.close()

    refusals(tmp_path / "building" / "state.sqlite3", read, rounds, least=0.02)
