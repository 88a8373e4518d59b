import os

import numpy as np
import pytest
from shard_directories import random_blocks, write_directory

from shards.storage.manifest import read_manifest, write_manifest
from shards.storage.reader import ShardReader
from shards.storage.shard_file import write_shard


@pytest.fixture
def directory(tmp_path):
    write_directory(tmp_path, train=((300, 200), (250,)), with_words=True)
    return tmp_path


def test_blocks_come_by_their_number_with_documents_and_words(directory):
    reader = ShardReader(directory, read_manifest(directory), "train", capacity=1)
    expected = [*random_blocks([300, 200], with_words=True), *random_blocks([250], with_words=True, first=2)]
    for number in (2, 0, 1, 2):
        block, fields = reader.block(number), expected[number][1]
        np.testing.assert_array_equal(block.tokens, fields["tokens"])
        np.testing.assert_array_equal(block.document_starts, fields["documents"])
        np.testing.assert_array_equal(np.packbits(block.word_starts), fields["words"])


@pytest.mark.parametrize("position", [700, 140, 1500, -1])
def test_a_flipped_bit_is_refused_by_name_before_any_row_of_the_shard_is_used(directory, position):
    path = directory / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)
    reader = ShardReader(directory, read_manifest(directory), "train")
    for number in (0, 1):
        with pytest.raises(ValueError, match=r"train-000000\.tar: its sha256"):
            reader.block(number)
    assert len(reader.block(2).tokens) == 250


def test_a_shard_that_changes_while_it_is_read_is_hashed_again(directory):
    reader = ShardReader(directory, read_manifest(directory), "train")
    reader.block(0)
    path = directory / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"train-000000\.tar: its sha256"):
        reader.block(1)


def test_a_shard_is_hashed_once(directory, monkeypatch):
    hashed = []
    monkeypatch.setattr("shards.storage.reader.sha256_of", lambda path: hashed.append(path.name) or shas[path.name])
    manifest = read_manifest(directory)
    shas = {shard.name: shard.sha256 for shard in manifest.split("train").shards}
    reader = ShardReader(directory, manifest, "train", capacity=1)
    for number in (0, 1, 2, 0, 1):
        reader.block(number)
    assert hashed == ["train-000000.tar", "train-000001.tar"]


def test_a_shard_that_disappears_is_named(directory):
    reader = ShardReader(directory, read_manifest(directory), "train")
    (directory / "train-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"train-000001\.tar is missing"):
        reader.block(2)


def rewritten(directory, fields, changes):
    """The directory with its first training shard replaced by one block, and a manifest that agrees with the bytes."""
    data = write_directory(directory, train=((len(fields["tokens"]),),))
    entry = write_shard(directory / "train-000000.tar", [("k", fields)])
    entry["blocks"][0].update(changes)
    documents, tokens = entry["blocks"][0]["documents"], entry["blocks"][0]["tokens"]
    data["splits"]["train"] = {"documents": documents, "tokens": tokens, "shards": [entry]}
    data["block_tokens"] = 1000
    write_manifest(directory, data)
    return ShardReader(directory, read_manifest(directory), "train")


GOOD = {"tokens": np.arange(5, 55, dtype=np.uint16), "documents": np.array([0, 9], np.uint32)}


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        (
            GOOD | {"tokens": np.full(50, 200, np.uint16)},
            {},
            "id 200, but the manifest says that the vocabulary has 200",
        ),
        (GOOD | {"tokens": np.arange(5, 55, dtype=np.uint32)}, {}, "uint32 tokens"),
        (GOOD | {"documents": np.array([9, 0], np.uint32)}, {}, "not in order"),
        (GOOD | {"documents": np.array([0, 50], np.uint32)}, {}, "not in order"),
        (GOOD | {"words": np.zeros(3, np.uint8)}, {}, "3 bytes of word starts"),
        (GOOD, {"tokens": 49}, "holds 50"),
        (GOOD, {"key": "other"}, "not where the manifest says"),
    ],
)
def test_blocks_that_contradict_the_manifest_are_refused(tmp_path, fields, changes, message):
    reader = rewritten(tmp_path, fields, changes)
    with pytest.raises(ValueError, match=message) as caught:
        reader.block(0)
    assert "train-000000.tar" in str(caught.value)


def test_a_block_that_begins_inside_a_document_starts_one_for_the_reader(tmp_path):
    reader = rewritten(tmp_path, GOOD | {"documents": np.array([7], np.uint32)}, {})
    assert reader.block(0).document_starts.tolist() == [0, 7]
