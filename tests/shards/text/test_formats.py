"""Formats: markup, web archives, wiki dumps and pointers are not taken for plain text, whatever reads them."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile

import pytest

from finetuning.examples.record_files import numbered_lines, read_content
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources

RECORD = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: 5\r\n\r\nhello\r\n\r\n"
DUMP = b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">\n<page/></mediawiki>\n'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"


def documents(path):
    return [text for source in find_sources([str(path)]) for text in DocumentReader().read(source)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.html", b"\n<!DOCTYPE HTML>\n<p>Hello", "is HTML, not plain text"),
        ("a.xml", b"\xef\xbb\xbf<?xml version='1.0'?><p>Hello</p>", "is XML, not plain text"),
        ("a.xml", b"<?xml version='1.0'?><!DOCTYPE mediawiki><p>Hello</p>", "is XML, not plain text"),
        ("a", b"%PDF-1.7\n", "is PDF, not plain text"),
    ],
)
def test_what_is_no_plain_text_is_refused_with_the_step_that_is_missing(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        documents(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "data", "kind", "texts"),
    [
        ("a.warc.wet.gz", gzip.compress(RECORD, mtime=0), "web archive", ["hello"]),
        ("a.warc.gz", gzip.compress(RECORD, mtime=0) * 2, "web archive", ["hello", "hello"]),
        ("a.txt", RECORD, "web archive", ["hello"]),
        ("a", RECORD, "web archive", ["hello"]),
        ("a.xml.bz2", bz2.compress(DUMP), "wiki dump", [""]),
        ("a.xml-p1p4200.bz2", bz2.compress(DUMP), "wiki dump", [""]),
        ("a.txt", b'<?xml version="1.0"?>\n' + DUMP, "wiki dump", [""]),
        ("a.xml", b"\xef\xbb\xbf<!-- a comment -->" + DUMP, "wiki dump", [""]),
    ],
)
def test_web_archives_and_wiki_dumps_are_told_by_their_first_bytes_and_are_no_rows(tmp_path, name, data, kind, texts):
    pytest.importorskip("mwparserfromhell")
    (tmp_path / name).write_bytes(data)
    assert documents(tmp_path / name) == texts
    for read in (read_content, lambda path: list(numbered_lines(path))):
        with pytest.raises(ValueError, match=rf"{name} is a {kind}"):
            read(tmp_path / name)


def test_xml_in_a_folder_or_an_archive_is_text_only_where_it_is_a_dump(tmp_path, caplog):
    (tmp_path / "sitemap.xml").write_bytes(b"<?xml version='1.0'?><urlset/>")
    (tmp_path / "enwiki-pages-articles-multistream-index.txt.bz2").write_bytes(bz2.compress(b"616:10:A page"))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in (("b.xml", b"<settings/>"), ("c.txt", b"text")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    reader = DocumentReader()
    assert [text for source in find_sources([str(tmp_path)]) for text in reader.read(source)] == ["text"]
    assert reader.changed["archive_members_skipped"] == 1
    assert "sitemap.xml is skipped" in caplog.text
    with pytest.raises(ValueError, match="matches no readable file"):
        find_sources([str(tmp_path / "*.bz2")])
    assert "index.txt.bz2 is skipped: it is the index of a wiki dump" in caplog.text


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
