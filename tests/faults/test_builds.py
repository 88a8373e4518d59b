"""Rows of docs/reliability.md about `launch/build_shards.py`: its input, kills, and the files it leaves."""

from __future__ import annotations

import gzip
import io
import json
import random
import signal
import sqlite3
import tarfile
import time
from hashlib import sha256
from pathlib import Path

import pytest

from tests.faults.commands import BUILD, REFUSED

pytestmark = pytest.mark.slow
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def tokenizer(shards) -> Path:
    return shards.parent / "tokenizer"


@pytest.fixture(scope="module")
def words(tokenizer) -> list[str]:
    return [word for word in json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"] if word.isalpha()]


@pytest.fixture
def build(commands, tokenizer, tmp_path):
    """Build shards from inputs into tmp_path/out, in one process; returns what the command printed."""

    def call(*inputs, status=0, out="out", options=(), **more):
        argv = ["--input", *inputs, "--output_dir", tmp_path / out, "--tokenizer", tokenizer, "--processes", 1]
        argv += ["--block_tokens", 512, "--blocks_per_shard", 4, *options]
        said = commands.run(BUILD, argv, tmp_path / "build.log", status, **more)
        assert "Traceback" not in said
        return said

    return call


def text_of(words: list[str], bytes_wanted: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(words, k=bytes_wanted // 5))


def manifest(directory: Path) -> dict:
    return json.loads((directory / "manifest.json").read_text())


def digests(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): sha256(path.read_bytes()).hexdigest() for path in files}


def test_fault_23_empty_or_blank_input(build, words, tmp_path):
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "good.txt").write_text(text_of(words, 20_000))
    said = build(tmp_path / "blank.txt", tmp_path / "empty.txt", status=REFUSED)
    assert "no document is left of 2 read" in said
    said = build(tmp_path / "blank.txt", tmp_path / "empty.txt", tmp_path / "good.txt", out="more")
    assert "blank.txt holds no text" in said
    assert "empty.txt holds no text" in said
    assert manifest(tmp_path / "more")["changed"]["blank_sources"] == 2


def test_fault_24_text_that_is_not_utf_8(build, words, tmp_path):
    good = text_of(words, 20_000).encode()
    (tmp_path / "bad.txt").write_bytes(good[:9000] + b"\xff\xfe" + good[9000:])
    said = build(tmp_path / "bad.txt", status=REFUSED)
    assert "bad.txt" in said
    assert "9000" in said
    assert not list((tmp_path / "out").glob("*.tar"))
    build(tmp_path / "bad.txt", options=["--on_bad_text", "replace"])
    assert sum(n for name, n in manifest(tmp_path / "out")["changed"].items() if "utf" in name) == 1


def test_fault_25_one_document_of_many_megabytes(build, commands, words, tmp_path):
    """Four times the text takes about four times the time, and no more memory."""
    seconds, peaks = [], []
    for megabytes in (2, 8):
        path = tmp_path / f"{megabytes}.txt"
        path.write_text(text_of(words, megabytes * MEGABYTE))
        began = time.monotonic()
        build(path, out=f"out-{megabytes}", options=["--max_document_mb", 32])
        seconds.append(time.monotonic() - began)
        peaks.append(commands.started[-1].peak_kilobytes)
        assert manifest(tmp_path / f"out-{megabytes}")["sources"][0]["documents"] == 1
    assert seconds[1] < 8 * seconds[0]
    assert peaks[1] - peaks[0] < 6 * 20 * 1024  # at most 20 bytes per byte of text


def test_fault_26_document_of_length_zero(build, words, tmp_path):
    texts = [text_of(words, 2_000, seed) for seed in range(10)]
    rows = [{"text": text} for text in (texts[0], "", *texts[1:5], " ", "", *texts[5:])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = build(tmp_path / "rows.jsonl")
    assert manifest(tmp_path / "out")["dropped"] == {"empty": 3}
    assert "empty 3" in said


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


def test_fault_29_archives_of_text_with_links_devices_and_a_sparse_bomb(build, words, tmp_path):
    """Links and devices hold no text and are counted; no member is written to disk; a bomb is refused."""
    good = (member("good.txt"), text_of(words, 20_000).encode())
    (tmp_path / "secret.txt").write_text(text_of(words, 30_000, seed=5))
    links = [(member("link.txt", tarfile.SYMTYPE, str(tmp_path / "secret.txt")), b"")]
    links += [(member("device.txt", tarfile.CHRTYPE), b""), (member("hard.txt", tarfile.LNKTYPE, "/etc/passwd"), b"")]
    up = (member("../up.txt"), text_of(words, 20_000, seed=7).encode())
    build(archive(tmp_path / "links.tar", good, up, *links))
    found = manifest(tmp_path / "out")
    assert found["changed"]["archive_members_skipped"] == 3
    assert found["text_bytes"] < 45_000
    assert not (tmp_path.parent / "up.txt").exists()
    bomb = tarfile.TarInfo("bomb.txt")
    bomb.type, bomb.pax_headers = tarfile.GNUTYPE_SPARSE, {}
    header = bytearray(bomb.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (1 << 32)  # the size it claims
    header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "bomb.tar").write_bytes(bytes(header) + bytes(1024))
    began = time.monotonic()
    said = build(tmp_path / "bomb.tar", status=REFUSED, out="bomb")
    assert "bomb.t" in said
    assert time.monotonic() - began < 60


@pytest.fixture(scope="module")
def rows(words, tmp_path_factory) -> Path:
    """Documents that fill some dozens of shards."""
    texts = [{"text": text_of(words, 4_000, seed)} for seed in range(300)]
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in texts))
    return path


def test_fault_41_killed_while_sharding(build, rows, tmp_path):
    """At each place where a build writes: a shard, its place in the database, the manifest."""
    build(rows, out="whole")
    for point in ("shard:2", "commit:2", "finish:1", "before_manifest:1", "after_manifest:1"):
        out = point.partition(":")[0]
        build(rows, status=-signal.SIGKILL, out=out, FAULT_POINT=f"build.{point}:kill")
        for path in (tmp_path / out).glob("*.tar"):
            content = path.read_bytes()
            assert len(content) % 512 == 0
            assert not any(content[-1024:])
        build(rows, out=out)
        assert digests(tmp_path / out) == digests(tmp_path / "whole")


def test_fault_48_a_packed_file_of_zeros(build, commands, words, tmp_path):
    (tmp_path / "few.txt.gz").write_bytes(gzip.compress(text_of(words, 20_000).encode()))
    build(tmp_path / "few.txt.gz", out="few")
    before = commands.started[-1].peak_kilobytes
    (tmp_path / "zeros.txt.gz").write_bytes(gzip.compress(bytes(100 * MEGABYTE)) * 2)
    said = build(tmp_path / "zeros.txt.gz", status=REFUSED)
    assert "zeros.txt.gz" in said
    assert before > 0
    assert commands.started[-1].peak_kilobytes - before < 50_000  # of 200 MB
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("megabytes", "document_mb", "trained", "most_kilobytes"),
    [(200, None, False, 1_200_000), (200, None, True, 2_300_000), (60, 300, True, 3_400_000)],
    ids=["in documents of the default size", "with a tokenizer's training", "as one document"],
)
def test_fault_64_one_line_of_200_megabytes(
    commands, tokenizer, words, tmp_path, megabytes, document_mb, trained, most_kilobytes
):
    """Bounds of memory hold 0.45 GB of imports; the training of a tokenizer takes the most."""
    (tmp_path / "line.txt").write_text(text_of(words, megabytes * MEGABYTE))
    began = time.monotonic()
    argv = [
        "--input",
        tmp_path / "line.txt",
        "--output_dir",
        tmp_path / "out",
        "--document",
        "line",
    ]
    argv += ["--vocab_size", 300] if trained else ["--tokenizer", tokenizer]
    argv += ["--max_document_mb", document_mb] if document_mb else []
    command = commands.start(BUILD, argv, tmp_path / "build.log")
    assert command.wait(800) == 0, command.said
    assert time.monotonic() - began < 600
    documents = manifest(tmp_path / "out")["sources"][0]["documents"]
    assert documents == 1 if document_mb else documents > 10
    assert command.peak_kilobytes < most_kilobytes


@pytest.mark.parametrize("damage", ["garbage", "value", "table"])
def test_fault_67_the_database_of_an_unfinished_build_tampered_with(build, rows, tmp_path, damage):
    build(rows, status=-signal.SIGKILL, FAULT_POINT="build.commit:2:kill")
    path = tmp_path / "out" / "building" / "state.sqlite3"
    if damage == "garbage":
        for each in path.parent.glob("state.sqlite3*"):
            each.unlink()
        path.write_bytes(random.Random(0).randbytes(5000))
    else:
        with sqlite3.connect(path) as database:
            if damage == "value":
                database.execute("UPDATE state SET value = '[1, {\"a\": NaN}]' WHERE name = 'progress'")
            else:
                database.execute("DROP TABLE state")
                database.execute("CREATE TABLE state (name TEXT, other INTEGER)")
        database.close()
    said = build(rows, status=REFUSED)
    assert "state.sqlite3" in said
    assert "delete the directory" in said
