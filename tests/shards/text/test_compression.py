"""Compressed files as other programs write them: several frames, skippable ones, long windows, and what is no frame."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct

import pytest
import zstandard

from shards.text.compression import unpacked

TEXT = b"the river and the town\n" * 500
PACK = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"


def skippable(data: bytes, number: int = 0) -> bytes:
    """A frame that a zstandard reader passes over; pzstd writes the size of the next frame into one."""
    return struct.pack("<II", 0x184D2A50 + number, len(data)) + data


def content(path):
    with unpacked(path) as (_, stream):
        return stream.read()


@pytest.mark.parametrize("number", [0, 15])
def test_skippable_frames_are_passed_over_wherever_they_are(tmp_path, number):
    skip, frame, path = skippable(b"1234", number), zstandard.compress(TEXT), tmp_path / "a.txt.zst"
    path.write_bytes(skip + frame + skip + skip + frame + skip)
    assert content(path) == TEXT * 2
    path.write_bytes(skip + frame + skip[:-1])
    with pytest.raises(ValueError, match="ended before the end-of-stream marker"):
        content(path)


def test_a_window_of_two_gigabytes_is_read(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=31, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # as zstd --long=31 of a pipe
    (tmp_path / "a.zst").write_bytes(packer.compress(TEXT) + packer.flush())
    assert zstandard.get_frame_parameters((tmp_path / "a.zst").read_bytes()).window_size == 1 << 31
    assert content(tmp_path / "a.zst") == TEXT


@pytest.mark.parametrize("suffix", PACK)
def test_all_frames_of_a_file_are_read_and_zeros_after_them_are_padding(tmp_path, suffix):
    path, frame = tmp_path / f"a{suffix}", PACK[suffix](TEXT)
    path.write_bytes(frame * 3 + (bytes(3_000) if suffix != ".gz" else bytes(8)))
    assert content(path) == TEXT * 3


@pytest.mark.parametrize("suffix", PACK)
def test_what_follows_a_frame_and_is_none_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(PACK[suffix](TEXT) + TEXT)
    with pytest.raises(ValueError, match=rf"a{suffix} cannot be read"):
        content(path)


@pytest.mark.parametrize("suffix", [*PACK, ".tgz"])
def test_a_name_that_says_packed_over_a_plain_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(TEXT)
    with pytest.raises(ValueError, match=rf"cannot be unpacked: it is not a \{suffix} file"):
        content(path)
    path.write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"is a Git LFS pointer.*git lfs pull"):
        content(path)
    path.write_bytes(b"")
    assert content(path) == b""
    packed = tmp_path / "a.txt"
    packed.write_bytes(gzip.compress(TEXT))  # recognised by its first bytes
    assert content(packed) == TEXT
