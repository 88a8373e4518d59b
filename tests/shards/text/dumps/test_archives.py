"""Tar archives: several in one file are read to the end, and a damaged header never ends one."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from finetuning.recipes.texts.labelled_folders import read_archive
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources


def tar(*names: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return stream.getvalue()


def documents(path):
    return [text for source in find_sources([str(path)]) for text in DocumentReader().read(source)]


FIRST, SECOND = ("good/1.txt", "bad/2.txt"), ("awful/3.txt", "bad/4.txt")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_concatenated_archives_are_read_to_the_end(tmp_path, pack):
    path = tmp_path / ("a.tar" if pack is bytes else "a.tar.gz")
    path.write_bytes(pack(tar(*FIRST)) + pack(tar(*SECOND)))
    assert documents(path) == [*FIRST, *SECOND]
    assert [text for _, text in read_archive(path)] == [*FIRST, *SECOND]


@pytest.mark.parametrize("reader", [documents, lambda path: list(read_archive(path))])
def test_what_is_damaged_cut_or_no_archive_is_refused(tmp_path, reader):
    path, whole = tmp_path / "a.tar", tar(*FIRST)
    damaged = bytearray(whole)
    damaged[1024 + 10] ^= 1  # in the second header
    for content in (bytes(damaged), whole + b"more text", whole + b"x" * 512, whole[:1024], whole[:1100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.tar is not a whole tar .*fetch or write it again"):
            reader(path)
    path.write_bytes(whole + bytes(10_240))
    assert len(reader(path)) == 2


@pytest.mark.parametrize("reader", [documents, lambda path: list(read_archive(path))])
def test_an_archive_that_is_cut_within_a_member_is_refused_by_name(tmp_path, reader):
    (tmp_path / "a.tar").write_bytes(tar(*FIRST)[:512])  # the first header alone
    with pytest.raises(ValueError, match=r"a\.tar.*cannot be read .*unexpected end of data"):
        reader(tmp_path / "a.tar")


def test_two_labelled_texts_of_one_name_are_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar(*FIRST) + tar(*FIRST))
    with pytest.raises(ValueError, match=r"good/1\.txt' occurs twice"):
        list(read_archive(tmp_path / "a.tar"))
    assert documents(tmp_path / "a.tar") == [*FIRST, *FIRST]  # of a corpus, copies are dropped by the build
