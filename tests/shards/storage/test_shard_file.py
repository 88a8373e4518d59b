import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from shard_directories import random_blocks

from shards.storage.shard_file import decode_field, decode_sample, read_block, write_shard


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def sample_of(*members, sparse=False):
    """Tar bytes of (name, payload or TarInfo changes) members without the end blocks."""
    stream = io.BytesIO()
    for name, payload, *changes in members:
        info = tarfile.TarInfo(name)
        info.size = len(payload)
        for key, value in dict(*changes).items():
            setattr(info, key, value)
        stream.write(info.tobuf(tarfile.GNU_FORMAT) + payload + bytes(-len(payload) % 512))
    return stream.getvalue()


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


GOOD = npy(np.arange(4, dtype=np.uint16))


def test_written_blocks_are_read_back_one_by_one(tmp_path):
    blocks = list(random_blocks([300, 500, 41], with_words=True))
    entry = write_shard(tmp_path / "train-000000.tar", blocks)
    assert os.listdir(tmp_path) == ["train-000000.tar"]
    assert entry["bytes"] == (tmp_path / "train-000000.tar").stat().st_size
    for (key, fields), place in reversed(list(zip(blocks, entry["blocks"], strict=True))):
        sample = read_block(tmp_path / entry["name"], place["offset"], place["bytes"])
        assert sample.pop("__key__") == key == place["key"]
        assert sample.keys() == fields.keys()
        for name, array in fields.items():
            np.testing.assert_array_equal(sample[name], array)
            assert sample[name].dtype == array.dtype


def test_the_same_blocks_give_the_same_bytes_and_other_tools_read_them(tmp_path):
    entries = [
        write_shard(tmp_path / name, random_blocks([300, 200])) for name in ("train-000000.tar", "train-000001.tar")
    ]
    assert entries[0]["sha256"] == entries[1]["sha256"]
    with tarfile.open(tmp_path / "train-000000.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members][:2] == ["train-00000000.tokens.npy", "train-00000000.documents.npy"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    samples = list(webdataset.WebDataset([str(tmp_path / "train-000000.tar")], shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["train-00000000", "train-00000001"]


def test_tar_overhead_of_full_blocks_is_under_two_percent(tmp_path):
    fields = {"tokens": np.zeros(65536, np.uint16), "documents": np.arange(130, dtype=np.uint32)}
    entry = write_shard(tmp_path / "a.tar", ((f"k{number}", fields) for number in range(64)))
    assert entry["bytes"] < 1.02 * 64 * sum(array.nbytes for array in fields.values())


def test_a_writer_that_dies_leaves_no_shard(tmp_path):
    def dying():
        yield from random_blocks([300])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "train-000000.tar", dying())
    assert not list(tmp_path.glob("*.tar"))


@pytest.mark.parametrize(
    "extension", ["pyd", "pkl", "pickle", "pth", "pt", "ten", "mp", "npz", "gz", "npy.gz", "PYD", "cls"]
)
def test_a_pickle_is_refused_under_every_extension_and_never_run(tmp_path, extension):
    mark = tmp_path / "ran"
    payload = pickle.dumps(Bomb(mark))
    with pytest.raises(ValueError, match="refused"):
        decode_sample(sample_of((f"k.tokens.{extension}", payload)), "train-000000.tar")
    with pytest.raises(ValueError, match="refused"):
        decode_field(f"tokens.{extension}", payload, "train-000000.tar")
    assert not mark.exists()


@pytest.mark.parametrize("extension", ["npy", "json", "txt"])
def test_a_pickle_under_an_allowed_extension_is_never_run(tmp_path, extension):
    mark = tmp_path / "ran"
    with pytest.raises(ValueError, match=r"train-000000\.tar"):
        decode_sample(sample_of((f"k.tokens.{extension}", pickle.dumps(Bomb(mark)) + b"\xff")), "train-000000.tar")
    objects = npy(np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"tokens\.npy"):
        decode_sample(sample_of(("k.tokens.npy", objects)), "train-000000.tar")
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["../k.tokens.npy", "/k.tokens.npy", "a/../../k.tokens.npy", "a/k.tokens.npy", "k..npy", "k"]
)
def test_names_that_leave_the_shard_are_refused(name):
    with pytest.raises(ValueError, match="is refused: names"):
        decode_sample(sample_of((name, GOOD)), "train-000000.tar")


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "named pipe"),
        (tarfile.DIRTYPE, "directory"),
        (tarfile.GNUTYPE_SPARSE, "sparse file"),
        (tarfile.XHDTYPE, "extended header"),
        (b"V", "b'V'"),
    ],
)
def test_anything_but_plain_files_is_refused_by_name_type_and_size(kind, named):
    payload = sample_of(("k.tokens.npy", b"", {"type": kind, "linkname": "/etc/passwd"}))
    with pytest.raises(ValueError, match=r"k\.tokens\.npy") as caught:
        decode_sample(payload, "train-000000.tar")
    assert named in str(caught.value)
    assert "0 bytes" in str(caught.value)
    assert "train-000000.tar" in str(caught.value)


def test_a_size_beyond_the_block_is_refused():
    payload = sample_of(("k.tokens.npy", GOOD, {"size": 300 << 20}))
    with pytest.raises(ValueError, match="reaches past its block"):
        decode_sample(payload, "train-000000.tar")


@pytest.mark.parametrize("shape", ["(1000000000,)", "(-4,)", "(2, 2)", "()", "(3,)"])
def test_an_array_that_says_more_than_it_holds_is_refused(shape):
    header = GOOD.replace(b"(4,), }", f"{shape}, }}".encode())[: len(GOOD) - 8]
    header = header[:10] + header[10:].rstrip(b"\n ").ljust(len(GOOD) - 18 - 1) + b"\n"
    with pytest.raises(ValueError, match=r"tokens\.npy"):
        decode_field("tokens.npy", header + GOOD[-8:], "train-000000.tar")


def test_json_is_bounded():
    assert decode_field("meta.json", b'{"a": 1}', "s") == {"a": 1}
    with pytest.raises(ValueError, match="not usable JSON"):
        decode_field("meta.json", b"[" * 200_000, "s")
    with pytest.raises(ValueError, match="refused"):
        decode_field("meta.json", json.dumps("x" * (1 << 20)).encode(), "s")


@given(position=st.integers(0, 511), bit=st.integers(0, 7))
def test_a_flipped_header_bit_never_ends_the_sample_silently(position, bit):
    payload = bytearray(sample_of(("k.tokens.npy", GOOD), ("k.documents.npy", GOOD)))
    second = payload.index(b"k.documents.npy")
    payload[second + position] ^= 1 << bit
    with pytest.raises(ValueError, match=r"train-000000\.tar"):
        decode_sample(bytes(payload), "train-000000.tar")


@pytest.mark.parametrize("kept", [0, 300, 512, 700, 1023])
def test_a_cut_sample_is_refused(kept):
    payload = sample_of(("k.tokens.npy", GOOD), ("k.documents.npy", GOOD))
    with pytest.raises(ValueError, match=r"train-000000\.tar"):
        decode_sample(payload[:kept], "train-000000.tar")


def test_two_samples_where_one_is_expected_are_refused():
    with pytest.raises(ValueError, match="2 samples"):
        decode_sample(sample_of(("a.tokens.npy", GOOD), ("b.tokens.npy", GOOD)), "train-000000.tar")


def test_keys_and_arrays_that_no_reader_would_take_are_not_written(tmp_path):
    good = {"tokens": np.zeros(3, np.uint16), "documents": np.zeros(1, np.uint32)}
    with pytest.raises(ValueError, match=r"\.\./k"):
        write_shard(tmp_path / "a.tar", [("../k", good)])
    with pytest.raises(ValueError, match="object"):
        write_shard(tmp_path / "a.tar", [("k", good | {"tokens": np.array([object()])})])
