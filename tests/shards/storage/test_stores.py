"""Shards in a store: uploaded with the manifest last, read with cut connections, kept in a cache of bounded size."""

import json
import random
import sys
from itertools import islice

import numpy as np
import pytest
from pretraining_runs import ROOT, TIMEOUT_SECONDS, spawn, stop_session
from s3_server import s3_server
from shard_directories import vocabulary, write_directory

from runtime.processes import fault_points
from runtime.stores.store import Store
from shards.storage.check import shards_of
from shards.storage.location import open_location
from shards.storage.uploading import CONNECTIONS, upload_shards
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


def build(corpus, status, *options, fault=""):
    """The real command; what it printed."""
    argv = ["launch/build_shards.py", "--input", str(corpus), "--vocab_size", "300", "--blocks_per_shard", "4"]
    argv += ["--block_tokens", "512", "--processes", "1", "--near_duplicates", "ignore", *options]
    log = corpus.with_name("build.log")
    process = spawn([sys.executable, str(ROOT / argv[0]), *argv[1:]], log, corpus.parent, {"FAULT_POINT": fault})
    try:
        code = process.wait(TIMEOUT_SECONDS)
    finally:
        stop_session(process)
    printed = log.read_text()
    assert code == status, printed[-3000:]
    return printed


@pytest.fixture
def corpus(tmp_path):
    generator = random.Random(3)
    words = ["".join(generator.choices("abcdefgh", k=4)) for _ in range(200)]
    lines = [" ".join(generator.choices(words, k=60)) for _ in range(600)]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "text.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return tmp_path / "corpus" / "text.jsonl"


def stored(s3, key):
    """What the store has below the key."""
    return {name.removeprefix(f"{key}/"): s3.content(name) for name in s3.names() if name.startswith(f"{key}/")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("store.before_upload:1:kill", -9),
        ("store.after_upload:5:kill", -9),
        ("shards.before_stored_manifest:1:kill", -9),
        ("store.before_upload:6:terminate", 75),
    ],
    ids=["before the first file", "in the middle", "before the manifest", "SIGTERM in the middle"],
)
def test_fault_71_a_build_killed_while_its_shards_are_uploaded(s3, corpus, tmp_path, fault, status):
    """The manifest is not there before all of them; the same command uploads the rest, and the shards are those of a
    build that was not uploaded."""
    out, key = tmp_path / "shards", "corpora/x"
    place = ("--output_dir", str(out), "--upload", f"s3://bucket/{key}")
    build(corpus, status, *place, fault=fault)
    assert "manifest.json" not in stored(s3, key)
    there = {name: written_at(s3, key, name) for name in stored(s3, key)}
    s3.proxy.cuts[:] = [("up", 3_000)]
    printed = build(corpus, 0, *place)
    assert f"uploaded to s3://bucket/{key}, the manifest last" in printed
    whole = tmp_path / "whole"
    build(corpus, 0, "--output_dir", str(whole))
    files = {path.relative_to(whole).as_posix(): path.read_bytes() for path in whole.rglob("*") if is_shown(path)}
    assert stored(s3, key) == files
    assert len(files) > 7
    again = [name for name, time in there.items() if written_at(s3, key, name) != time]
    assert len(again) <= CONNECTIONS, "only what was under way together with the last is sent again"
    assert build(corpus, 0, *place).count("the manifest last") == 2


def written_at(server, key, name):
    return server.backend.get_object("bucket", f"{key}/{name}").last_modified


def is_shown(path):
    return path.is_file() and not path.name.startswith(".") and path.name != "run.lock"


@pytest.mark.slow
def test_an_address_as_output_dir_of_a_build_is_a_folder_and_its_copy(s3, corpus, tmp_path):
    printed = build(corpus, 0, "--output_dir", "s3://bucket/corpora/y")
    assert "uploaded to s3://bucket/corpora/y" in printed
    local = corpus.parent / "runs" / "bucket" / "corpora" / "y"
    files = {path.relative_to(local).as_posix(): path.read_bytes() for path in local.rglob("*") if is_shown(path)}
    assert stored(s3, "corpora/y") == files
    assert "manifest.json" in files
