"""The sample a vocabulary is trained on: of a bounded size in bytes, and evenly from all sources."""

from __future__ import annotations

import pytest

from shards.building.options import BuildOptions
from shards.building.tokenizer_folder import prepare_tokenizer, sample_texts
from shards.text.sources import find_sources
from shards.tokenization.vocabulary import vocabulary_length


@pytest.mark.parametrize("document", ["file", "line"])
@pytest.mark.parametrize("letter", ["a", "é", "天", "𠀀"])
def test_every_source_has_the_same_share_of_bytes_whatever_its_letters(tmp_path, letter, document):
    for number in range(3):
        text = f"{number} {letter * 1_000}\n" * 800
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    options = BuildOptions(
        input=[str(tmp_path)], output_dir="out", vocabulary_sample_mb=1, document=document, drop_duplicates=False
    )
    shares = [0, 0, 0]
    number = 0
    for text in sample_texts(find_sources(options.input), options):
        number = int(text[0]) if text[:1].isdigit() else number
        shares[number] += len(text.encode())
    assert sum(shares) <= 1_000_000
    assert min(shares) > 333_333 - 4


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_a_vocabulary_that_cannot_be_as_small_as_asked_for_is_said_with_both_sizes(tmp_path, caplog, kind):
    (tmp_path / "a.txt").write_text("".join(map(chr, range(0x4E00, 0x4E80))) + " abcdefghijklmnopqrstuvwxyz" * 9)
    options = BuildOptions(input=[str(tmp_path)], output_dir="out", vocab_size=64, vocabulary=kind)
    tokenizer = prepare_tokenizer(tmp_path / "tokenizer", options, find_sources(options.input))
    assert vocabulary_length(tokenizer) > 64
    assert f"--vocab_size 64 gave a vocabulary of {vocabulary_length(tokenizer)}" in caplog.text


def test_a_vocabulary_that_is_smaller_than_asked_for_is_explained(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("".join(map(chr, range(0x4E00, 0x4E80))) * 3)
    options = BuildOptions(input=[str(tmp_path)], output_dir="out", vocab_size=4096)
    with caplog.at_level("INFO"):
        tokenizer = prepare_tokenizer(tmp_path / "tokenizer", options, find_sources(options.input))
    assert vocabulary_length(tokenizer) < 4096
    assert f"--vocab_size 4096: the text gave only {vocabulary_length(tokenizer)}, which is no fault" in caplog.text
