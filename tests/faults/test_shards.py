"""Rows of docs/reliability.md about shards: damaged, missing, unexpected or hostile files are refused by name."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from pretraining_runs import assert_same_course, course, journal, series, write_shards
from servers.tls_server import tls_server

from tests.faults.commands import MOST_SECONDS, REFUSED

pytestmark = pytest.mark.slow
SHARD = "train-000000.tar"


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """The same text in a dozen shards."""
    return write_shards(tmp_path_factory.mktemp("many"), blocks_per_shard=1)


@pytest.fixture
def several(many, tmp_path) -> Path:
    """A copy of them for a test that damages them."""
    shutil.copytree(many, tmp_path / "several")
    return tmp_path / "several"


def seal(directory: Path, **changes: object) -> None:
    """Make the manifest agree with a shard that was changed."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    content = (directory / SHARD).read_bytes()
    manifest["splits"]["train"]["shards"][0].update(bytes=len(content), sha256=sha256(content).hexdigest())
    path.write_text(json.dumps({**manifest, **changes}))


def refused(commands, shards, output, *parts, **options):
    said = commands.pretrain(shards, output, options, REFUSED)
    assert "Traceback" not in said
    for part in parts:
        assert part in said, said[-3000:]
    assert not journal(output)
    return said


@pytest.mark.parametrize("cut", [512, 700, -1024], ids=["at a header", "in a payload", "at the end blocks"])
def test_fault_09_truncated_shard(commands, copied, tmp_path, cut):
    content = (copied / SHARD).read_bytes()
    (copied / SHARD).write_bytes(content[:cut])
    size = len(content[:cut])
    refused(commands, copied, tmp_path / "run", SHARD, f"{size} bytes", f"{len(content)} expected")


def test_fault_10_bit_flipped_in_a_shard(commands, copied, many, tmp_path):
    """By default when the shard is opened, before any of its rows is used; with --verify full before the first step."""
    content = bytearray((copied / SHARD).read_bytes())
    content[700] ^= 1
    (copied / SHARD).write_bytes(content)
    refused(commands, copied, tmp_path / "opened", SHARD, "sha256")
    refused(commands, copied, tmp_path / "full", SHARD, "sha256", verify="full")


def test_fault_11_shards_missing_empty_or_a_web_page(commands, several, tmp_path):
    (several / "train-000001.tar").unlink()
    (several / "train-000003.tar").write_bytes(b"")
    (several / "train-000005.tar").write_text("<html><body>404</body></html>")
    names = [f"train-{number:06d}.tar" for number in (1, 3, 5)]
    said = refused(commands, several, tmp_path / "run", "3 shards", *names)
    assert "train-000002.tar" not in said


def test_fault_12_extra_or_renamed_shard(commands, several, tmp_path):
    shutil.copy(several / "train-000001.tar", several / "train-000099.tar")
    refused(commands, several, tmp_path / "extra", "train-000099.tar")
    (several / "train-000099.tar").unlink()
    (several / "train-000001.tar").rename(several / "train-000098.tar")
    refused(commands, several, tmp_path / "renamed", "train-000001.tar")


def test_fault_13_fewer_shards_than_ranks_times_workers(commands, shards, whole, full, tmp_path):
    """One shard of training blocks, two ranks with two data workers each."""
    assert len(list(shards.glob("train-*.tar"))) == 1
    commands.pretrain_ranks(2, shards, tmp_path / "run", {**full, "dataloader_num_workers": 2})
    assert_same_course(whole, tmp_path / "run")
    assert {line["world_size"] for line in journal(tmp_path / "run")} == {2}


def test_fault_14_shards_that_do_not_divide_among_ranks(commands, full, tmp_path):
    """Four shards on three ranks: the same number of updates on each, and each row once in each pass."""
    four = write_shards(tmp_path / "four", blocks_per_shard=3)
    assert len(list(four.glob("train-*.tar"))) == 4
    commands.pretrain(four, tmp_path / "alone", full)
    commands.pretrain_ranks(3, four, tmp_path / "run", full)
    assert_same_course(tmp_path / "alone", tmp_path / "run")
    trunk = [line["rows"] for line in journal(tmp_path / "run") if line["segment"] == "trunk"]
    assert trunk == [[12 * number, 12 * number + 11] for number in range(len(trunk))]


def test_fault_15_another_tokenizer_than_the_shards(commands, copied, tmp_path):
    path = copied / "tokenizer" / "tokenizer.json"
    whole = path.read_text()
    tokenizer = json.loads(whole)
    words = tokenizer["model"]["vocab"]
    first, last = list(words)[5], list(words)[-1]
    words[first], words[last] = words[last], words[first]
    path.write_text(json.dumps(tokenizer))
    refused(commands, copied, tmp_path / "swapped", "tokenizer")
    path.write_text(whole)
    block = json.loads((copied / "manifest.json").read_text())["splits"]["train"]["shards"][0]["blocks"][0]
    content = bytearray((copied / SHARD).read_bytes())
    start = block["offset"] + 512 + 128  # the member's header, and that of the array
    content[start : start + 2] = np.array([45], np.uint16).tobytes()
    (copied / SHARD).write_bytes(content)
    seal(copied)
    refused(commands, copied, tmp_path / "beyond", SHARD, "45")


class Opens:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def member_changed(content: bytearray, *, name: bytes | None = None, kind: bytes = b"0", payload: bytes = b"") -> None:
    """Change name, type or payload of a shard's first member, and its header's checksum."""
    if name is not None:
        content[0:100] = name.ljust(100, b"\0")
    content[156:157] = kind
    if payload:
        content[512 : 512 + len(payload)] = payload
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])


@pytest.mark.parametrize("extension", ["npy", "pkl", "pth", "pyd", "txt", "json"])
def test_fault_27_pickle_in_a_shard(commands, copied, tmp_path, extension):
    trap, payload = tmp_path / "executed", io.BytesIO()
    evil = Opens(trap)
    if extension == "npy":
        np.save(payload, np.array([evil], dtype=object), allow_pickle=True)
    else:
        payload.write(pickle.dumps(evil))
    content = bytearray((copied / SHARD).read_bytes())
    name = f"train-00000000.tokens.{extension}".encode()
    member_changed(content, name=name, payload=payload.getvalue())
    (copied / SHARD).write_bytes(content)
    seal(copied)
    refused(commands, copied, tmp_path / "run", SHARD, f"tokens.{extension}")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        (b"../outside.tokens.npy", b"0", "../outside"),
        (None, b"2", "symbolic link"),
        (None, b"1", "hard link"),
        (None, b"3", "character device"),
        (None, b"S", "sparse file"),
    ],
)
def test_fault_29_tar_with_paths_links_devices_and_sparse_files(commands, copied, tmp_path, name, kind, said):
    content = bytearray((copied / SHARD).read_bytes())
    member_changed(content, name=name, kind=kind)
    (copied / SHARD).write_bytes(content)
    seal(copied)
    refused(commands, copied, tmp_path / "run", SHARD, said)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"schema_version": ' + "9" * 5000 + "}", '{"splits": {}, "splits": {}}', "{}", "null"],
    ids=["nested", "long number", "double key", "empty", "null"],
)
def test_fault_30_huge_or_nested_manifest(commands, copied, tmp_path, text):
    (copied / "manifest.json").write_text(text)
    refused(commands, copied, tmp_path / "run", "manifest.json")
    assert commands.started[-1].cpu_seconds < MOST_SECONDS


def test_fault_52_special_ids_of_the_manifest_are_the_tokenizers(commands, copied, tmp_path):
    path = copied / "manifest.json"
    path.write_text(path.read_text().replace('"mask": 4', '"mask": 7'))
    refused(commands, copied, tmp_path / "run", "mask", "7", "4")


@pytest.mark.parametrize("length", ["abc", "-5"])
def test_fault_54_a_server_that_says_no_number_of_bytes(commands, shards, tmp_path, length):
    with tls_server(shards, tmp_path) as server:
        server.length = length
        variables = {"SSL_CERT_FILE": str(server.certificate), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        said = commands.pretrain(server.address, tmp_path / "run", {}, REFUSED, **variables)
    assert f"manifest.json of the shards '{server.address}' cannot be fetched" in said
    assert f"its Content-Length is '{length}', not a number of bytes" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "cache").rglob("*.partial"))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_fault_53_a_server_that_sends_a_byte_now_and_then(commands, shards, tmp_path):
    """Three attempts of a minute each."""
    with tls_server(shards, tmp_path) as server:
        server.pause_seconds = 0.2
        variables = {"SSL_CERT_FILE": str(server.certificate), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        command = commands.start_pretraining(server.address, tmp_path / "run", {}, **variables)
        assert command.wait(300) == REFUSED
    assert "fewer than 1000 a second" in command.said
    assert server.address in command.said


def test_fault_55_a_tokenizer_path_that_names_a_shard(commands, copied, tmp_path):
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tokenizer"]["path"] = SHARD
    path.write_text(json.dumps(manifest))
    refused(commands, copied, tmp_path / "run", SHARD)
    assert course(tmp_path / "run") == []
    assert not (tmp_path / "run" / "series.json").exists() or not series(tmp_path / "run")
    with tls_server(copied, tmp_path) as server:
        variables = {"SSL_CERT_FILE": str(server.certificate), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        said = commands.pretrain(server.address, tmp_path / "remote", {}, REFUSED, **variables)
    assert SHARD in said
    assert "Traceback" not in said
