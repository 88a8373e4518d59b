"""Web archives: a document a record of text, HTML without its markup, and a refusal where lengths are wrong."""

from __future__ import annotations

import gzip
import io
import tarfile

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from shards.text.dumps.markup import HtmlPage
from shards.text.dumps.web_archives import decoded, known_charset
from shards.text.plain_text import TextRules
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources

TEXTS = ["The first page.\nIts second line.", "第二页，用中文。", "A third page\r\nwith other line ends."]
PAGE = (
    "<html><head><title>T</title><script>x()</script></head><body><nav><a href=/>Menu</a></nav><p>{}</p></body></html>"
)


def read(path, reader=None, **rules):
    reader = reader or DocumentReader(TextRules(**rules))
    return [text for source in find_sources([str(path)]) for text in reader.read(source)]


def wet(texts, *, packed=True) -> bytes:
    """As Common Crawl writes them: one gzip member a record."""
    stream = io.BytesIO()
    writer = WARCWriter(stream, gzip=packed)
    writer.write_record(writer.create_warcinfo_record("x.warc.wet", {"isPartOf": "crawl"}))
    for number, text in enumerate(texts):
        content = io.BytesIO(text.encode())
        address = f"https://example.org/{number}"
        writer.write_record(
            writer.create_warc_record(address, "conversion", payload=content, warc_content_type="text/plain")
        )
    return stream.getvalue()


def response(body: bytes, content_type: str = "text/html", status: str = "200 OK", **headers: str) -> bytes:
    stream = io.BytesIO()
    writer = WARCWriter(stream, gzip=True)
    lines = [("Content-Type", content_type), *((key.replace("_", "-"), value) for key, value in headers.items())]
    sent = StatusAndHeaders(status, lines, protocol="HTTP/1.1")
    record = writer.create_warc_record(
        "https://example.org/page", "response", payload=io.BytesIO(body), http_headers=sent
    )
    writer.write_request_response_pair(
        writer.create_warc_record(
            "https://example.org/page",
            "request",
            http_headers=StatusAndHeaders("GET / HTTP/1.1", [], is_http_request=True),
        ),
        record,
    )
    return stream.getvalue()


@pytest.mark.parametrize("name", ["a.warc.wet.gz", "a.wet", "a.warc", "a.warc.gz", "wet", "a.txt"])
def test_a_wet_file_gives_a_document_a_record_without_headers(tmp_path, name):
    (tmp_path / name).write_bytes(wet(TEXTS, packed=name.endswith("gz")))
    reader = DocumentReader()
    assert read(tmp_path / name, reader) == [text.replace("\r\n", "\n") for text in TEXTS]
    assert not +reader.changed


def test_web_archives_in_a_folder_and_in_a_tar(tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "b.warc.wet.gz").write_bytes(wet(TEXTS[:1]))
    with tarfile.open(tmp_path / "crawl" / "a.tar", "w") as archive:
        member = tarfile.TarInfo("c.warc.gz")
        member.size = len(data := wet(TEXTS[1:2]))
        archive.addfile(member, io.BytesIO(data))
    assert read(tmp_path / "crawl") == [TEXTS[1], TEXTS[0]]


def test_pages_are_html_documents_whose_text_is_taken_out_later(tmp_path):
    pytest.importorskip("resiliparse")
    (tmp_path / "a.warc.gz").write_bytes(
        response(PAGE.format("One &amp; two.").encode())
        + response(b"plain text", "text/plain")
        + response(b"%PDF-1.7", "application/pdf")
        + response(PAGE.format("not there").encode(), status="404 Not Found")
    )
    reader = DocumentReader()
    page, plain = read(tmp_path / "a.warc.gz", reader)
    assert isinstance(page, HtmlPage)
    assert page.plain() == "One & two."
    assert plain == "plain text"
    assert +reader.changed == {"archive_records_skipped": 2}


BODY = PAGE.format("Größe 中文").encode()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(BODY), {"Content_Encoding": "gzip"}),
        (BODY, {"Content_Encoding": "gzip"}),  # unpacked by the crawler
        (brotli.compress(BODY), {"Content_Encoding": "br"}),
        (zstandard.compress(BODY), {"Content_Encoding": "zstd"}),
        (b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY), {"Transfer_Encoding": "chunked"}),
        (
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(gzip.compress(BODY, mtime=0)), gzip.compress(BODY, mtime=0)),
            {"Transfer_Encoding": "chunked", "Content_Encoding": "gzip"},
        ),
    ],
)
def test_a_body_is_unpacked_as_its_headers_say(tmp_path, body, headers):
    pytest.importorskip("resiliparse")
    (tmp_path / "a.warc.gz").write_bytes(response(body, "text/html; charset=utf-8", **headers))
    (page,) = read(tmp_path / "a.warc.gz")
    assert page.plain() == "Größe 中文"


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_a_body_that_expands_without_bound_is_cut(tmp_path, encoding):
    pytest.importorskip("resiliparse")
    zeros = b"x " * 20_000_000
    pack = {"gzip": gzip.compress, "br": lambda data: brotli.compress(data, quality=1), "zstd": zstandard.compress}
    (tmp_path / "a.warc.gz").write_bytes(response(pack[encoding](zeros), Content_Encoding=encoding))
    reader = DocumentReader(TextRules(max_document_bytes=100_000))
    (page,) = read(tmp_path / "a.warc.gz", reader)
    assert len(page) == 100_000
    assert reader.changed["long_documents_cut"] == 1


@pytest.mark.parametrize(
    ("charset", "content_type", "text"),
    [
        ("utf-8", "text/html; charset=utf-8", "Größe"),
        ("latin-1", "text/html; charset=iso-8859-1", "Größe"),
        ("cp1252", "text/html; charset=latin1", "quotes “as in Windows”"),
        ("gb18030", 'text/html;charset="GB2312"', "简体中文，还有繁體"),
        ("shift_jis", "text/html", '<meta charset="Shift_JIS">日本語のページです。'),
        (
            "cp1251",
            "text/html; charset=no-such-thing",
            '<meta http-equiv="content-type" content="text/html; charset=windows-1251">по-русски',
        ),
        ("utf-8-sig", "text/html; charset=latin1", "the mark says Größe"),
    ],
)
def test_the_charset_is_the_mark_s_or_the_server_s_or_the_page_s(charset, content_type, text):
    pytest.importorskip("resiliparse")
    rules = TextRules()
    assert decoded(text.encode(charset), content_type, rules, html=True) == text
    assert not rules.changed


def test_a_charset_that_is_wrong_is_replaced_and_counted_whatever_on_bad_text_says():
    rules = TextRules()
    assert decoded(b"caf\xe9", "text/html; charset=utf-8", rules, html=False) == "caf\ufffd"
    assert rules.changed == {"characters_replaced": 1}
    assert known_charset("hex") == ""  # a codec of Python, not of text


def test_wet_text_that_is_not_utf8_stops_naming_the_record_or_is_replaced_and_counted(tmp_path):
    data = wet(["good", "xxxx"], packed=False).replace(b"xxxx", b"caf\xe9")
    (tmp_path / "a.wet").write_bytes(data)
    with pytest.raises(ValueError, match=r"record 3 \('https://example.org/1'\): byte 3 is not UTF-8"):
        read(tmp_path / "a.wet")
    reader = DocumentReader(TextRules(on_bad_text="replace"))
    assert read(tmp_path / "a.wet", reader) == ["good", "caf\ufffd"]
    assert reader.changed["invalid_utf8_replaced"] == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            b"Content-Length: 9",
            b"Content-Length: 8",
            "record 3 begins with .*not with WARC/.*Content-Length of the record before",
        ),
        (b"Content-Length: 9", b"Content-Length: 40", "record 3 begins with|record 2 .* cut off|record 3 is cut off"),
        (b"Content-Length: 9", b"Content-Length: 999999", r"record 2 .* is cut off [\d,]+ bytes before its end"),
        (b"Content-Length: 9", b"Content-Length: -9", "record 2 has the Content-Length '-9'"),
        (b"Content-Length: 9", b"Content-Length: nine", "record 2 has the Content-Length 'nine'"),
        (b"Content-Length: 9", b"Content-Lengty: 9", "record 2 has the Content-Length ''"),
        (b"Content-Length: 9", b"X: " + b"y" * 1_100_000, "record 2 has headers of more than"),
    ],
)
def test_a_length_that_is_wrong_is_refused_by_record(tmp_path, old, new, message):
    data = wet(["nine char", "a longer text follows"], packed=False)
    assert data.count(old) == 1
    (tmp_path / "a.wet").write_bytes(data.replace(old, new))
    with pytest.raises(ValueError, match=rf"a\.wet: ({message})"):
        read(tmp_path / "a.wet")


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_is_read_whole_or_refused_wherever_it_is_cut(tmp_path, packed):
    data = wet(TEXTS, packed=packed)
    path = tmp_path / "a.warc.wet.gz" if packed else tmp_path / "a.wet"
    for end in range(len(data) - 400, len(data), 7):
        path.write_bytes(data[:end])
        try:
            texts = read(path)
        except ValueError as error:
            assert "a.w" in str(error)  # noqa: PT017
        else:  # at the end of a record, which cannot be told from the end of the file
            assert texts == [text.replace("\r\n", "\n") for text in TEXTS[: len(texts)]]
            assert len(texts) >= 2


def test_what_is_named_as_a_web_archive_and_is_none(tmp_path):
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(b"some text"))
    with pytest.raises(ValueError, match=r"a\.warc\.gz is not a web archive"):
        read(tmp_path / "a.warc.gz")


def test_long_text_is_cut_and_records_that_are_not_read_take_no_memory(tmp_path):
    text = "".join(f"Line {number} of a long page.\n" for number in range(2_000))
    reader = DocumentReader(TextRules(max_document_bytes=10_000))
    (tmp_path / "a.warc.gz").write_bytes(response(b"\0" * 1_000_000, "image/png") + wet([text]))
    texts = read(tmp_path / "a.warc.gz", reader)
    assert "".join(texts) == text
    assert max(map(len, texts)) <= 10_000
    assert +reader.changed == {"archive_records_skipped": 1, "long_documents_cut": len(texts) - 1}


def test_html_without_the_package_for_it_is_refused_with_its_name(tmp_path, monkeypatch):
    (tmp_path / "a.warc.gz").write_bytes(response(BODY))
    monkeypatch.setattr("shards.text.dumps.markup.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package resiliparse: pip install resiliparse .*'html'"):
        read(tmp_path / "a.warc.gz")


@settings(max_examples=20)
@given(texts=st.lists(st.text(max_size=60).map(lambda text: text.replace("\r", "")), max_size=5), packed=st.booleans())
def test_whatever_the_texts_are_they_come_back(tmp_path_factory, texts, packed):
    path = tmp_path_factory.getbasetemp() / f"texts.wet{'.gz' * packed}"
    path.write_bytes(wet(texts, packed=packed))
    assert read(path) == [text.removeprefix("\ufeff") for text in texts]
