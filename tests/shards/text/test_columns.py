"""Columns: fields of fields, lists of texts, and names with a point in them, in every format that has columns."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from shards.text.columns import field_of, joined
from shards.text.plain_text import TextRules
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources

ROWS = [{"a": {"b": "one", "c": {"d": ["x", "y"]}}, "other": "o"}, {"a": {"b": None, "c": {"d": []}}, "other": "p"}]
FOLDED = {"b": ["one", ""], "c.d": ["x\n\ny", ""]}


def read(path, **rules):
    (source,) = find_sources([str(path)])
    return list(DocumentReader(TextRules(**rules)).read(source))


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def array(path, rows):
    path.write_text(json.dumps(rows, indent=1))


def parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def saved(path, rows):
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(path)


def streamed(path, rows):
    path.mkdir()
    parquet(path / "train-00000-of-00001.parquet", rows)


WAYS = {"a.jsonl": lines, "a.json": array, "a.parquet": parquet, "saved": saved, "hub": streamed}


def written(tmp_path, name, rows):
    WAYS[name](tmp_path / name, rows)
    return f"datasets:{tmp_path / name}" if name == "hub" else tmp_path / name


@pytest.mark.parametrize("column", FOLDED)
@pytest.mark.parametrize("name", WAYS)
def test_a_field_of_a_column(tmp_path, name, column):
    assert read(written(tmp_path, name, ROWS), text_column=f"a.{column}") == FOLDED[column]


@pytest.mark.parametrize("name", WAYS)
def test_a_list_of_texts_is_the_paragraphs_of_a_document(tmp_path, name):
    path = written(tmp_path, name, [{"text": ["one", None, "two", ""]}, {"text": None}, {"text": []}])
    assert read(path) == ["one\n\ntwo", "", ""]


@pytest.mark.parametrize("name", WAYS)
def test_the_items_of_a_list_each_have_the_field(tmp_path, name):
    path = written(tmp_path, name, [{"turns": [{"who": "a", "says": "hello"}, {"who": "b", "says": "bye"}]}])
    assert read(path, text_column="turns.says") == ["hello\n\nbye"]


@pytest.mark.parametrize("name", WAYS)
def test_a_name_with_a_point_comes_before_a_field(tmp_path, name):
    path = written(tmp_path, name, [{"a": {"b": "field"}, "a.b": "name", "x.y": {"z.z": "both"}}])
    assert read(path, text_column="a.b") == ["name"]
    assert read(path, text_column="x.y.z.z") == ["both"]


@pytest.mark.parametrize("column", ["nothing", "a.nothing", "a.b.c", "other.x"])
@pytest.mark.parametrize("name", WAYS)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path, name, column):
    path = written(tmp_path, name, ROWS[:1])
    with pytest.raises(ValueError, match=rf"no column '{column}': name one of .+ with --text_column"):
        read(path, text_column=column)


def test_fields_by_name():
    record = {"a": {"b": 1, "b.c": 2}, "a.b": {"c": 3}, "a.b.c": 4}
    assert field_of(record, "a.b.c", "x") == 4
    del record["a.b.c"]
    assert field_of(record, "a.b.c", "x") == 3
    del record["a.b"]
    assert field_of(record, "a.b.c", "x") == 2
    with pytest.raises(ValueError, match=r"x has no column 'c': name one of a, a\.b, a\.b\.c with"):
        field_of(record, "c", "x")
    assert joined([["a"], [["b"], None]], "x", "c") == "a\n\nb"


@pytest.mark.parametrize("name", ["a.parquet", "saved", "hub"])
def test_only_the_column_is_read(tmp_path, name, monkeypatch):
    """The other columns of a parquet file are damaged on disk, those of a saved data set are not asked for."""
    size = 50_000
    rows = [
        {"id": number, "noise": f"{number * 7919 % 104729:09d}" * 20, "a": {"text": "t", "x": "y"}}
        for number in range(size // 100)
    ]
    path = written(tmp_path, name, rows)
    if name == "saved":
        import datasets

        asked = []
        select = datasets.Dataset.select_columns
        monkeypatch.setattr(
            datasets.Dataset, "select_columns", lambda self, names: asked.append(names) or select(self, names)
        )
        assert set(read(path, text_column="a.text")) == {"t"}
        assert asked == [["a"]]
        return
    file = tmp_path / name if name == "a.parquet" else next((tmp_path / name).glob("*.parquet"))
    group = pyarrow.parquet.ParquetFile(file).metadata.row_group(0)
    chunks = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
    start = chunks["noise"].dictionary_page_offset or chunks["noise"].data_page_offset
    data = bytearray(file.read_bytes())
    data[start : start + chunks["noise"].total_compressed_size] = b"\xff" * chunks["noise"].total_compressed_size
    file.write_bytes(data)
    assert set(read(path, text_column="a.text")) == {"t"}
    with pytest.raises((ValueError, OSError)):
        read(path, text_column="noise")
