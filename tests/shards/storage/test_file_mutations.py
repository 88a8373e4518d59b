"""Shards, and what a server gives, changed at random: the blocks, or a clear refusal that names the file."""

import hashlib

import pytest
from file_mutations import few_and_many, refusals
from servers.tls_server import tls_server
from shard_directories import write_directory

from runtime.files import whole_files
from runtime.stores.store import Store
from shards.storage import https_folder
from shards.storage.location import open_location
from shards.storage.manifest import read_manifest
from shards.storage.reader import ShardReader
from shards.storage.shard_file import decode_sample
from shards.storage.uploading import upload_shards


@few_and_many
@pytest.mark.parametrize("knows", [True, False], ids=["as built", "as a stranger lists it"])
def test_a_shard(tmp_path, knows, rounds):
    data = write_directory(tmp_path, train=((300, 200),), validation=((50,),), with_words=True)
    path = tmp_path / "train-000000.tar"
    manifest = tmp_path / "manifest.json"
    whole = manifest.read_text()
    sha256 = data["splits"]["train"]["shards"][0]["sha256"]

    def read():
        if not knows:  # the manifest belongs to the changed file
            manifest.write_text(whole.replace(sha256, hashlib.sha256(path.read_bytes()).hexdigest()))
        reader = ShardReader(tmp_path, read_manifest(tmp_path), "train")
        assert [len(reader.block(number).tokens) for number in (0, 1)] == [300, 200]

    refusals(path, read, rounds, least=0.1)


@few_and_many
def test_a_block(tmp_path, rounds):
    data = write_directory(tmp_path, train=((40,),), validation=((50,),), with_words=True)
    block = data["splits"]["train"]["shards"][0]["blocks"][0]
    path = tmp_path / "block"
    content = (tmp_path / "train-000000.tar").read_bytes()
    path.write_bytes(content[block["offset"] : block["offset"] + block["bytes"]])
    refusals(path, lambda: decode_sample(path.read_bytes(), str(path)), rounds, least=0.1)


@few_and_many
@pytest.mark.parametrize("place", ["server", "cache"])
@pytest.mark.parametrize("name", ["manifest.json", "train-000000.tar"])
def test_a_file_behind_https(tmp_path, monkeypatch, name, place, rounds):
    write_directory(tmp_path / "served", train=((60,),), validation=((50,),))
    monkeypatch.setattr(https_folder, "ATTEMPTS", 1)
    monkeypatch.setattr(https_folder, "sync_file", lambda path: None)  # a disk's seconds, not the reader's
    with tls_server(tmp_path / "served", tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        opened = open_location(server.address, tmp_path / "cache")
        shard = opened.manifest.split("train").shards[0]
        opened.fetch(shard)

        def read():
            if place == "server":
                (opened.directory / name).unlink(missing_ok=True)
            again = open_location(server.address, tmp_path / "cache")
            again.fetch(shard)
            assert len(ShardReader(again.directory, again.manifest, "train").block(0).tokens) == 60

        folder = tmp_path / "served" if place == "server" else opened.directory
        refusals(folder / name, read, rounds, named=name, least=0.2 if place == "server" else 0.0)


@few_and_many
@pytest.mark.parametrize(
    "head", ["200 OK\r\nContent-Length: {size}", "302 Found\r\nLocation: /moved_here/{name}"], ids=["it", "move"]
)
@pytest.mark.parametrize("name", ["manifest.json", "train-000000.tar"])
def test_an_answer_of_a_server(tmp_path, monkeypatch, name, head, rounds):
    """Its status, its headers and where it sends us are changed, not only what it holds."""
    write_directory(tmp_path / "served", train=((60,),), validation=((50,),))
    monkeypatch.setattr(https_folder, "ATTEMPTS", 1)
    monkeypatch.setattr(https_folder, "sync_file", lambda path: None)
    content = (tmp_path / "served" / name).read_bytes()
    (tmp_path / "served" / "moved_here").mkdir()
    (tmp_path / "served" / "moved_here" / name).write_bytes(content)
    answer = tmp_path / f"answer-{name}"
    answer.write_bytes(f"HTTP/1.0 {head.format(size=len(content), name=name)}\r\n\r\n".encode() + content)
    with tls_server(tmp_path / "served", tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        server.answers[f"/{name}"] = answer

        def read():
            for path in (tmp_path / "cache").glob(f"*/{name}"):
                path.unlink()
            opened = open_location(server.address, tmp_path / "cache")
            try:
                opened.fetch(opened.manifest.split("train").shards[0])
            except OSError as error:  # no file is wrong: the server or the network is
                raise ValueError(str(error)) from error
            assert len(ShardReader(opened.directory, opened.manifest, "train").block(0).tokens) == 60

        # A digit of the manifest that has changed shows in the shard that it describes, which is then named.
        refusals(answer, read, rounds, named=name, or_named="the manifest")


@few_and_many
def test_the_list_of_what_has_been_uploaded(tmp_path, monkeypatch, rounds):
    write_directory(tmp_path / "built", train=((60,), (30,)), validation=((50,),))
    (tmp_path / "built" / "tokenizer").mkdir(exist_ok=True)
    monkeypatch.setattr(whole_files, "sync_file", lambda path: None)  # a disk's seconds, not the reader's
    store = Store(tmp_path / "store")
    upload_shards(tmp_path / "built", store)
    (path,) = (tmp_path / "built").glob(".uploaded-*.jsonl")
    whole = path.read_bytes()
    number = 2 * len(whole.splitlines())

    def read():
        changed = path.read_bytes()
        store.remove(["manifest.json"])
        try:
            assert upload_shards(tmp_path / "built", store) <= number
            assert all(
                (tmp_path / "store" / name).read_bytes() == (tmp_path / "built" / name).read_bytes()
                for name in store.sizes()
            )
        finally:
            path.write_bytes(changed)

    refusals(path, read, rounds, named=path.name, least=0.0)
