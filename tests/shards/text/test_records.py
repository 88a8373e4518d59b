"""Rows: columns of one name, TSV that is quoted and TSV that is not, and the types of parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from finetuning.examples.record_files import read_records
from shards.text.plain_text import TextRules
from shards.text.readers import DocumentReader
from shards.text.records import is_quoted
from shards.text.sources import find_sources

ROWS = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
TEXTS = ['He said "yes".', "A plain one.", 'Two\nlines, and a\ttab, "quoted"', '"all of it"', ""]


def documents(path, **rules):
    (source,) = find_sources([str(path)])
    return list(DocumentReader(TextRules(**rules)).read(source))


def tsv(texts: list[str], quoting: int, header: bool = True) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", quoting=quoting, lineterminator="\n")
    writer.writerows([["text", "label"]] * header + [[text, number % 2] for number, text in enumerate(texts)])
    return stream.getvalue().encode()


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("before", [0, 400])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_tsv_as_pandas_and_spreadsheets_write_it_is_read_as_quoted(tmp_path, quoting, before, mark):
    texts = ["no quotation mark"] * before + TEXTS
    (tmp_path / "a.tsv").write_bytes(mark + tsv(texts, quoting))
    assert documents(tmp_path / "a.tsv") == texts
    assert [row["text"] for row in read_records(tmp_path / "a.tsv")] == texts


def test_a_quoted_tsv_of_more_than_the_sample_without_a_header_and_a_row_that_breaks_its_rule(tmp_path):
    texts = [f'{number} said "{"x" * 300}"\nand left' for number in range(5_000)]
    path = tmp_path / "a.tsv"
    path.write_bytes(tsv(texts, csv.QUOTE_MINIMAL, header=False))
    assert documents(path, text_column="0") == texts
    lines = path.read_bytes().count(b"\n")
    for row in (b'"open\t1\n', b'"closed" too early\t1\n', b"three\tfields\there\n"):
        path.write_bytes(tsv(texts, csv.QUOTE_MINIMAL, header=False) + row)
        with pytest.raises(ValueError, match=rf"a\.tsv: line {lines + 1}"):
            documents(path, text_column="0")


@pytest.mark.parametrize(
    "rows",
    [
        ['He said "no", then left.', '"Yes"'],  # quotation marks inside a field
        ['"Yes" and "no"', "plain"],  # not doubled
        ['"Yes"', "plain"],  # a text that is one quotation
        ['"a text that opens only', 'says ""yes""'],
        ['7" screen', '12" screen'],
        ['"I like it', "plain"],
        ['""', "plain"],
    ],
)
def test_a_tsv_as_glue_writes_it_keeps_its_quotation_marks(tmp_path, rows):
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "".join(f"{row}\t1\n" for row in rows))
    assert documents(tmp_path / "a.tsv") == rows
    assert [row["text"] for row in read_records(tmp_path / "a.tsv")] == rows


def test_a_quotation_over_two_columns_is_none(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tother\n"I like it\tyou like it"\nplain\tplain\n')
    assert documents(tmp_path / "a.tsv") == ['"I like it', "plain"]


def test_the_real_glue_files_are_not_quoted(real_data, monkeypatch):
    answers = []

    def noted(data: bytes, width: int, *, whole: bool) -> bool:
        answers.append(is_quoted(data, width, whole=whole))
        return answers[-1]

    monkeypatch.setattr("shards.text.records.is_quoted", noted)
    for path in sorted((real_data / "glue").rglob("*.tsv*")):
        documents(path, text_column="0")
    assert answers
    assert not any(answers)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label,text\na,1,b\n"),
        ("a.tsv", "text\tlabel\ttext\na\t1\tb\n"),
        ("a.jsonl", '{"text": "a", "label": 1, "text": "b"}\n'),
        ("a.json", '{"text": "a", "label": 1, "text": "b"}\n{"text": "c", "label": 1}\n'),
    ],
)
def test_two_columns_of_one_name_are_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    for read in (documents, read_records):
        with pytest.raises(ValueError, match=r"text.* twice"):
            read(tmp_path / name)


def test_two_columns_of_one_name_in_json_and_parquet(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a",\n"text": "b"}]')
    with pytest.raises(ValueError, match=r"a\.json: key text appears twice"):
        read_records(tmp_path / "a.json")
    table = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    for read in (documents, read_records):
        with pytest.raises(ValueError, match=r"a\.parquet names the column 'text' twice"):
            read(tmp_path / "a.parquet")


def test_columns_without_a_name_and_others_than_the_text_may_repeat_in_a_build(tmp_path):
    (tmp_path / "a.csv").write_text(",text,,\n1,a,2,3\n")
    assert documents(tmp_path / "a.csv") == ["a"]
    assert read_records(tmp_path / "a.csv")[0]["text"] == "a"
    (tmp_path / "b.csv").write_text("note,text,note\n1,a,2\n")
    assert documents(tmp_path / "b.csv") == ["a"]


TYPES = [
    pyarrow.string(),
    pyarrow.large_string(),
    pyarrow.binary(),
    pyarrow.large_binary(),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.binary()),
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_parquet_text_of_every_type_that_holds_it(tmp_path, kind):
    texts = ["天地玄黄", None, "plain", "plain"]
    values = [text.encode() if text and "binary" in str(kind) else text for text in texts]
    column = pyarrow.array(values, kind if "dictionary" not in str(kind) else kind.value_type).cast(kind)
    table = pyarrow.table({"label": [[1], [2], [3], [4]], "text": column})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet") == ["天地玄黄", "", "plain", "plain"]
    assert [row["text"] for row in read_records(tmp_path / "a.parquet")] == texts


def test_bytes_in_parquet_that_are_no_text(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "image": [b"\x89PNG\xff"]}), tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet") == [{"text": "a", "image": b"\x89PNG\xff"}]
    with pytest.raises(ValueError, match=r"a\.parquet: row 1: byte 0 is not UTF-8"):
        documents(tmp_path / "a.parquet", text_column="image")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([7], "holds a int: name a column of text"),
        ({"en": "a"}, r"holds a dict with the fields \['en'\]: name the one with the text, as --text_column text\.en"),
        ([{"en": "a"}], r"holds a dict with the fields \['en'\]"),
    ],
)
def test_a_value_that_is_no_text_is_refused_with_what_to_do(tmp_path, value, message):
    pyarrow.parquet.write_table(pyarrow.table({"text": [value]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": value}))
    for name in ("a.parquet", "a.jsonl"):
        with pytest.raises(ValueError, match=message):
            documents(tmp_path / name)


@pytest.mark.parametrize("content", [ROWS, {"data": ROWS}], ids=["list", "data"])
@pytest.mark.parametrize("indent", [None, 1])
def test_one_json_value_is_rows_for_a_recipe_and_documents_for_a_build(tmp_path, content, indent):
    (tmp_path / "a.json").write_text(json.dumps(content, indent=indent))
    assert read_records(tmp_path / "a.json") == ROWS
    assert documents(tmp_path / "a.json") == ["a", "b"]


@pytest.mark.parametrize("name", ["a.json", "a.ndjson", "a-v1.1.jsonl", "a.json.gz"])
@pytest.mark.parametrize("rows", [1, 2])
def test_json_lines_by_any_name(tmp_path, name, rows):
    data = "".join(json.dumps(row) + "\r\n" for row in ROWS[:rows]).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert read_records(tmp_path / name) == ROWS[:rows]
    assert documents(tmp_path / name) == [row["text"] for row in ROWS[:rows]]
