"""Formats: markup, web archives and pointers are not taken for text, whatever reads them."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile

import pytest

from finetuning.examples.record_files import read_content
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources

RECORD = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: 5\r\n\r\nhello\r\n\r\n"
DUMP = b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">\n<page>\n'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"


def documents(path):
    return [text for source in find_sources([str(path)]) for text in DocumentReader().read(source)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.warc.wet.gz", gzip.compress(RECORD, mtime=0), "web archive .*JSON line"),
        ("a.warc.gz", gzip.compress(RECORD, mtime=0) * 2, "web archive"),
        ("a.txt", RECORD, "web archive"),
        ("a.xml.bz2", bz2.compress(DUMP), "MediaWiki dump.*WikiExtractor"),
        ("a.txt", b'<?xml version="1.0"?>\n' + DUMP, "MediaWiki dump"),
        ("a.html", b"\n<!DOCTYPE HTML>\n<p>Hello", "is HTML, not plain text"),
        ("a.xml", b"\xef\xbb\xbf<?xml version='1.0'?><p>Hello</p>", "is XML, not plain text"),
        ("a", b"%PDF-1.7\n", "is PDF, not plain text"),
    ],
)
def test_what_is_no_plain_text_is_refused_with_the_step_that_is_missing(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        documents(tmp_path / name)


@pytest.mark.parametrize("data", [b"<html>", b"The <mediawiki> tag", b"WARCs are files", b"<p>Hello"])
def test_text_that_speaks_of_markup_is_text(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    assert documents(tmp_path / "a.txt") == [data.decode()]


@pytest.mark.parametrize("suffix", ["txt", "md", "jsonl", "json", "csv", "tsv", "parquet", "tar", "zip", "txt.gz", ""])
def test_a_git_lfs_pointer_is_refused_by_every_reader(tmp_path, suffix):
    path = tmp_path / (f"a.{suffix}" if suffix else "a")
    path.write_bytes(POINTER)
    for read in (documents, read_content):
        with pytest.raises(ValueError, match=r"/a\S* is a Git LFS pointer.*git lfs pull"):
            read(path)


def test_a_git_lfs_pointer_in_an_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("b/c.jsonl")
        member.size = len(POINTER)
        archive.addfile(member, io.BytesIO(POINTER))
    with pytest.raises(ValueError, match=r"a\.tar:b/c\.jsonl is a Git LFS pointer"):
        documents(tmp_path / "a.tar")
