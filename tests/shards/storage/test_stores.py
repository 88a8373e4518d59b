"""Shards in a store: uploaded with the manifest last, read with cut connections, kept in a cache of bounded size."""

from itertools import islice

import numpy as np
import pytest
from s3_server import s3_server
from shard_directories import vocabulary, write_directory

from runtime.processes import fault_points
from runtime.stores.store import Store
from shards.storage.check import shards_of
from shards.storage.location import open_location
from shards.storage.uploading import upload_shards
from shards.streaming.stream import MaskedStream, StreamOptions

OPTIONS = StreamOptions(global_batch_rows=4, micro_batch_rows=4, lengths=((0, 32),))
ADDRESS = "s3://bucket/shards"


@pytest.fixture(scope="module")
def server():
    with s3_server() as running:
        yield running


@pytest.fixture
def s3(server, monkeypatch):
    server.meet(monkeypatch)
    for name in server.names():
        server.delete(name)
    return server


@pytest.fixture
def folder(tmp_path):
    write_directory(tmp_path / "built", train=((1000, 700), (1000, 130), (900,), (800, 10)))
    (tmp_path / "built" / "tokenizer").mkdir(exist_ok=True)
    (tmp_path / "built" / "tokenizer" / "tokenizer.json").write_text("{}")
    return tmp_path / "built"


def batches(place, cache=None, rows=60):
    stream = MaskedStream(place, OPTIONS, 0, 1, vocabulary=vocabulary(), cache_directory=cache, chunk_tokens=1)
    return [batch.input_ids for batch in islice(stream.batches(0), rows)]


def test_shards_in_a_bucket_give_the_batches_of_the_folder_over_cut_connections(s3, folder, tmp_path):
    s3.proxy.cuts[:] = [("up", 9_000), ("up", 3_000)]
    assert upload_shards(folder, Store(ADDRESS)) == 7
    assert upload_shards(folder, Store(ADDRESS)) == 0
    s3.proxy.cuts[:] = [("down", 4_000), ("down", 4_000)]
    np.testing.assert_array_equal(batches(ADDRESS, tmp_path / "cache"), batches(folder))
    assert s3.proxy.num_cut >= 4


def test_an_upload_that_broke_off_has_no_manifest_and_goes_on_with_the_rest(s3, folder, monkeypatch):
    monkeypatch.setattr(fault_points, "_specification", "shards.before_stored_manifest:1:fail")
    monkeypatch.setattr(fault_points, "_passed", fault_points.Counter())
    with pytest.raises(OSError, match="shards"):
        upload_shards(folder, Store(ADDRESS))
    assert "shards/manifest.json" not in s3.names()
    s3.delete("shards/train-000001.tar")
    assert upload_shards(folder, Store(ADDRESS)) == 2
    assert s3.content("shards/train-000001.tar") == (folder / "train-000001.tar").read_bytes()


def test_other_shards_at_the_address_are_not_overwritten(s3, folder, tmp_path):
    upload_shards(folder, Store(ADDRESS))
    write_directory(tmp_path / "other", train=((400,),))
    with pytest.raises(ValueError, match="holds other shards"):
        upload_shards(tmp_path / "other", Store(ADDRESS))


def test_a_cache_smaller_than_the_corpus_gives_the_same_batches_and_keeps_its_limit(s3, tmp_path):
    write_directory(tmp_path / "built", train=((400,),) * 9)
    (tmp_path / "built" / "tokenizer").mkdir(exist_ok=True)
    upload_shards(tmp_path / "built", Store(ADDRESS))
    options = StreamOptions(global_batch_rows=1, micro_batch_rows=1, lengths=((0, 32),))
    most = max(shard.num_bytes for shard in shards_of(open_location(tmp_path / "built").manifest))
    place = open_location(ADDRESS, tmp_path / "cache", cache_gb=4 * most / 1e9)
    known = {"vocabulary": vocabulary(), "chunk_tokens": 1}  # one row after the other
    streams = [MaskedStream(each, options, 0, 1, **known) for each in (place, tmp_path / "built")]
    fetched = set()
    for got, want in islice(zip(*(stream.batches(0) for stream in streams), strict=True), 300):
        np.testing.assert_array_equal(got.input_ids, want.input_ids)
        present = list(place.directory.glob("*.tar"))
        fetched |= {path.name for path in present}
        assert sum(path.stat().st_size for path in present) <= 4 * most
    assert len(fetched) == 9


def test_what_is_missing_or_of_another_size_is_listed_before_the_first_step(s3, folder, tmp_path):
    upload_shards(folder, Store(ADDRESS))
    s3.delete("shards/train-000000.tar")
    s3.put("shards/train-000001.tar", b"short")
    with pytest.raises(ValueError, match="2 shards do not match") as caught:
        batches(ADDRESS, tmp_path / "cache")
    assert "train-000000.tar: missing" in str(caught.value)
    assert "train-000001.tar: 5 bytes" in str(caught.value)
    with pytest.raises(ValueError, match=r"manifest\.json of the shards 's3://bucket/none' cannot be fetched"):
        open_location("s3://bucket/none", tmp_path / "cache")


def test_a_damaged_shard_never_gets_its_name(s3, folder, tmp_path):
    upload_shards(folder, Store(ADDRESS))
    content = bytearray((folder / "train-000000.tar").read_bytes())
    content[700] ^= 1
    s3.put("shards/train-000000.tar", bytes(content))
    place = open_location(ADDRESS, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"train-000000\.tar: its sha256"):
        place.fetch(place.manifest.split("train").shards[0])
    assert not list(place.directory.glob("*train*"))
