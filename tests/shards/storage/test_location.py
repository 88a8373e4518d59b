import json
import os
import subprocess
import sys
import time
from itertools import islice

import numpy as np
import pytest
from servers.tls_server import tls_server
from shard_directories import vocabulary, write_directory

from shards.storage import https_folder, paced_socket
from shards.storage.location import open_location
from shards.streaming.stream import MaskedStream, StreamOptions

OPTIONS = StreamOptions(global_batch_rows=4, micro_batch_rows=4, lengths=((0, 32),))


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """(address, folder behind it) of a TLS server on this machine whose certificate is trusted for the test."""
    write_directory(tmp_path / "served")
    with tls_server(tmp_path / "served", tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        monkeypatch.setattr(https_folder, "ATTEMPTS", 1)
        yield server.address, server.folder


def first_batches(place, cache=None):
    stream = MaskedStream(place, OPTIONS, 0, 1, vocabulary=vocabulary(), cache_directory=cache, chunk_tokens=1)
    return list(islice(stream.batches(0), 5))


def test_shards_behind_https_give_the_same_batches_and_are_kept(remote, tmp_path):
    address, folder = remote
    expected = first_batches(folder)
    for _ in range(2):
        for got, want in zip(first_batches(address, tmp_path / "cache"), expected, strict=True):
            np.testing.assert_array_equal(got.input_ids, want.input_ids)
    (cached,) = (tmp_path / "cache").iterdir()
    assert not list(cached.glob(".*"))


def test_only_shards_that_are_opened_are_fetched(remote, tmp_path):
    address, _ = remote
    place = open_location(address, tmp_path / "cache")
    manifest = place.manifest
    place.check()
    assert not list(place.directory.glob("*.tar"))
    place.fetch(manifest.split("train").shards[1])
    assert [path.name for path in place.directory.glob("*.tar")] == ["train-000001.tar"]
    place.check("full")
    assert len(list(place.directory.glob("*.tar"))) == 3


def test_all_wrong_shards_are_listed_before_the_first_step(remote, tmp_path):
    address, folder = remote
    (folder / "train-000000.tar").unlink()
    (folder / "train-000001.tar").write_text("<html>Sign in</html>")
    with pytest.raises(ValueError, match="2 shards") as caught:
        first_batches(address, tmp_path / "cache")
    assert "train-000000.tar: HTTP Error 404" in str(caught.value)
    assert "train-000001.tar: 20 bytes" in str(caught.value)


def test_a_damaged_download_never_gets_the_shards_name(remote, tmp_path):
    address, folder = remote
    place = open_location(address, tmp_path / "cache")
    shard = place.manifest.split("train").shards[0]
    content = bytearray((folder / shard.name).read_bytes())
    content[700] ^= 1
    (folder / shard.name).write_bytes(content)
    with pytest.raises(ValueError, match=r"train-000000\.tar: .* are not what the manifest says"):
        place.fetch(shard)
    assert not list(place.directory.glob("*train*"))


def test_a_kept_shard_of_other_content_is_fetched_again(remote, tmp_path):
    address, folder = remote
    expected = first_batches(address, tmp_path / "cache")
    (cached,) = (tmp_path / "cache").iterdir()
    path = cached / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    for got, want in zip(first_batches(address, tmp_path / "cache"), expected, strict=True):
        np.testing.assert_array_equal(got.input_ids, want.input_ids)
    assert path.read_bytes() == (folder / path.name).read_bytes()


def test_what_a_killed_download_left_is_no_extra_shard(remote, tmp_path):
    place = open_location(remote[0], tmp_path / "cache")
    (place.directory / ".train-000000.tar.4711.partial").write_bytes(b"half")
    place.check("full")
    (place.directory / "other.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"other\.tar: not in the manifest"):
        place.check("full")


def test_partial_downloads_of_dead_processes_are_deleted_after_a_day(remote, tmp_path):
    place = open_location(remote[0], tmp_path / "cache")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    other = tmp_path / "cache" / "0123456789abcdef"  # of an address that nobody opens again
    other.mkdir()
    old, fresh = time.time() - 25 * 3600, time.time() - 3600
    left = {
        place.directory / f".train-000000.tar.{ended.pid}.partial": (old, False),
        other / f".train-000001.tar.{ended.pid}.partial": (old, False),
        other / f".train-000002.tar.{ended.pid}-139977.partial": (old, False),  # of a store
        other / f".train-000002.tar.{os.getpid()}-139977.partial": (old, True),
        place.directory / f".train-000001.tar.{ended.pid}.partial": (fresh, True),
        place.directory / f".train-000002.tar.{os.getpid()}.partial": (old, True),
        place.directory / "train-000009.tar": (old, True),
    }
    for path, (when, _) in left.items():
        path.write_bytes(b"half")
        os.utime(path, (when, when))
    open_location(remote[0], tmp_path / "cache")
    assert {path: path.exists() for path in left} == {path: stays for path, (_, stays) in left.items()}


def test_a_transfer_that_breaks_off_is_told_from_a_wrong_file(tmp_path, monkeypatch):
    write_directory(tmp_path / "served")
    monkeypatch.setattr(https_folder, "ATTEMPTS", 1)
    with tls_server(tmp_path / "served", tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        place = open_location(server.address, tmp_path / "cache")
        shard = place.manifest.split("train").shards[0]
        server.cut[shard.name] = 700
        with pytest.raises(OSError, match=r"train-000000\.tar cannot be fetched .*ended after 700 of \d+ bytes"):
            place.fetch(shard)
        assert not list(place.directory.glob("*train*"))
        server.cut["manifest.json"] = 50
        with pytest.raises(ValueError, match="ended after 50 of"):
            open_location(server.address, tmp_path / "cache")
        monkeypatch.setattr(https_folder, "ATTEMPTS", 2)
        monkeypatch.setattr(https_folder.time, "sleep", lambda seconds: server.cut.clear())
        place.fetch(shard)
        assert (place.directory / shard.name).stat().st_size == shard.num_bytes


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The same server with what it can be told to do wrong, its files opened once."""
    write_directory(tmp_path / "served")
    monkeypatch.setattr(https_folder, "ATTEMPTS", 1)
    with tls_server(tmp_path / "served", tmp_path) as served:
        monkeypatch.setenv("SSL_CERT_FILE", str(served.certificate))
        yield served


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ({"pause_seconds": 0.05}, r"\d+ bytes in \d+ s, fewer than 1000 a second"),
        ({"length": "abc"}, "its Content-Length is 'abc', not a number of bytes"),
        ({"length": "9" * 5000}, r"ended after 0 of 9{20} bytes"),
        ({"moved": "https://[bad"}, "the answer cannot be used"),
    ],
    ids=["drips", "no length", "long length", "no address"],
)
def test_a_server_that_answers_wrongly_is_given_up_soon_and_by_address(server, tmp_path, monkeypatch, fault, match):
    monkeypatch.setattr(paced_socket, "WINDOW_SECONDS", 0.3)
    place = open_location(server.address, tmp_path / "cache")
    for name, value in fault.items():
        setattr(server, name, value)
    started = time.monotonic()
    with pytest.raises(OSError, match=rf"{server.address}/train-000000\.tar cannot be fetched .*({match})"):
        place.fetch(place.manifest.split("train").shards[0])
    with pytest.raises(ValueError, match=rf"{server.address}' cannot be fetched .*({match})"):
        open_location(server.address, tmp_path / "cache")
    assert time.monotonic() - started < 20
    assert not list(place.directory.rglob(".*"))


TOKENIZER_PATHS = ("train-000000.tar", "train-000000.tar/x", "manifest.json", "a b", "x" * 300, "\ud800")


@pytest.mark.parametrize("path", TOKENIZER_PATHS)
def test_a_tokenizer_that_is_no_folder_of_its_own_is_refused(server, tmp_path, path):
    place = open_location(server.address, tmp_path / "cache")
    place.check("full")
    data = json.loads((server.folder / "manifest.json").read_text())
    data["tokenizer"]["path"] = path
    (server.folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"manifest\.json: tokenizer: .* is not a valid folder name"):
        open_location(server.address, tmp_path / "cache")


def test_a_file_where_the_tokenizer_belongs_is_named(server, tmp_path):
    place = open_location(server.address, tmp_path / "cache")
    (place.directory / "tokenizer").rmdir()
    (place.directory / "tokenizer").write_text("x")
    with pytest.raises(ValueError, match=r"tokenizer cannot be made, because a file is there: delete"):
        open_location(server.address, tmp_path / "cache")


def test_processes_divide_the_check(remote, tmp_path):
    address, folder = remote
    (folder / "train-000001.tar").unlink()
    place = open_location(address, tmp_path / "cache")
    place.check(share=(0, 2))
    with pytest.raises(ValueError, match=r"1 shards .*\n.*train-000001\.tar: HTTP Error 404"):
        place.check(share=(1, 2))


def test_a_redirect_out_of_https_is_not_followed(remote, tmp_path):
    address, _ = remote
    with pytest.raises(ValueError, match="unknown url type: http"):
        open_location(f"{address}/moved", tmp_path / "cache")


def test_a_server_without_trusted_certificate_is_refused(remote, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ValueError, match="CERTIFICATE_VERIFY_FAILED"):
        open_location(remote[0], tmp_path / "cache")


def test_a_manifest_that_is_a_web_page_is_refused(remote, tmp_path):
    address, folder = remote
    (folder / "manifest.json").write_text("<html>Sign in</html>")
    with pytest.raises(ValueError, match=r"manifest\.json: not JSON"):
        open_location(address, tmp_path / "cache")
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(ValueError, match="is missing"):
        open_location(address, tmp_path / "cache")


@pytest.mark.parametrize(
    "address",
    [
        "pipe:cat shards.tar",
        "http://host/shards",
        "file:///etc",
        "ftp://bucket/x",
        "s3://key:secret@bucket/x",
        "s3://bucket/${WDS_X}",
        "https://host/${WDS_X}",
        "https://",
        "https://host/{000..999}",
    ],
)
def test_other_schemes_and_expansions_are_refused(address):
    with pytest.raises(ValueError, match=r"plain https://host/path|give s3://bucket/path"):
        open_location(address)
