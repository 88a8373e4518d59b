"""Packed files that unfold to far more than text does, and binary content under a text's name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import subprocess
import sys
import tarfile
import time
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from shards.text.compression import FREE_BYTES, LARGEST_RATIO, CountedStream, Expansion
from shards.text.plain_text import TextRules
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources

MEGABYTE = 1 << 20


def write_packed(path, piece, times, head=b""):
    """A file of `head` and `times` times `piece`, packed as its last suffix says, in one stream."""
    if path.suffix == ".zst":
        with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
            file.write(head)
            for _ in range(times):
                file.write(piece)
        return
    opener = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}[path.suffix]
    options = {"preset": 0} if path.suffix == ".xz" else {"compresslevel": 6}
    with opener(path, "wb", **options) as file:
        file.write(head)
        for _ in range(times):
            file.write(piece)


def in_zip(path, piece, times, members=1):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(members):
            with archive.open(f"{number}.txt", "w", force_zip64=True) as file:
                for _ in range(times):
                    file.write(piece)


def in_tar(path, content, name):
    with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def read_all(path, **rules):
    """Characters of all documents, read one by one."""
    reader = DocumentReader(TextRules(**rules))
    (source,) = find_sources([str(path)])
    return sum(len(text) for text in reader.read(source))


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("document", ["file", "line"])
def test_one_that_unpacks_to_hundreds_of_times_its_size_is_refused(tmp_path, suffix, document):
    path = tmp_path / f"corpus.txt{suffix}"
    write_packed(path, b"a" * MEGABYTE, 120)
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"corpus\.txt\.\w+ unpacks to over 250 times its size .*: leave it out, or"):
        read_all(path, document=document)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["corpus.jsonl.gz", "corpus.csv.gz", "corpus.csv.bz2", "corpus.tsv.xz"])
def test_so_is_one_of_rows(tmp_path, name):
    row = json.dumps({"text": "a" * 1000}).encode() if "jsonl" in name else b"a" * 1000
    write_packed(tmp_path / name, (row + b"\n") * 1000, 250, head=b"" if "jsonl" in name else b"text\n")
    with pytest.raises(ValueError, match="unpacks to over 250 times its size"):
        read_all(tmp_path / name)


@pytest.mark.parametrize("kind", ["one member", "many members", "packed member", "packed tar", "tar of a packed file"])
def test_so_is_one_in_an_archive(tmp_path, kind):
    piece, path = b"a" * MEGABYTE, tmp_path / "corpus.zip"
    if kind == "one member":
        in_zip(path, piece, 120)
    elif kind == "many members":
        in_zip(path, piece, 2, members=60)
    elif kind == "packed member":
        write_packed(tmp_path / "a.txt.bz2", piece, 120)
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "a.txt.bz2", "a.txt.bz2")
    elif kind == "packed tar":
        path = tmp_path / "corpus.tar.gz"
        in_tar(path, piece * 120, "a.txt")
    else:
        path = tmp_path / "corpus.tar"
        write_packed(tmp_path / "a.txt.gz", piece, 120)
        in_tar(path, (tmp_path / "a.txt.gz").read_bytes(), "a.txt.gz")
    with pytest.raises(ValueError, match="unpacks to over 250 times its size"):
        read_all(path)


@pytest.mark.parametrize("texts", [["a" * (120 * MEGABYTE)], ["a" * 100_000] * 1_200])
def test_so_is_a_parquet_file(tmp_path, texts):
    path = tmp_path / "corpus.parquet"
    table = pyarrow.table({"text": pyarrow.array(texts, pyarrow.large_string())})
    pyarrow.parquet.write_table(table, path, compression="zstd")
    with pytest.raises(ValueError, match="unpacks to over 250 times its size"):
        read_all(path)


@pytest.mark.parametrize("name", ["corpus.txt", "corpus.txt.gz", "corpus.jsonl", "corpus.csv", "corpus.jsonl.gz"])
def test_a_block_of_zero_bytes_is_no_text(tmp_path, name):
    content = b"text\n" + bytes(10_000) + b"\nmore\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(ValueError, match=rf"{name}.*(zero bytes from byte 5 on are not text|not JSON)"):
        read_all(tmp_path / name)


def test_what_repeats_itself_as_text_may_is_read(tmp_path):
    """A log of the same lines but for a number and a time, and a small file of one word over and over."""
    generator = random.Random(0)
    lines = "".join(
        f"2024-01-0{number % 9} {generator.randrange(10**6):06} INFO worker: the request was answered in time\n"
        for number in range(20_000)
    )
    write_packed(tmp_path / "log.txt.xz", lines.encode(), 70)
    assert (tmp_path / "log.txt.xz").stat().st_size * 5 < len(lines) * 70
    assert read_all(tmp_path / "log.txt.xz", document="line") > FREE_BYTES
    write_packed(tmp_path / "word.txt.gz", b"word " * MEGABYTE, 10)
    assert read_all(tmp_path / "word.txt.gz") == 50 * MEGABYTE
    (tmp_path / "rule.txt").write_bytes(b"=" * 100_000 + bytes(1000))
    assert read_all(tmp_path / "rule.txt") == 101_000


def test_the_bound_is_a_share_of_what_was_read():
    packed = 10_000
    expansion = Expansion("corpus", lambda: packed)
    expansion.add(FREE_BYTES + LARGEST_RATIO * packed)
    with pytest.raises(ValueError, match=r"corpus unpacks .*out of 10,000 bytes"):
        expansion.add(1)
    counted = Expansion("corpus", lambda: packed)
    assert io.BufferedReader(CountedStream(io.BytesIO(b"some bytes"), counted)).read() == b"some bytes"
    assert counted.unpacked == 10


@pytest.mark.slow
def test_a_build_of_five_gigabytes_of_zeros_fails_at_once_and_in_little_memory(tmp_path, project_root):
    path = tmp_path / "zeros.txt.gz"
    member = gzip.compress(bytes(100 * MEGABYTE))
    path.write_bytes(member * 50)
    script = [sys.executable, str(project_root / "launch" / "build_shards.py"), "--output_dir", str(tmp_path / "out")]
    before, ended = measured([*script, "--processes", "1", "--input", str(tmp_path / "nothing.txt")])
    assert "no such file" in ended.stderr
    began = time.monotonic()
    kilobytes, ended = measured([*script, "--processes", "1", "--input", str(path)])
    assert time.monotonic() - began < 60
    assert kilobytes - before < 200_000
    assert ended.returncode == 2
    assert "zeros.txt.gz" in ended.stderr
    assert "are not text" in ended.stderr
    assert "Traceback" not in ended.stderr


def measured(command):
    """The largest memory of a command in kB, and how it ended; it begins with that of whoever starts it."""
    script = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
        "print('used', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    ended = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)
    return int(ended.stdout.split("used")[1]), ended
