"""JSON arrays: element by element in bounded memory, the same values as json.load gives, or a refusal."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.text.dumps import json_arrays
from shards.text.dumps.json_arrays import array_elements
from shards.text.plain_text import TextRules
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources

ROWS = [{"id": 1, "text": 'one, [two] {"three"} \\'}, {"text": "第二\n", "more": [{"text": "inner"}]}, {"text": None}]
TEXTS = ['one, [two] {"three"} \\', "第二\n", ""]


def read(path, reader=None, **rules):
    reader = reader or DocumentReader(TextRules(**rules))
    return [text for source in find_sources([str(path)]) for text in reader.read(source)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b" \n"])
@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize(
    "around",
    [lambda rows: rows, lambda rows: {"data": rows}, lambda rows: {"v": "1.1", "n": 3, "rows": rows, "end": {}}],
)
def test_a_list_of_objects_and_one_in_an_object(tmp_path, pack, mark, indent, around):
    suffix = {bytes: "", gzip.compress: ".gz", zstandard.compress: ".zst"}[pack]
    path = tmp_path / f"a.json{suffix}"
    path.write_bytes(pack(mark + json.dumps(around(ROWS), indent=indent, ensure_ascii=indent == 2).encode()))
    assert read(path) == TEXTS


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
def test_a_list_of_texts(tmp_path, name):
    (tmp_path / name).write_text(json.dumps(["one", "第二", ""], indent=1))
    assert read(tmp_path / name) == ["one", "第二", ""]


@pytest.mark.parametrize(
    ("content", "column", "texts"),
    [
        ('{"messages": [{"content": "a"}]}\n{"messages": [{"content": "b"}]}\n', "messages.content", ["a", "b"]),
        ('{"meta": [{"x": 1}], "text": "a"}\n{"meta": [{"x": 1}], "text": "b"}\n', "text", ["a", "b"]),
        ('{"meta": [{"x": 1}], "text": "a"}\n', "text", ["a"]),
        ('{"text": ["a", "b"]}\n', "text", ["a\n\nb"]),
        ('{"data": [{"paragraphs": [{"context": "a"}, {"context": "b"}]}]}', "paragraphs.context", ["a\n\nb"]),
        ("{}\n", "text", None),
    ],
)
def test_objects_a_line_with_lists_in_them_are_still_lines(tmp_path, content, column, texts):
    (tmp_path / "a.json").write_text(content)
    if texts is None:
        with pytest.raises(ValueError, match="line 1 has no column 'text'"):
            read(tmp_path / "a.json")
    else:
        assert read(tmp_path / "a.json", text_column=column) == texts


LONG = "x" * 300_000


@pytest.mark.parametrize(
    "record",
    [
        {"authors": ["Ann", 'B: "b"'], "text": LONG},
        {"text": "short", "authors": ["Ann"], "notes": LONG},
        {"authors": [{"name": "Ann"}], "notes": {"of": ["text"]}, "text": "short", "more": LONG},
    ],
)
def test_one_long_object_gives_its_text_and_not_the_list_in_it(tmp_path, record):
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert read(tmp_path / "a.json") == [record["text"]]


def test_a_long_object_around_a_list_whose_objects_have_the_column(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"of": 'a "text": b', "data": [{"text": "a"}, {"text": LONG}]}))
    assert read(tmp_path / "a.json") == ["a", LONG]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"authors": ["' + LONG + '"], "text": "x"}', "is one object with the column 'text', after a long list"),
        ('{\n"authors": ["Ann"],\n"text": "x"\n}', "line 1 begins a JSON value of several lines"),
        ("[", "the list ends in or after element 1"),
        ('[{"text": "x"}, {"te', "the list ends in or after element 2"),
        ('[{"text": "x"},]', r"byte 15, at element 2, is b'\]'"),
        ('[{"text": "x"} {"text": "y"}]', r"byte 15, at element 1, is b'\{'"),
        ('[{"text": "x"}]\n[{"text": "y"}]', "after its list, of 1 elements, stands .* one object per line"),
        ('[{"text": "x"}, 7]', "element 2 is a int, not an object or a text"),
        ("[[1]]", "element 1 is a list, not an object or a text"),
        ('[{"text": "x", "text": "y"}]', "element 1: .*twice"),
        ('[{"text": nothing}]', "element 1 is not JSON"),
        ('[{"body": "x"}]', "element 1 has no column 'text': name one of body"),
        ('["\\ud800"]', "element 1: a lone surrogate"),
        ('[{"text": ' + "[" * 100_000 + "]" * 100_000 + "}]", "element 1 is too deeply nested"),
        ('["' + "x" * 1_200_000 + '"]', "element 1 is longer than 1,000,000 bytes: raise --max_document_mb"),
        ('{"data": [{"text": "x"}]', "the object around the list does not end"),
        ('{"data": [{"text": "x"}], "dev": [{"text": "y"}]}', "has several lists"),
    ],
)
def test_what_is_no_list_of_documents_is_refused_by_element(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.json.* {message}"):
        read(tmp_path / "a.json", max_document_bytes=1_000_000)


def test_bytes_that_are_not_utf8_stop_with_their_place_or_are_replaced(tmp_path):
    data = b'[{"text": "a"}, {"text": "caf\xe9"}]'
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=f"byte {data.index(0xE9)} is not UTF-8"):
        read(tmp_path / "a.json")
    assert read(tmp_path / "a.json", on_bad_text="replace") == ["a", "caf\ufffd"]


def test_memory_does_not_grow_with_the_list(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "x" * 1_000}] * 5_000))
    source = find_sources([str(path)])[0]
    tracemalloc.start()
    assert sum(len(text) for text in DocumentReader().read(source)) == 5_000_000
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(
    values=st.lists(VALUES, max_size=5),
    indent=st.sampled_from([None, 0, 1]),
    ascii_only=st.booleans(),
    size=st.integers(1, 9),
)
def test_elements_are_those_of_json_load_however_small_the_reads(values, indent, ascii_only, size):
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    before, json_arrays.READ_BYTES = json_arrays.READ_BYTES, size
    try:
        stream = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]
        elements = list(array_elements(stream, "a.json", TextRules()))
    finally:
        json_arrays.READ_BYTES = before
    assert [json.loads(element) for _, _, element in elements] == values
    assert all(data[offset : offset + len(element)] == element for _, offset, element in elements)
