from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_directories import vocabulary, write_directory

from shards.storage.manifest import read_manifest
from shards.storage.reader import ShardReader
from shards.streaming.sentence_pairs import draw_pairs
from shards.streaming.splitmix import key, keys
from shards.streaming.stream import MaskedStream, StreamOptions


def document_of(starts, place):
    return int(np.searchsorted(starts, place, side="right"))


def drawn(count, width, block_tokens, documents, seed=0):
    """Sequences of `width` tokens cut from blocks in turn, and their pairs."""
    rng = np.random.default_rng(seed)
    which = np.arange(count) % len(block_tokens)
    starts = rng.integers(0, np.array(block_tokens)[which])
    lengths = np.minimum(width, np.array(block_tokens)[which] - starts)
    return (
        which,
        starts,
        lengths,
        draw_pairs(keys(key(seed), np.arange(count)), lengths, starts, which, documents, np.array(block_tokens)),
    )


@given(width=st.integers(2, 40), seed=st.integers(0, 50), sizes=st.lists(st.integers(10, 200), min_size=1, max_size=3))
def test_the_junction_lies_inside_a_document_and_false_halves_come_from_another(width, seed, sizes):
    rng = np.random.default_rng(seed)
    documents = [np.unique(np.append(0, rng.integers(1, size, size // 10))) for size in sizes]
    which, starts, lengths, pairs = drawn(60, width, sizes, documents, seed)
    for index in range(60):
        junction, source = int(pairs.junctions[index]), int(pairs.sources[index])
        assert 0 <= junction <= lengths[index]
        assert pairs.labels[index] == (source >= 0)
        if not pairs.weights[index]:
            assert source < 0
            continue
        edges = documents[which[index]]
        here = document_of(edges, starts[index] + junction - 1)
        assert 1 <= junction < lengths[index]
        assert document_of(edges, starts[index] + junction) == here
        if source >= 0:
            rest = lengths[index] - junction
            assert source + rest <= sizes[which[index]]
            assert here not in {document_of(edges, place) for place in range(source, source + rest)}


def test_half_of_the_pairs_are_true_and_the_cut_tells_nothing():
    documents = [np.arange(0, 60_000, 300)]
    _, _, lengths, pairs = drawn(20_000, 120, [60_000], documents)
    weighed = pairs.weights > 0
    assert weighed.mean() > 0.98
    assert abs(pairs.labels[weighed].mean() - 0.5) < 0.02
    full = weighed & (lengths == 120)
    true, false = (pairs.junctions[full & (pairs.labels == label)] for label in (0, 1))
    assert abs(true.mean() - false.mean()) < 1
    assert 30 <= true.min() <= true.max() <= 91


def test_a_block_of_one_document_has_no_pair_to_learn_from():
    _, _, _, pairs = drawn(2000, 50, [5000], [np.array([0])])
    assert not pairs.labels.any()
    assert not pairs.weights.any()
    assert (pairs.sources == -1).all()


@pytest.mark.parametrize("document_tokens", [900, 4_000, 17_000, 60_000])
def test_half_of_the_weighed_pairs_are_true_however_long_the_documents(document_tokens):
    blocks = [8_192] * 40
    documents = [
        np.unique(np.append(0, np.arange(-first % document_tokens, 8_192, document_tokens)))
        for first in range(0, 40 * 8_192, 8_192)
    ]
    _, _, _, pairs = drawn(20_000, 120, blocks, documents)
    weighed = pairs.weights > 0
    assert weighed.sum() > 1_000
    assert abs(pairs.labels[weighed].mean() - 0.5) < 0.04


def test_the_stream_builds_the_pairs_it_draws(tmp_path):
    write_directory(tmp_path)
    options = StreamOptions(
        global_batch_rows=8, micro_batch_rows=8, lengths=((0, 33),), objective="mlm+nsp", mask_rate=0.01
    )
    reader = ShardReader(tmp_path, read_manifest(tmp_path), "train")
    tokens = [reader.block(number).tokens.tolist() for number in range(4)]
    texts = [" ".join(map(str, block)) + " " for block in tokens]
    labels = []
    for batch in islice(MaskedStream(tmp_path, options, 0, 1, vocabulary=vocabulary()).batches(0), 20):
        ids = batch.input_ids.copy()
        np.put_along_axis(ids, batch.mask_positions, batch.mask_labels, axis=1)
        assert batch.input_ids.shape == (8, 33)
        for index in range(8):
            types, sequence = batch.token_type_ids[index], ids[index]
            used = 33 if batch.attention_mask is None else int(batch.attention_mask[index].sum())
            second = int(np.flatnonzero(types)[0])
            assert types[second:used].all()
            assert not types[used:].any()
            assert sequence[0] == 2
            assert sequence[second - 1] == sequence[used - 1] == 3
            first_half = " ".join(map(str, sequence[1 : second - 1])) + " "
            second_half = " ".join(map(str, sequence[second : used - 1])) + " "
            together = any(first_half + second_half in text for text in texts)
            assert any(first_half in text and second_half in text for text in texts)
            if batch.next_sentence_weights[index]:
                assert together == (batch.next_sentence_labels[index] == 0)
                labels.append(int(batch.next_sentence_labels[index]))
    assert 0.35 < np.mean(labels) < 0.65
