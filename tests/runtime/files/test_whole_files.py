"""Durable files: whole under their names, or not there."""

from __future__ import annotations

import hashlib
import os

import pytest

from runtime.files.foreign import printable
from runtime.files.whole_files import read_json, sha256_of, whole_file, write_json, write_text


def write_bytes(path):
    with whole_file(path) as file:
        file.write(b"new")


WRITERS = {
    "text": lambda path: write_text(path, "new"),
    "pieces": lambda path: write_text(path, iter(["n", "ew"])),
    "json": lambda path: write_json(path, {"new": True}),
    "bytes": write_bytes,
}


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"name": "ä", "list": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"name": "ä", "list": [1, 2.5, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"new": True})
    assert read_json(path) == {"old": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b"[" * 200_000, b""])
def test_what_is_no_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not readable as JSON"):
        read_json(tmp_path / "a.json")


def test_a_huge_file_is_not_read(tmp_path):
    write_text(tmp_path / "a.json", '"' + "x" * 20 + '"')
    with pytest.raises(ValueError, match="the limit is 10"):
        read_json(tmp_path / "a.json", largest=10)


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_what_a_command_says_is_of_bounded_length_and_no_control_of_the_terminal():
    assert printable("a\x1b[31mb\nc") == "a\\x1b[31mb\nc"
    assert printable(f"in '{'y' * 5000}' here") == f"in '{'y' * 399}... here"
    assert printable("\ud800").encode() == b"\\ud800"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, write):
    path, events = tmp_path / "results", []
    sync, rename = os.fsync, os.replace

    def noted_sync(descriptor):
        events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def noted_rename(source, target):
        events.append(("rename", str(source)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_rename)
    write(path)
    temporary = str(tmp_path / f".results.{os.getpid()}.tmp")
    assert events == [("sync", temporary), ("rename", temporary), ("sync", str(tmp_path))]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch, write):
    path = tmp_path / "results"
    path.write_text("old")

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results"]


def test_what_a_killed_process_of_the_same_number_left_is_overwritten(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / f".results.{os.getpid()}.tmp").symlink_to(outside)
    write_text(tmp_path / "results", ["a", "ä"])
    assert (tmp_path / "results").read_text("utf-8") == "aä"
    assert outside.read_text() == "kept"
