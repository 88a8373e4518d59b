"""An interrupted build and its input: the same files continue it, wherever they lie now; edited ones do not."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from runtime.files.whole_files import sha256_of
from shards.building.builder import build_shards
from shards.building.options import BuildOptions
from shards.building.report import closing_report
from shards.tokenization.vocabulary import save_tokenizer, train_vocabulary

TEXT = [f"The river number {number} runs by the town of {number * 7} houses." for number in range(600)]
SMALL = {"block_tokens": 256, "blocks_per_shard": 2, "processes": 1, "document": "line", "near_duplicates": "ignore"}


class Interrupted(Exception):
    pass


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A corpus, a tokenizer, and the directory of a build that was interrupted after a few shards."""
    monkeypatch.setattr("shards.building.chunks.CHUNK_CHARACTERS", 2_000)
    (tmp_path / "corpus").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "corpus" / name).write_text("\n".join(f"{name} {line}" for line in TEXT))
    save_tokenizer(train_vocabulary(TEXT, kind="wordpiece", vocab_size=300, lowercase=True), tmp_path / "tokenizer")

    def stop(progress):
        if progress["bytes_read"] > 0.6 * progress["bytes_total"]:
            raise Interrupted

    with pytest.raises(Interrupted):
        build_shards(options(tmp_path), stop)
    assert list((tmp_path / "out").glob("*.tar"))
    return tmp_path


def options(folder, corpus="corpus", out="out", tokenizer="tokenizer"):
    return BuildOptions(
        input=[str(folder / corpus)], output_dir=str(folder / out), tokenizer=str(folder / tokenizer), **SMALL
    )


def copied(folder):
    """As a job stages its input on another disk: other paths and times."""
    shutil.copytree(folder / "corpus", folder / "staged")
    shutil.rmtree(folder / "corpus")
    return "staged"


def touched(folder):
    os.utime(folder / "corpus" / "a.txt", (0, 0))
    return "corpus"


def written_again(folder):
    for path in (folder / "corpus").iterdir():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    return "corpus"


@pytest.mark.parametrize("change", [copied, touched, written_again])
def test_the_same_files_continue_an_interrupted_build_to_the_same_bytes(begun, change):
    build_shards(options(begun, out="whole"))
    before = {path.name: path.stat().st_mtime_ns for path in (begun / "out").glob("*.tar")}
    half_a_shard = begun / "out" / ".train-000009.tar.4711.tmp"
    half_a_shard.write_bytes(b"of the killed process")
    corpus = change(begun)
    build_shards(options(begun, corpus=corpus))
    for path in (begun / "whole").glob("*.tar"):
        assert sha256_of(path) == sha256_of(begun / "out" / path.name)
    assert (begun / "whole" / "manifest.json").read_bytes() == (begun / "out" / "manifest.json").read_bytes()
    assert all((begun / "out" / name).stat().st_mtime_ns == written for name, written in before.items())
    assert not half_a_shard.exists()


@pytest.mark.parametrize("with_its_time", [False, True])
def test_a_file_edited_to_the_same_size_does_not_continue_it(begun, with_its_time):
    path = begun / "corpus" / "b.txt"
    status = path.stat()
    time.sleep(0.01)
    path.write_text(path.read_text().replace("river", "RIVER"))
    if with_its_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ValueError, match=r"unfinished build of an earlier version of \S*b\.txt \(edited since"):
        build_shards(options(begun))


def test_nor_do_other_files_or_another_tokenizer_while_a_copied_one_does(begun):
    save_tokenizer(train_vocabulary(TEXT, kind="wordpiece", vocab_size=200, lowercase=True), begun / "other")
    with pytest.raises(ValueError, match=r"unfinished build with another tokenizer than \S*other"):
        build_shards(options(begun, tokenizer="other"))
    shutil.copytree(begun / "tokenizer", begun / "copy")
    (begun / "corpus" / "c.txt").write_text("more")
    with pytest.raises(ValueError, match="unfinished build from other input or options"):
        build_shards(options(begun, tokenizer="copy"))
    (begun / "corpus" / "c.txt").unlink()
    build_shards(options(begun, tokenizer="copy"))
    assert (begun / "out" / "manifest.json").is_file()


def test_untouched_input_is_hashed_once(begun, monkeypatch):
    monkeypatch.setattr("shards.text.content.sha256_of", None)
    sources = build_shards(options(begun)).manifest.data["sources"]
    assert [source["sha256"] for source in sources] == [
        sha256_of(begun / "corpus" / name) for name in ("a.txt", "b.txt")
    ]


def test_the_rate_of_a_continued_build_is_of_the_text_read_since(begun):
    whole = build_shards(options(begun, out="whole"))
    continued = build_shards(options(begun))
    assert whole.text_bytes_now == whole.text_bytes == continued.text_bytes
    assert 0 < continued.text_bytes_now < 0.6 * whole.text_bytes
    rate = f"{continued.text_bytes_now / 1e6 / continued.seconds:.2f} MB text/s since it was continued"
    assert rate in closing_report(continued, begun / "out")
    assert "since it was continued" not in closing_report(whole, begun / "whole")
