"""Labelled text from every kind of file people keep it in, and what happens when the file is bad."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import tarfile
from pathlib import Path

import pyarrow.parquet
import pytest
import zstandard

from finetuning.examples.record_files import read_content, read_records
from finetuning.recipes.texts.labelled_folders import read_archive
from finetuning.recipes.texts.labelled_text import (
    Columns,
    LabelledText,
    from_records,
    hold_out,
    label_names,
    read_examples,
    read_splits,
)

ROWS = [
    {"id": "a", "text": 'He said "no", then left.', "label": "neg"},
    {"id": "b", "text": "Zwei\u2028Zeilen und ein Tab", "label": "pos"},
    {"id": "c", "text": "很好,下次还来", "label": "pos"},
]
EXPECTED = [LabelledText(row["id"], row["text"], label=row["label"]) for row in ROWS]


def as_csv() -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["id", "text", "label"])
    writer.writeheader()
    writer.writerows(ROWS)
    return stream.getvalue()


CONTENTS = {
    "a.csv": as_csv(),
    "a.tsv": "id\ttext\tlabel\n" + "".join(f"{row['id']}\t{row['text']}\t{row['label']}\n" for row in ROWS),
    "a.json": json.dumps(ROWS),
    "a.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n",
}


@pytest.mark.parametrize("name", sorted(CONTENTS))
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2", ".zst"])
def test_every_format_gives_the_same_examples(tmp_path, name, suffix):
    content = CONTENTS[name].encode()
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}
    (tmp_path / (name + suffix)).write_bytes(pack[suffix](content) if suffix else content)
    assert read_examples(tmp_path / (name + suffix)) == EXPECTED


@pytest.mark.parametrize("name", ["lines.json", "train-v1.1.jsonl", "a.ndjson", "lines.json.gz"])
def test_json_lines_by_any_of_their_names(tmp_path, name):
    content = CONTENTS["a.jsonl"].encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read_examples(tmp_path / name) == EXPECTED


@pytest.mark.parametrize("name", ["a.parquet", "table"])
def test_parquet_is_told_by_its_name_or_its_first_bytes(tmp_path, name):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / name)
    records = read_content(tmp_path / name)
    assert from_records(records, source=name) == EXPECTED


def test_bad_text_in_parquet_names_its_row_and_is_replaced_when_asked_for(tmp_path, caplog):
    array = pyarrow.array([b"good", None, b"na\xefve"], pyarrow.binary())
    valid, offsets, data = array.buffers()
    texts = pyarrow.StringArray.from_buffers(len(array), offsets, data, valid, array.null_count)
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file)
    with pytest.raises(ValueError, match=r"a\.parquet: row 3: byte 2 is not UTF-8 .*--on_bad_text replace"):
        read_records(file)
    assert [row["text"] for row in read_records(file, on_bad_text="replace")] == ["good", None, "na\ufffdve"]
    assert "1 characters were not UTF-8" in caplog.text


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_table_is_read_with_any_line_ends_and_keeps_those_in_quotes(tmp_path, ending):
    content = ending.join(["text,label", f'"one{ending}two",x', "three,y", ""])
    (tmp_path / "a.csv").write_bytes(content.encode())
    assert [one.text for one in read_examples(tmp_path / "a.csv")] == [f"one{ending}two", "three"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + CONTENTS["a.csv"].encode())
    assert read_examples(tmp_path / "a.csv") == EXPECTED


def write_reviews(root: Path) -> None:
    for split in ("train", "test"):
        for label in ("pos", "neg", "unsup"):
            (root / split / label).mkdir(parents=True)
            (root / split / label / "0_7.txt").write_text(f"{split} {label}", encoding="utf-8")
        (root / split / "urls_pos.txt").write_text("http://example.org")
    (root / "README.txt").write_text("no review")


def test_a_folder_and_its_tar_hold_the_same_examples(tmp_path):
    root = tmp_path / "aclImdb"
    write_reviews(root)
    with tarfile.open(tmp_path / "aclImdb.tar.xz", "w:xz") as archive:
        archive.add(root, arcname="aclImdb")
    folder, archive_splits = read_splits(root), read_splits(tmp_path / "aclImdb.tar.xz")
    for splits in (folder, archive_splits):
        assert sorted(splits) == ["test", "train"]
        assert sorted((one.text, one.label) for one in splits["train"]) == [("train neg", "neg"), ("train pos", "pos")]
    assert [one.text for one in folder["test"]] == [one.text for one in archive_splits["test"]]
    assert folder["train"][0].example_id == "train/neg/0_7"
    assert read_examples(root / "train")[0] == LabelledText("neg/0_7", "train neg", label="neg")


def test_a_folder_of_tables_is_read_by_name(tmp_path):
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text(CONTENTS["a.jsonl"])
    assert {split: len(rows) for split, rows in read_splits(tmp_path).items()} == {"train": 3, "validation": 3}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("pos/0.txt")
        member.type, member.linkname = kind, "/etc/hostname"
        archive.addfile(member)
    with pytest.raises(ValueError, match=r"pos/0\.txt.*neither a plain file"):
        read_splits(tmp_path / "a.tar")


@pytest.mark.parametrize("name", ["../pos/0.txt", "/pos/0.txt"])
def test_names_that_leave_a_tar_are_refused(tmp_path, name):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    with pytest.raises(ValueError, match="outside the archive"):
        read_splits(tmp_path / "a.tar")


def test_pairs_labels_and_ids_are_found_by_their_usual_names():
    rows = [{"index": 4, "sentence1": "a", "sentence2": "b", "label": 1}]
    assert from_records(rows, source="x") == [LabelledText("4", "a", "b", "1")]
    assert from_records(rows, source="x", labels=["no", "yes"])[0].label == "yes"


def test_columns_can_be_named_and_unknown_labels_stay_unknown():
    rows = [{"body": "a", "stars": 5}, {"body": "b", "stars": None}, {"body": "c", "stars": -1}]
    columns = Columns(text="body", label="stars")
    assert [(one.example_id, one.label) for one in from_records(rows, columns=columns, source="x")] == [
        ("0", "5"),
        ("1", None),
        ("2", "-1"),
    ]
    assert from_records(rows[2:], columns=columns, source="x")[0].label is None
    with pytest.raises(ValueError, match=r"no column 'boddy'; the columns are body, stars"):
        from_records(rows, columns=Columns(text="boddy"), source="x")
    with pytest.raises(ValueError, match="--text_column"):
        from_records(rows, source="x")


def test_a_first_row_without_a_label_hides_none_of_the_others(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a"}, {"text": "b", "label": 1, "id": "k"}]')
    assert read_examples(tmp_path / "a.json") == [LabelledText("0", "a"), LabelledText("k", "b", label="1")]


@pytest.mark.parametrize("name", ["nowhere", "nowhere.tar"])
def test_a_folder_or_an_archive_that_is_not_there_is_said_so(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: no such folder or archive"):
        read_splits(tmp_path / name)


def test_a_text_that_is_none_is_refused():
    with pytest.raises(ValueError, match="row 1: the text is None"):
        from_records([{"text": "a"}, {"text": None}], source="x")


def test_numeric_labels_are_ordered_as_numbers():
    assert label_names([LabelledText(str(i), "", label=name) for i, name in enumerate(["10", "2", "b", "a", "2"])]) == [
        "2",
        "10",
        "a",
        "b",
    ]


def test_held_out_examples_keep_copies_together_and_do_not_depend_on_order():
    examples = [LabelledText(str(i), f"text {i // 2}", label="a") for i in range(400)]
    rest, held = hold_out(examples, 0.2)
    assert 40 < len(held) < 120
    assert len(rest) + len(held) == 400
    assert not {one.text for one in rest} & {one.text for one in held}
    assert sorted(one.example_id for one in hold_out(examples[::-1], 0.2)[1]) == sorted(one.example_id for one in held)
    with pytest.raises(ValueError, match="leaves one side empty"):
        hold_out(examples, 1.0)


def test_a_label_is_not_held_out_whole():
    examples = [LabelledText(str(i), f"text {i // 2}", label="a" if i < 300 else f"rare {i // 2}") for i in range(400)]
    rest, held = hold_out(examples, 0.2)
    assert {one.label for one in rest} == {one.label for one in examples}
    assert len(rest) + len(held) == 400
    assert held
    assert {one.label for one in held} == {"a"}
    assert not {one.text for one in rest} & {one.text for one in held}


BAD_FILES = {
    "empty.csv": (b"", "empty or blank"),
    "blank.jsonl": (b" \n\n", "empty or blank"),
    "header.tsv": (b"text\tlabel\n", "no row below the header"),
    "latin.csv": ("text,label\nna\xefve,1\n".encode("latin-1"), "byte 13 is not UTF-8"),
    "torn.json": (b'[{"text": "a"', "not JSON"),
    "torn.jsonl": (b'{"text": "a"}\n\n{oops}\n', r"torn\.jsonl: line 3 is not JSON"),
    "several.json": (b'[{"text": "a", "label": ["x", "y"]}]', "row 0: the label is .*one name or number"),
    "no.tar": (b"", "is not a whole tar"),
    "deep.json": (b"[" * 200_000, "nested too deeply|not JSON"),
    "list.json": (b"[1, 2]", "row 0: int instead of an object"),
    "wide.tsv": (b"text\tlabel\na\t1\t2\n", r"wide\.tsv: line 2 has 3 fields"),
    "torn.csv.gz": (gzip.compress(b"text,label\n" + os.urandom(3000))[:-100], "cannot be read .*whole"),
    "plain.csv.xz": (b"text,label\na,1\n", "cannot be unpacked"),
    "a.parquet": (b"x", "is not a parquet file"),
    "torn.parquet": (b"PAR1" + b"x" * 90 + b"PAR1", "cannot be read as parquet"),
    "torn.csv.zst": (zstandard.compress(b"text,label\n" + os.urandom(3000))[:-100], "cannot be read .*whole"),
    "half.ndjson": (b'{"text": "\\ud800", "label": 1}', r"half\.ndjson: line 1: the text at .* half a character"),
    "quote.csv": (b'text,label\n"a,1\nb,2\n', r"quote\.csv: line 3 has 1 field,"),
    "a.yaml": (b"x", "unknown format"),
}


@pytest.mark.parametrize("name", sorted(BAD_FILES))
def test_bad_files_are_refused_by_name(tmp_path, name):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_examples(tmp_path / name)
    assert name in str(caught.value)


def test_bad_text_is_replaced_when_asked_for(tmp_path, caplog):
    (tmp_path / "a.csv").write_bytes("text,label\nna\xefve,1\n".encode("latin-1"))
    assert read_examples(tmp_path / "a.csv", on_bad_text="replace")[0].text == "na\ufffdve"
    assert "1 characters were not UTF-8" in caplog.text


def test_torn_lines_can_be_dropped_and_are_counted(tmp_path, caplog):
    (tmp_path / "a.tsv").write_text("text\tlabel\na\t1\nb\nc\t0\n")
    assert len(read_records(tmp_path / "a.tsv", malformed="drop")) == 2
    assert "1 lines without exactly 2 fields were dropped, the first is line 3" in caplog.text


def test_a_field_longer_than_csv_usually_allows_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(f"text,label\n{'x' * 300_000},1\n")
    assert len(read_examples(tmp_path / "a.csv")[0].text) == 300_000


def test_the_real_reviews_hold_the_known_counts(real_data):
    rows = read_examples(real_data / "chnsenticorp" / "dev.tsv.gz")
    assert len(rows) == 1200
    assert label_names(rows) == ["0", "1"]


@pytest.mark.slow
def test_imdb_has_123_texts_in_both_train_and_test(real_data):
    splits = read_splits(real_data / "imdb" / "aclImdb.tar.xz")
    texts = {name: [one.text for one in rows] for name, rows in splits.items()}
    assert {name: len(rows) for name, rows in texts.items()} == {"train": 25_000, "test": 25_000}
    assert len(set(texts["train"]) | set(texts["test"])) == 49_582
    assert len(set(texts["train"]) & set(texts["test"])) == 123
    assert label_names(splits["train"]) == ["neg", "pos"]


@pytest.mark.parametrize("name", ["train.csv.gz", "train.jsonl.gz", "train.tsv.xz", "train.json.gz"])
def test_a_packed_file_that_unpacks_to_far_more_than_text_does_is_refused(tmp_path, name):
    row = b'{"text": "' + b"a" * 1_000_000 + b'", "label": "b"}\n'
    with (gzip.open if name.endswith("gz") else lzma.open)(tmp_path / name, "wb") as file:
        for _ in range(120):
            file.write(row)
    with pytest.raises(ValueError, match=rf"{name} unpacks to over 250 times its size"):
        read_records(tmp_path / name)


def test_so_is_an_archive_of_labelled_texts(tmp_path):
    with tarfile.open(tmp_path / "train.tar.gz", "w:gz") as archive:
        for number in range(12):
            member = tarfile.TarInfo(f"pos/{number}.txt")
            member.size = 10_000_000
            archive.addfile(member, io.BytesIO(b"a" * member.size))
    with pytest.raises(ValueError, match=r"train\.tar\.gz unpacks to over 250 times its size"):
        list(read_archive(tmp_path / "train.tar.gz"))
