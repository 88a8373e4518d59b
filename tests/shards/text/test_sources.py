"""Folders: links are followed or reported, and what Spark and its kin write beside their data is left out."""

from __future__ import annotations

import pyarrow
import pyarrow.parquet
import pytest

from finetuning.recipes.texts.labelled_text import read_splits
from shards.text.content import content_sha256
from shards.text.sources import find_sources


def names(*inputs: object) -> list[str]:
    return [source.name for source in find_sources([str(name) for name in inputs])]


@pytest.fixture
def linked(tmp_path):
    """A folder with a file, a folder elsewhere that it links to, a link back, and a broken link."""
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    corpus.mkdir()
    (corpus / "a.txt").write_text("a")
    (elsewhere / "deep" / "b.txt").write_text("b")
    (corpus / "more").symlink_to("../elsewhere")
    (elsewhere / "deep" / "back").symlink_to(corpus)
    (corpus / "gone.txt").symlink_to("../nowhere.txt")
    (corpus / "round.txt").symlink_to("round.txt")
    return corpus


@pytest.mark.parametrize("pattern", ["", "**/*.txt", "*"])
def test_folders_that_are_links_are_followed_once_and_dangling_links_reported(linked, caplog, pattern):
    found = names(linked / pattern if pattern else linked)
    assert [name.split("/")[-1] for name in found] == ["a.txt", "b.txt"]
    assert "gone.txt is skipped: it is a link to ../nowhere.txt, which is not there" in caplog.text
    assert "round.txt is skipped" in caplog.text
    assert pattern == "**/*.txt" or "leads back to a folder around it" in caplog.text


def test_labelled_folders_may_be_links_and_a_text_that_is_missing_is_an_error(tmp_path):
    (tmp_path / "set" / "train" / "good").mkdir(parents=True)
    (tmp_path / "awful").mkdir()
    (tmp_path / "set" / "train" / "good" / "0.txt").write_text("fine")
    (tmp_path / "awful" / "0.txt").write_text("dreadful")
    (tmp_path / "set" / "train" / "awful").symlink_to(tmp_path / "awful")
    assert [example.label for example in read_splits(tmp_path / "set")["train"]] == ["awful", "good"]
    (tmp_path / "awful" / "1.txt").symlink_to("gone")
    with pytest.raises(ValueError, match=r"1\.txt is a broken link: repair it"):
        read_splits(tmp_path / "set")


def test_a_text_that_is_a_git_lfs_pointer_is_no_example(tmp_path):
    (tmp_path / "train" / "good").mkdir(parents=True)
    (tmp_path / "train" / "good" / "0.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match=r"0\.txt is a Git LFS pointer"):
        read_splits(tmp_path)


def test_names_that_begin_with_an_underscore_are_no_data(tmp_path, caplog):
    table = pyarrow.table({"text": ["a"]})
    pyarrow.parquet.write_table(table, tmp_path / "part-0.parquet")
    for name in ("_metadata", "_common_metadata", "_SUCCESS"):
        (tmp_path / name).write_bytes(b"PAR1")
    assert names(tmp_path) == ["part-0.parquet"]
    assert not caplog.records
    (tmp_path / "_temporary").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "_temporary" / "part-1.parquet")
    assert names(tmp_path) == ["part-0.parquet"]
    assert "part-1.parquet is skipped: names that begin with _ are no data" in caplog.text
    assert names(tmp_path / "_temporary" / "part-1.parquet") == ["part-1.parquet"]


def test_a_saved_dataset_is_known_by_the_files_behind_its_links(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    (tmp_path / "saved" / "data").symlink_to("../blobs")
    hashes = set()
    for text in ("one", "two"):
        (tmp_path / "blobs" / "0.arrow").write_text(text)
        (source,) = find_sources([str(tmp_path / "saved")])
        assert source.bytes == 3
        hashes.add(content_sha256(source))
    assert len(hashes) == 2
