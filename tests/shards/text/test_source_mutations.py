"""Sources of text, changed at random: documents, or a clear refusal that names the file."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from file_mutations import few_and_many, refusals

from shards.text.dumps.markup import Markup
from shards.text.plain_text import TextRules
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources

TEXTS = ["A first text, of some length.", "第二个文本。", 'A third\none, with "quotes" and a tab\t.', "", "ä" * 40] * 4
LINES = "".join(json.dumps({"text": text, "id": number}) + "\n" for number, text in enumerate(TEXTS)).encode()
PLAIN = "\n\n".join(TEXTS).encode()
TABLE = "".join('{},"{}"\n'.format(n, text.replace('"', '""')) for n, text in enumerate(TEXTS)).encode()


def in_tar(**compression) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression.get('kind', '')}") as archive:
        for name, content in (("a.txt", PLAIN), ("b/c.jsonl", LINES), ("d.txt.gz", gzip.compress(PLAIN, mtime=0))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def in_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("a.txt", PLAIN), ("b/c.jsonl", LINES), ("d.txt.bz2", bz2.compress(PLAIN))):
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def as_parquet() -> bytes:
    stream = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS, "id": list(range(len(TEXTS)))}), stream)
    return stream.getvalue().to_pybytes()


def in_zstandard() -> bytes:
    stream = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(stream, "zstd") as packed:
        packed.write(LINES)
    return stream.getvalue().to_pybytes()


WIKI = b"".join(f'<doc id="{n}" title="T">\nT\n\n{text}\n</doc>\n'.encode() for n, text in enumerate(TEXTS))
RECORD = (
    b"WARC/1.0\r\nWARC-Type: %b\r\nWARC-Target-URI: http://a.b/c\r\n"
    b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b\r\n\r\n"
)
SENT = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n%b\r\n"
PAGE = "".join(f"<p class='a'>{text} &amp; <b>more</b></p>" for text in TEXTS).encode()
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(gzip.compress(PAGE, mtime=0)), gzip.compress(PAGE, mtime=0))
WIKITEXT = "{{a|b=[[c]]}} '''d''' [[File:x|y]]<ref name='a'>z</ref>\n{|\n| e\n|}\n== f ==\n* g [http://h i] &amp;\n"


def records(packed=bytes) -> bytes:
    bodies = [(b"conversion", b"text/plain", text.encode()) for text in TEXTS[:5]]
    sent = SENT % b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n" + CHUNKED
    bodies += [(b"response", b"application/http;msgtype=response", data) for data in (SENT % b"" + PAGE, sent)]
    return b"".join(packed(RECORD % (kind, of, len(body), body)) for kind, of, body in bodies)


def dump() -> bytes:
    pages = "".join(
        f"<page><title>T{n}</title><ns>{n % 2}</ns><revision><model>wikitext</model><text xml:space='preserve'>"
        f"{(WIKITEXT * 2 + text).replace('&', '&amp;').replace('<', '&lt;')}</text></revision></page>\n"
        for n, text in enumerate(TEXTS[:6])
    )
    namespaces = "<siteinfo><namespaces><namespace key='6'>File</namespace></namespaces></siteinfo>"
    return f"<mediawiki>{namespaces}\n{pages}</mediawiki>".encode()


# By name: the content, and the least share of mutations that is refused; plain text takes nearly everything.
SOURCES = {
    "plain.txt": (lambda: PLAIN, 0.0),
    "wiki_00": (lambda: WIKI, 0.0),
    "lines.jsonl": (lambda: LINES, 0.2),
    "table.csv": (lambda: b"id,text\n" + TABLE, 0.05),
    "table.tsv": (lambda: b"id\ttext\n" + b"".join(b"%d\tsome text\n" % n for n in range(20)), 0.05),
    "table.parquet": (as_parquet, 0.2),
    "archive.tar": (in_tar, 0.1),
    "archive.tar.gz": (lambda: in_tar(kind="gz"), 0.2),
    "archive.zip": (in_zip, 0.1),
    "packed.txt.gz": (lambda: gzip.compress(PLAIN, mtime=0), 0.2),
    "packed.txt.bz2": (lambda: bz2.compress(PLAIN), 0.2),
    "packed.txt.xz": (lambda: lzma.compress(PLAIN), 0.2),
    "packed.jsonl.zst": (in_zstandard, 0.2),
    "array.json": (lambda: json.dumps([{"text": text, "id": [n]} for n, text in enumerate(TEXTS)]).encode(), 0.2),
    "wrapped.json": (lambda: json.dumps({"v": 1, "data": [{"text": text} for text in TEXTS]}, indent=1).encode(), 0.2),
    "nested.jsonl": (lambda: b"".join(json.dumps({"text": [text, [text]]}).encode() + b"\n" for text in TEXTS), 0.2),
    "crawl.warc": (records, 0.1),
    "crawl.warc.wet.gz": (lambda: records(lambda data: gzip.compress(data, mtime=0)), 0.2),
    "dump.xml": (dump, 0.2),
    "dump.xml.bz2": (lambda: bz2.compress(dump()), 0.2),
}


@few_and_many
@pytest.mark.parametrize("document", ["file", "paragraph"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_source(tmp_path, name, document, rounds):
    content, least = SOURCES[name]
    path = tmp_path / name
    path.write_bytes(content())

    def read():
        rules = TextRules(document=document, max_document_bytes=100_000)
        (source,) = find_sources([str(path)])
        for text in DocumentReader(rules).read(source):
            text.encode()
            if isinstance(text, Markup):
                (text.plain() or "").encode()

    refusals(path, read, rounds, least=least)


@few_and_many
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_saved_dataset(tmp_path, name, rounds):
    import datasets

    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(folder)

    def read():
        (source,) = find_sources([str(folder)])
        for text in DocumentReader(TextRules()).read(source):
            text.encode()

    refusals(folder / name, read, rounds, named=str(folder), least=0.1)
