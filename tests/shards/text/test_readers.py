"""Readers: whatever the format, the compression and the archive, the same documents come out, or a clear refusal."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shards.text.plain_text import TextRules, bounded_lines, bounded_pieces
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources

TEXTS = ["The first one.\nIt has two lines.", "第二个文档，用中文。", 'A "third", with a comma and a tab-free line.']
COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(*inputs: Path | str, reader: DocumentReader | None = None, **rules: object) -> list[str]:
    reader = reader or DocumentReader(TextRules(**rules))  # type: ignore[arg-type]
    return [text for source in find_sources([str(name) for name in inputs]) for text in reader.read(source)]


def json_lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts).encode()


def csv_table(texts: list[str]) -> bytes:
    rows = ['1,"' + text.replace('"', '""') + '"' for text in texts]
    return ("id,text\r\n" + "\r\n".join(rows) + "\r\n").encode()


def parquet(texts: list[str]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(len(texts))), "text": texts}), stream)
    return stream.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def wikiextractor(texts: list[str]) -> bytes:
    return "".join(f'<doc id="1" url="u" title="T">\nTitle\n\n{text}\n\n</doc>\n' for text in texts).encode()


FILES = {f"d/{number}.txt": text.encode() for number, text in enumerate(TEXTS)}
CONTENT = {
    "corpus.jsonl": json_lines(TEXTS),
    "corpus.csv": csv_table(TEXTS),
    "corpus.parquet": parquet(TEXTS),
    "corpus.tar": tar(FILES | {"d/picture.png": b"\x89PNG"}),
    "corpus.zip": zipped(FILES | {"d/._hidden.txt": b"x"}),
    "corpus.txt": "\n\n \n".join(TEXTS).encode(),
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", CONTENT)
def test_every_format_gives_the_same_documents_plain_and_compressed(tmp_path, name, suffix):
    path = tmp_path / (name + suffix)
    path.write_bytes(COMPRESS[suffix](CONTENT[name]))
    assert [text.strip() for text in read(path, document="paragraph" if name == "corpus.txt" else "file")] == TEXTS


@pytest.mark.parametrize("name", ["wiki_00", "wiki.txt", "wiki.txt.xz"])
def test_wikiextractor_is_told_by_its_first_bytes(tmp_path, name):
    data = wikiextractor([TEXTS[0], "", TEXTS[1]])
    (tmp_path / name).write_bytes(lzma.compress(data) if name.endswith("xz") else data)
    documents = read(tmp_path / name)
    assert documents == ["Title\n\n" + TEXTS[0], "", "Title\n\n" + TEXTS[1]]


def test_wikiextractor_inside_a_tar(tmp_path):
    (tmp_path / "w.tar.xz").write_bytes(lzma.compress(tar({"AA/wiki_00": wikiextractor(TEXTS[:1])})))
    assert read(tmp_path / "w.tar.xz") == ["Title\n\n" + TEXTS[0]]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("archive", [tar, zipped])
def test_files_in_an_archive_may_be_compressed_and_a_cut_one_is_refused_by_name(tmp_path, archive, suffix):
    text = COMPRESS[suffix]("\n\n".join(TEXTS).encode())
    files = {f"a.txt{suffix}": text, f"b.jsonl{suffix}": COMPRESS[suffix](json_lines(TEXTS))}
    path = tmp_path / "corpus.archive.xz"
    path.write_bytes(lzma.compress(archive(files)))
    assert [text.strip() for text in read(path, document="paragraph")] == [*TEXTS, *TEXTS]
    if suffix:
        path.write_bytes(lzma.compress(archive({f"a.txt{suffix}": text[:-9]})))
        with pytest.raises(ValueError, match=rf"a\.txt{suffix} cannot be read .*whole"):
            read(path)


@pytest.mark.parametrize("name", ["wiki_00", "wiki_00.bz2", "w.tar", "w.zip"])
def test_json_lines_without_a_suffix_are_told_by_their_first_bytes(tmp_path, name):
    data = b"\n" + json_lines(TEXTS)
    make = {"wiki_00": bytes, "wiki_00.bz2": bz2.compress, "w.tar": tar, "w.zip": zipped}[name]
    archive = name.startswith("w.")
    (tmp_path / name).write_bytes(make({"AA/wiki_00": data, "wiki_01": data} if archive else data))
    assert read(tmp_path / name) == TEXTS * (2 if archive else 1)
    (tmp_path / "note.txt").write_bytes(data)
    assert read(tmp_path / "note.txt") == [data.decode()]


def test_tsv_is_not_quoted_and_a_number_names_a_column_without_header(tmp_path):
    (tmp_path / "a.tsv").write_text('1\tsays "yes\n2\tno\n', encoding="utf-8")
    assert read(tmp_path / "a.tsv", text_column="1") == ['says "yes', "no"]
    with pytest.raises(ValueError, match="no column 'text'"):
        read(tmp_path / "a.tsv")


@pytest.mark.parametrize(("mode", "expected"), [("file", 1), ("line", 5), ("paragraph", 2)])
def test_what_a_document_of_plain_text_is(tmp_path, mode, expected):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n\r\nthree")
    documents = read(tmp_path / "a.txt", document=mode)
    assert len(documents) == expected
    assert "".join(documents).replace("\n", "") == "onetwothree"
    assert not documents[0].startswith("\ufeff")


def test_folders_and_globs_are_read_in_the_order_of_their_paths(tmp_path):
    for name in ("b/2.txt", "a/3.txt", "a/1.txt", ".git/x.txt", "a/run.exe"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read(tmp_path) == ["a/1.txt", "a/3.txt", "b/2.txt"]
    assert read(f"{tmp_path}/*/[23].txt") == ["a/3.txt", "b/2.txt"]
    assert [source.name for source in find_sources([str(tmp_path)])] == ["a/1.txt", "a/3.txt", "b/2.txt"]
    for missing in ("nothing.txt", "*.nothing"):
        with pytest.raises(ValueError, match="nothing"):
            find_sources([str(tmp_path / missing)])


def test_what_is_no_file_is_told_from_what_is_not_there(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for name in (str(tmp_path / "pipe.txt"), "https://example.org/a.txt", "pipe:cat a.txt"):
        with pytest.raises(ValueError, match="neither a file nor a folder"):
            find_sources([name])
    with pytest.raises(ValueError, match="write datasets:imdb"):
        find_sources(["imdb"])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("wiki/*", ["wiki_00", "deep/wiki_02", "wiki_01", "README.txt"]),
        ("wiki/*/", ["wiki_00", "deep/wiki_02", "wiki_01"]),
        ("wiki/**", ["wiki_00", "wiki_02", "wiki_01", "README.txt"]),
        ("wiki/**/", ["AA/wiki_00", "BB/deep/wiki_02", "BB/wiki_01", "README.txt"]),
        ("wiki/**/*_0[01]", ["wiki_00", "wiki_01"]),
        ("w*", ["AA/wiki_00", "BB/deep/wiki_02", "BB/wiki_01", "README.txt"]),
    ],
)
def test_a_folder_that_a_glob_matches_is_read_like_one_given_and_nothing_twice(tmp_path, pattern, names):
    for name in ("AA/wiki_00", "BB/wiki_01", "BB/deep/wiki_02", "README.txt", ".git/x.txt"):
        (tmp_path / "wiki" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "wiki" / name).write_text(name)
    assert [source.name for source in find_sources([f"{tmp_path}/{pattern}"])] == names


def test_saved_and_streamed_datasets(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved") == TEXTS
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"body": TEXTS})}).save_to_disk(tmp_path / "splits")
    assert read(tmp_path / "splits", text_column="body") == TEXTS
    with pytest.raises(ValueError, match="no column 'text'"):
        read(tmp_path / "splits")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "train.jsonl").write_bytes(json_lines(TEXTS))
    assert read(f"datasets:{tmp_path / 'hub'}") == TEXTS


def test_how_much_of_a_saved_dataset_is_read_is_told_by_its_rows(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"text": TEXTS + TEXTS[:1]}).save_to_disk(tmp_path / "saved")
    (source,) = find_sources([str(tmp_path / "saved")])
    reader = DocumentReader()
    assert [reader.bytes_read for _ in reader.read(source)] == [source.bytes * row // 4 for row in (1, 2, 3, 4)]
    (tmp_path / "a.txt").write_text("")
    (blank,) = find_sources([str(tmp_path / "a.txt")])
    assert [reader.bytes_read for _ in reader.read(blank)] == [0]


def test_bytes_that_are_not_utf8_stop_naming_file_and_offset_or_are_replaced_and_counted(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"good line\nbad \xe9 line\n")
    with pytest.raises(ValueError, match=r"latin\.txt: byte 14 is not UTF-8"):
        read(path, document="line")
    reader = DocumentReader(TextRules(document="line", on_bad_text="replace"))
    assert read(path, reader=reader) == ["good line\n", "bad \ufffd line\n"]
    assert reader.changed["invalid_utf8_replaced"] == 1


def test_parquet_text_that_is_not_utf8_stops_naming_the_row_or_is_replaced_and_counted(tmp_path):
    rows = ["fine", *TEXTS] * 100 + [None, "", "\ufeffmarked\r\n"]
    values = [None if row is None else row.encode() for row in rows]
    values[301:303] = [b"bad \xe9 row", b"and \xff another"]
    array = pyarrow.array(values, pyarrow.binary())
    valid, offsets, data = array.buffers()
    texts = pyarrow.StringArray.from_buffers(len(array), offsets, data, valid, array.null_count)
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    with pytest.raises(ValueError, match=r"a\.parquet: row 302: byte 4 is not UTF-8 .*--on_bad_text replace"):
        read(path)
    reader = DocumentReader(TextRules(on_bad_text="replace"))
    expected = [row or "" for row in rows]
    expected[301:303] = ["bad \ufffd row", "and \ufffd another"]
    assert read(path, reader=reader) == expected
    assert reader.changed["invalid_utf8_replaced"] == 2


def test_a_lone_surrogate_in_json_is_not_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "half \\ud800 of it"}\n')
    with pytest.raises(ValueError, match="surrogate"):
        read(tmp_path / "a.jsonl")
    assert read(tmp_path / "a.jsonl", on_bad_text="replace") == ["half \ufffd of it"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "' + "x" * 2_000_000 + '"}', "line 2 is longer than 1,000,000 bytes"),
        ("[" * 100_000, "line 2 is too deeply nested"),
        ('{"text": ' + "9" * 10_000 + "}", "line 2 is not JSON"),
        ('{"text": "cut', "line 2 is not JSON"),
        ('{"body": "x"}', r"no column 'text': name one of body"),
        ('{"text": 7}', "holds a int"),
        ('{"data": [{"text": "a"}]}', r"line 2 is one object around a list: .* jq -c '\.data\[\]' does"),
        ('["text"]', r"line 2 is a list: give one object per line, as jq -c '\.\[\]' does"),
    ],
)
def test_unusable_json_lines_are_refused_by_file_and_line(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl.*" + message):
        read(tmp_path / "a.jsonl", max_document_bytes=1_000_000)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "text\tid\n" + "x" * 3_000 + "\t1\n", "line 2 is longer than 1,000 bytes: raise --max_document_mb"),
        ("a.csv", "text,id\n" + "x" * 3_000 + ",1\n", "line 2 is longer than 1,000 bytes"),
        ("a.csv", "id,text\n1," + "x," * 800 + "\n", "line 2 is longer than 1,000 bytes"),
        (
            "a.csv",
            'id,text\n1,"open\n' + "2,more\n" * 300,
            "the row that holds line 144 is longer .* a quote left open",
        ),
        ("a.csv", "id,text\n" + '"a\nb",' * 300 + "\n", "the row that holds line 169 is longer than 1,000 bytes"),
    ],
)
def test_a_row_of_a_table_that_is_too_long_is_refused_by_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}: {message}"):
        read(tmp_path / name, max_document_bytes=1_000)
    assert read(tmp_path / name, max_document_bytes=1_000_000)


def test_many_rows_together_may_be_longer_than_one_document(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n" + '1,"two\nlines"\n' * 200)
    assert read(tmp_path / "a.csv", max_document_bytes=50) == ["two\nlines"] * 200


@pytest.mark.parametrize("name", ["corpus.zip", "corpus.tar", "corpus.parquet"])
def test_a_file_cut_in_the_middle_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(CONTENT[name][: len(CONTENT[name]) // 3])
    with pytest.raises(ValueError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("suffix", sorted(COMPRESS.keys() - {""}))
def test_a_compressed_file_is_read_whole_or_refused_wherever_it_is_cut(tmp_path, suffix, parts):
    lines = [f"Line {number * number} of the file.\n" for number in range(4_000)]
    compressed = [COMPRESS[suffix]("".join(lines[part::parts]).encode()) for part in range(parts)]
    path, data = tmp_path / f"corpus.txt{suffix}", b"".join(compressed)
    path.write_bytes(data)
    assert sorted(read(path, document="line")) == sorted(lines)
    for size in (len(data) - 1, len(data) - len(compressed[-1]) // 2, len(compressed[0]) // 2, 9):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=f"{path.name} cannot be read .*whole"):
            read(path, document="line")


def test_archives_links_are_left_out_and_sparse_members_and_nested_archives_refused(tmp_path):
    link = tarfile.TarInfo("passwords.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(link)
    reader = DocumentReader()
    assert read(tmp_path / "a.tar", reader=reader) == []
    assert reader.changed["archive_members_skipped"] == 1
    (tmp_path / "b.tar").write_bytes(tar({"inner.txt": zipped(FILES)}))
    with pytest.raises(ValueError, match="inside an archive"):
        read(tmp_path / "b.tar")


def test_a_blank_file_is_counted(tmp_path, caplog):
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "empty.txt").write_text("")
    reader = DocumentReader()
    assert [text.strip() for text in read(tmp_path / "blank.txt", tmp_path / "empty.txt", reader=reader)] == ["", ""]
    assert reader.changed["blank_sources"] == 2
    assert "blank.txt holds no text" in caplog.text


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet", "tar", "zip", "tar.gz", "parquet.zst"])
def test_an_empty_file_is_counted_whatever_its_name(tmp_path, caplog, suffix):
    (tmp_path / f"empty.{suffix}").write_bytes(b"")
    reader = DocumentReader()
    assert read(tmp_path / f"empty.{suffix}", reader=reader) == []
    assert reader.changed["blank_sources"] == 1
    assert f"empty.{suffix} holds no text" in caplog.text


def test_long_plain_text_is_cut_and_nothing_is_lost(tmp_path):
    text = "".join(f"Line {number} 中文 of a long book.\n" for number in range(2_000))
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    reader = DocumentReader(TextRules(max_document_bytes=10_000))
    documents = read(tmp_path / "book.txt", reader=reader)
    assert "".join(documents) == text
    assert max(len(document.encode()) for document in documents) <= 10_000
    assert reader.changed["long_documents_cut"] == len(documents) - 1


@given(text=st.text(max_size=200), limit=st.integers(4, 40))
def test_bounded_reading_keeps_every_byte_and_never_splits_a_character(text, limit):
    data = text.encode("utf-8")
    for pieces in (bounded_lines, bounded_pieces):
        found = list(pieces(io.BufferedReader(io.BytesIO(data)), limit))  # type: ignore[arg-type]
        assert b"".join(piece for _, piece, _ in found) == data
        assert "".join(piece.decode("utf-8") for _, piece, _ in found) == text
        position = 0
        for offset, piece, _ in found:
            assert offset == position
            assert len(piece) < limit + 4
            position += len(piece)


@pytest.mark.parametrize(
    ("pattern", "documents"),
    [("wiki_en/enwiki_AA_00-09.txt.xz", 648), ("novels_en/*.tar.xz", 88), ("laws_zh/*.tar.xz", 1_584)],
)
def test_real_corpora_are_recognised_and_read_whole(real_data, pattern, documents):
    texts = read(str(real_data / pattern))
    assert len(texts) == documents
    assert not any(text.startswith(("\ufeff", "<doc")) or "\r\n" in text for text in texts)
