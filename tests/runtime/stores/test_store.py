"""Files of a store, over connections that are cut, and in a folder."""

import os

import pytest
from s3_server import s3_server

from runtime.stores import store as store_module
from runtime.stores.store import NoAccess, Store, StoreError


@pytest.fixture(scope="module")
def server():
    with s3_server() as running:
        yield running


@pytest.fixture
def s3(server, monkeypatch):
    """The server with its bucket as it is, found by this process."""
    server.meet(monkeypatch)
    return server


@pytest.fixture(params=["s3", "folder"])
def store(request, tmp_path):
    if request.param == "folder":
        return Store(tmp_path / "other disk" / "run")
    request.getfixturevalue("s3")
    return Store(f"s3://bucket/{tmp_path.name}")


def test_what_is_put_is_listed_read_and_deleted(store, tmp_path):
    assert store.sizes() == {}
    assert store.read("a/b.json", 10) is None
    store.write("a/b.json", b"hello")
    store.write("a/empty", b"")
    (tmp_path / "local").write_bytes(b"file" * 100)
    store.upload(tmp_path / "local", "c.bin")
    assert store.sizes() == {"a/b.json": 5, "a/empty": 0, "c.bin": 400}
    assert store.sizes("a") == {"a/b.json": 5, "a/empty": 0}
    assert (store.read("a/b.json", 5), store.read("a/empty", 5)) == (b"hello", b"")
    with pytest.raises(ValueError, match="has 5 bytes, the limit is 4"):
        store.read("a/b.json", 4)
    store.download("c.bin", tmp_path / "copy", num_bytes=400)
    assert (tmp_path / "copy").read_bytes() == b"file" * 100
    store.remove(["c.bin", "a/b.json", "never there"])
    assert store.sizes() == {"a/empty": 0}


def test_a_download_that_is_not_what_the_manifest_says_never_gets_its_name(store, tmp_path):
    store.write("shard", b"x" * 100)
    with pytest.raises(ValueError, match=r"shard: its sha256 begins with [0-9a-f]{12}, the manifest says 000000000000"):
        store.download("shard", tmp_path / "shard", num_bytes=100, sha256="0" * 64)
    with pytest.raises(FileNotFoundError):
        store.download("other", tmp_path / "other", num_bytes=100)
    assert not list(tmp_path.glob("*shard*"))
    assert not list(tmp_path.glob(".*"))


def test_cut_connections_cost_a_piece_and_no_byte(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "PIECE_BYTES", 1 << 16)
    content = os.urandom(300_000)
    (tmp_path / "file").write_bytes(content)
    store = Store("s3://bucket/cut")
    s3.proxy.cuts[:] = [("up", 100_000), ("up", 250_000), ("down", 100)]  # twice half-written, once without an answer
    store.upload(tmp_path / "file", "file")
    assert s3.proxy.num_cut == 3
    assert s3.content("cut/file") == content
    s3.proxy.cuts[:] = [("down", 30_000), ("down", 100_000), ("down", 10)]
    store.download("file", tmp_path / "back", num_bytes=len(content))
    assert s3.proxy.num_cut == 6
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.slow
def test_an_upload_that_never_ends_leaves_no_object(s3, tmp_path):
    (tmp_path / "file").write_bytes(bytes(200_000))
    s3.proxy.cuts[:] = [("up", 100_000)] * 50
    with pytest.raises(StoreError, match=r"uploading s3://bucket/half/file: .* \(attempt 2\): check the network"):
        Store("s3://bucket/half", attempts=2).upload(tmp_path / "file", "file")
    s3.proxy.cuts.clear()
    assert Store("s3://bucket/half").sizes() == {}


@pytest.mark.slow
def test_a_store_that_is_down_and_a_bucket_that_is_missing_are_said(s3, tmp_path):
    with pytest.raises(NoAccess, match="listing s3://other/x/: no such bucket"):
        Store("s3://other/x").sizes()
    with pytest.raises(NoAccess, match="no such bucket"):
        Store("s3://other/x").write("name", b"1")
    s3.proxy.refused = True
    with pytest.raises(StoreError, match=r"reading s3://bucket/x/name: .*check the network") as caught:
        Store("s3://bucket/x", attempts=1).read("name", 10)
    assert "test-secret-key" not in str(caught.value)


def test_missing_credentials_are_said_at_once(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(store_module.time, "sleep", lambda seconds: pytest.fail("tried again"))
    with pytest.raises(NoAccess, match="NoCredentialsError"):
        Store("s3://bucket/x").write("name", b"1")


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    def missing(protocol):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(store_module.fsspec, "get_filesystem_class", missing)
    with pytest.raises(ValueError, match=r"pip install s3fs \(the extra 's3' names it\)"):
        Store("s3://bucket/x")
    with pytest.raises(ValueError, match=r"pip install gcsfs \(the extra 'gcs' names it\)"):
        Store("gs://bucket/x")
