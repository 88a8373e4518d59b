"""The unigram floor: by hand on a tiny corpus, ties for the same words in another order, and what is refused."""

import inspect
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from tiny_encoder import tiny_tokenizer

from gap.cells.code_identity import deciding_modules
from gap.tasks.kinds.pairs import preference
from gap.tasks.unigram import (
    COUNTS_NAME,
    corpus_digest,
    log_frequencies,
    unigram_log_likelihoods,
    write_token_counts,
)
from pretraining.publishing.word_frequencies import token_counts
from shards.building.builder import build_shards
from shards.building.options import BuildOptions
from shards.storage.location import open_location
from shards.storage.reader import ShardReader
from shards.tokenization.vocabulary import load_tokenizer

WORDS = ["common", "rare", "never", "un", "##seen"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Documents of `common`, some of them with a `rare`."""
    folder = tmp_path_factory.mktemp("corpus")
    tiny_tokenizer(WORDS).save_pretrained(folder / "tokenizer")
    texts = [" ".join(["common"] * (20 + i) + ["rare"] * (i % 2)) for i in range(12)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = BuildOptions(
        input=[str(folder / "corpus.jsonl")],
        output_dir=str(folder / "shards"),
        tokenizer=str(folder / "tokenizer"),
        block_tokens=512,
        near_duplicates="ignore",
        validation_fraction=0.1,
        processes=1,
    )
    build_shards(options)
    return folder / "shards"


def tokenizer_of(shards):
    return load_tokenizer(str(shards / open_location(shards).manifest.tokenizer.path))


def test_the_floor_is_the_sum_of_log_frequencies_with_one_added_to_each(shards, tmp_path):
    write_token_counts(tmp_path, shards, "code")
    tokenizer = tokenizer_of(shards)
    names = tokenizer.convert_ids_to_tokens(range(10))
    counts = dict(zip(names, json.loads((tmp_path / COUNTS_NAME).read_text())["counts"], strict=True))
    assert counts["never"] == counts["[MASK]"] == 0
    assert counts["common"] > 100 > 10 > counts["rare"] > 2
    total = sum(counts.values()) + 10
    share = {word: math.log((count + 1) / total) for word, count in counts.items()}
    found = unigram_log_likelihoods(tmp_path, corpus_digest(shards), tokenizer, ["rare common", "never", "unseen rare"])
    expected = [share["rare"] + share["common"], share["never"], share["un"] + share["##seen"] + share["rare"]]
    assert found == pytest.approx(expected)


def test_the_order_of_the_words_is_nothing(shards, tmp_path):
    write_token_counts(tmp_path, shards, "code")
    words, generator = ["rare", "common", "never", "unseen"] * 5, random.Random(0)
    texts = [" ".join(generator.sample(words, len(words))) for _ in range(50)]
    found = unigram_log_likelihoods(tmp_path, corpus_digest(shards), tokenizer_of(shards), [*texts, "common common"])
    assert {preference(found[0], other) for other in found[:-1]} == {0.5}
    assert preference(found[-1], found[0]) == 1.0


def test_frequencies_are_those_of_a_distribution():
    assert np.exp(log_frequencies(np.array([3, 0, 1]))).tolist() == pytest.approx([4 / 7, 1 / 7, 2 / 7])


def test_counts_are_made_once_for_a_corpus(shards, tmp_path):
    write_token_counts(tmp_path, shards, "code")
    path = tmp_path / COUNTS_NAME
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "counts": [1] * 10}))
    write_token_counts(tmp_path, shards, "code")
    assert json.loads(path.read_text())["counts"] == [1] * 10
    earlier = {name: value for name, value in record.items() if name != "code"}
    for stale in ({**record, "corpus": "another"}, {**record, "code": "another"}, earlier):
        path.write_text(json.dumps({**stale, "counts": [1] * 10}))
        write_token_counts(tmp_path, shards, "code")
        assert json.loads(path.read_text()) == record


def test_what_counts_the_tokens_is_part_of_a_cells_code():
    counting = {inspect.getmodule(one).__name__ for one in (token_counts, write_token_counts, ShardReader)}
    assert counting <= set(deciding_modules(Path(__file__).parents[3]))


def test_counts_of_another_corpus_or_tokenizer_are_refused(shards, tmp_path):
    tokenizer, corpus = tokenizer_of(shards), corpus_digest(shards)
    with pytest.raises(ValueError, match="is missing"):
        unigram_log_likelihoods(tmp_path, corpus, tokenizer, ["rare"])
    write_token_counts(tmp_path, shards, "code")
    with pytest.raises(ValueError, match="other shards"):
        unigram_log_likelihoods(tmp_path, "another", tokenizer, ["rare"])
    with pytest.raises(ValueError, match="another tokenizer"):
        unigram_log_likelihoods(tmp_path, corpus, tiny_tokenizer(["other"]), ["rare"])
    (tmp_path / COUNTS_NAME).write_text('{"schema_version": 1, "corpus": "c", "tokenizer": "t", "counts": [-1]}')
    with pytest.raises(ValueError, match=r"counts\[0\] is -1"):
        unigram_log_likelihoods(tmp_path, corpus, tokenizer, ["rare"])
